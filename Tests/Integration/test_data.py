"""One cache behind any node: what is done on one is seen on every other at once."""

from __future__ import annotations

import re
import socket
import time

import support
from harness import load
from harness.nodes import Cluster, http_get, poll
from support import BOTH, ClusterTest, reports

KEYS = 300
# What the Prometheus exporter reads in plain `stats`.
STATISTICS = (
    "get_hits get_misses delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses cas_hits cas_misses "
    "cas_badval touch_hits touch_misses cmd_set cmd_flush uptime time version rusage_user rusage_system bytes "
    "limit_maxbytes curr_items total_items bytes_read bytes_written curr_connections total_connections evictions"
).split()


class DataTest(ClusterTest):
    shared: Cluster

    @classmethod
    def setUpClass(cls) -> None:
        # One cluster for all tests of this class; each uses keys of its own.
        cls.shared = Cluster(support.henge, 3)
        cls.addClassCleanup(cls.shared.close)
        cls.shared.start_all()
        cls.shared.wait_ready()
        cls.shared.wait_settled()

    def connections(self, library: str) -> list:
        session = self.session(self.shared, library=library)
        return list(session.connections.values())

    def test_a_set_on_one_node_is_read_on_every_other_at_once(self) -> None:
        asked = answered = missed = stale = 0
        for library in BOTH:
            nodes = self.connections(library)
            for index in range(KEYS):
                key, value = f"seen:{library}:{index}", f"value {index}".encode()
                writer = index % 3
                nodes[writer].set(key, value)
                for step in (1, 2, 0):
                    asked += 1
                    found = nodes[(writer + step) % 3].get(key)
                    answered += 1
                    missed += found is None
                    stale += found not in (None, value)
        reports.append(f"asked {asked}  answered {answered}  missed {missed}  stale {stale}  lost {missed}")
        self.assertEqual((missed, stale), (0, 0))

    def test_a_delete_on_one_node_is_seen_on_every_other_at_once(self) -> None:
        for library in BOTH:
            nodes = self.connections(library)
            for index in range(KEYS):
                key = f"gone:{library}:{index}"
                nodes[index % 3].set(key, b"here")
                self.assertTrue(nodes[(index + 1) % 3].delete(key))
                for node in nodes:
                    self.assertIsNone(node.get(key))

    def test_what_one_library_sets_the_other_reads(self) -> None:
        one, other = (self.connections(library) for library in BOTH)
        for index in range(KEYS):
            one[index % 3].set(f"to:{index}", b"from pymemcache")
            self.assertEqual(other[(index + 1) % 3].get(f"to:{index}"), b"from pymemcache")
            other[index % 3].set(f"back:{index}", b"from pylibmc")
            self.assertEqual(one[(index + 2) % 3].get(f"back:{index}"), b"from pylibmc")

    def test_a_cas_unique_of_one_node_works_on_another(self) -> None:
        for library in BOTH:
            nodes = self.connections(library)
            for index in range(KEYS):
                key = f"cas:{library}:{index}"
                nodes[index % 3].set(key, b"one")
                value, unique = nodes[(index + 1) % 3].gets(key)
                self.assertEqual(value, b"one")
                self.assertTrue(nodes[(index + 2) % 3].cas(key, b"two", unique))
                self.assertFalse(nodes[index % 3].cas(key, b"three", unique), "a unique works once")
                self.assertEqual(nodes[(index + 1) % 3].get(key), b"two")

    def test_one_of_many_cas_with_the_same_unique_wins(self) -> None:
        for round_number in range(50):
            key = f"race:{round_number}"
            nodes = self.connections("pymemcache")
            nodes[0].set(key, b"start")
            won: list[int] = []
            uniques = [node.gets(key)[1] for node in nodes]

            def attempt(index: int) -> None:
                if nodes[index].cas(key, f"by {index}".encode(), uniques[index]):
                    won.append(index)

            load.run_all([lambda index=index: attempt(index) for index in range(3)])
            self.assertEqual(len(won), 1)
            self.assertEqual(nodes[1].get(key), f"by {won[0]}".encode())
            for node in nodes:
                node.close()

    def test_one_of_many_adds_wins(self) -> None:
        nodes = self.connections("pymemcache")
        for round_number in range(100):
            key, won = f"add:{round_number}", []

            def attempt(index: int) -> None:
                if nodes[index].add(key, f"by {index}".encode()):
                    won.append(index)

            load.run_all([lambda index=index: attempt(index) for index in range(3)])
            self.assertEqual(len(won), 1)
            self.assertEqual(nodes[2].get(key), f"by {won[0]}".encode())

    def test_incr_from_all_nodes_at_once_is_exact(self) -> None:
        each = 1_000
        self.connections("pymemcache")[0].set("counter", b"0")
        answers: list[int] = []
        problems: list[Exception] = []

        def count(index: int, library: str) -> None:
            try:
                node = self.connections(library)[index]
                mine = [node.incr("counter") for _ in range(each)]
                answers.extend(mine)
            except Exception as problem:
                problems.append(problem)

        load.run_all([lambda i=i, library=library: count(i, library) for i in range(3) for library in BOTH])
        total = 6 * each
        reports.append(f"asked {total}  answered {len(answers)}  missed {answers.count(None)}")
        self.assertEqual(problems, [])
        # Each number was given exactly once.
        self.assertEqual(sorted(answers), list(range(1, total + 1)))
        for node in self.connections("pylibmc"):
            self.assertEqual(int(node.incr("counter", 0)), total)

    def test_a_multi_get_collects_from_all_owners(self) -> None:
        values = {f"many:{index}": f"value {index}".encode() for index in range(500)}
        nodes = self.connections("pymemcache")
        self.assertEqual(nodes[0].set_many(values), [])
        for node in [*nodes, *self.connections("pylibmc")]:
            self.assertEqual(node.get_many(list(values)), values)

    def test_a_multi_get_answers_in_request_order(self) -> None:
        nodes = self.connections("pymemcache")
        keys = [f"order:{index}" for index in range(100)]
        nodes[0].set_many({key: key.encode() for key in keys})
        for node in self.shared.nodes:
            answer = self.raw(node.client, b"get " + " ".join(keys).encode() + b"\r\n", b"END\r\n")
            self.assertEqual(re.findall(rb"VALUE (\S+) ", answer), [key.encode() for key in keys])

    def test_pipelined_answers_keep_their_order_over_all_owners(self) -> None:
        lines = [f"set pipe:{index} 0 0 {len(str(index))}\r\n{index}\r\n" for index in range(400)]
        lines += [f"get pipe:{index}\r\n" for index in range(400)] + ["version\r\n"]
        expected = "STORED\r\n" * 400
        expected += "".join(f"VALUE pipe:{index} 0 {len(str(index))}\r\n{index}\r\nEND\r\n" for index in range(400))
        for node in self.shared.nodes:
            answer = self.raw(node.client, "".join(lines).encode(), b"VERSION 1.6.45\r\n")
            self.assertEqual(answer.decode(), expected + "VERSION 1.6.45\r\n")

    def test_silent_writes_through_one_node_are_seen_after_its_next_answer(self) -> None:
        lines = b"".join(b"set quiet:%d 0 0 1 noreply\r\nx\r\n" % index for index in range(300))
        self.raw(self.shared.nodes[0].client, lines + b"version\r\n", b"VERSION 1.6.45\r\n")
        for node in self.connections("pymemcache"):
            self.assertEqual(len(node.get_many([f"quiet:{index}" for index in range(300)])), 300)

    def test_expiry_is_the_same_on_every_node(self) -> None:
        nodes = self.connections("pymemcache")
        nodes[0].set("short", b"x", 1)
        nodes[1].set("long", b"x", 1000)
        self.assertTrue(nodes[2].touch("long", 2000))
        deadline = support.deadline(5)
        while any(node.get("short") is not None for node in nodes):
            self.assertFalse(deadline(), "a key with one second to live is there after five")
        self.assertEqual([node.get("short") for node in nodes], [None] * 3)
        self.assertEqual([node.get("long") for node in nodes], [b"x"] * 3)

    def test_large_values_go_through_every_node(self) -> None:
        value = bytes(range(256)) * 4_000
        for library in BOTH:
            nodes = self.connections(library)
            for index, node in enumerate(nodes):
                key = f"large:{library}:{index}"
                node.set(key, value)
                for other in nodes:
                    self.assertEqual(other.get(key), value)

    def test_stats_are_what_collectors_read(self) -> None:
        for node in self.shared.nodes:
            answer = self.raw(node.client, b"stats\r\n", b"END\r\n")
            self.assertLess(len(answer), 4_096, "collectd reads no more")
            rows = dict(re.findall(r"STAT (\S+) (.*)\r\n", answer.decode()))
            for name in STATISTICS:
                self.assertIn(name, rows)
            for name, value in rows.items():
                self.assertNotIn(" ", value, name)
            for name in ("rusage_user", "rusage_system"):
                self.assertRegex(rows[name], r"^\d+\.\d{6}$")
            for name in ("settings", "items", "slabs"):
                self.assertTrue(self.raw(node.client, f"stats {name}\r\n".encode(), b"END\r\n").endswith(b"END\r\n"))

    def hints(self, result: str) -> int:
        """Access hints of all nodes with that result."""
        total = 0
        for node in self.shared.nodes:
            _, metrics = http_get(node.admin, "/metrics")
            found = re.search(rf'^henge_access_hints_total{{result="{result}"}} (\d+)$', metrics, re.MULTILINE)
            assert found is not None, f"no count of hints that were {result}"
            total += int(found[1])
        return total

    def test_copies_hear_what_is_read_at_their_holders(self) -> None:
        nodes = self.connections("pymemcache")
        before = {result: self.hints(result) for result in ("sent", "received", "dropped")}
        for index in range(KEYS):
            nodes[index % 3].set(f"read:{index}", b"value")
            self.assertEqual(nodes[(index + 1) % 3].get(f"read:{index}"), b"value")
        # One copy of each key, which hears of its first read.
        heard = before["received"] + KEYS
        poll("hints for all reads", time.monotonic() + 10, lambda: self.hints("received") >= heard)
        self.assertGreaterEqual(self.hints("sent"), before["sent"] + KEYS)
        self.assertEqual(self.hints("dropped"), before["dropped"])

    def test_z_flush_all_on_one_node_empties_all(self) -> None:
        nodes = self.connections("pymemcache")
        nodes[0].set_many({f"flush:{index}": b"x" for index in range(300)})
        nodes[1].flush()
        for node in nodes:
            self.assertEqual(node.get_many([f"flush:{index}" for index in range(300)]), {})
        nodes[2].set("after", b"x")
        self.assertEqual([node.get("after") for node in nodes], [b"x"] * 3)

    def raw(self, address: tuple[str, int], request: bytes, end: bytes) -> bytes:
        """The answer to some bytes, read up to its known end."""
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(end):
                part = connection.recv(65_536)
                self.assertTrue(part, f"closed after {answer[-200:]!r}")
                answer += part
            return answer
