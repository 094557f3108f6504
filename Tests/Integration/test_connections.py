"""Client connections: many, idle, slow, half a request long, more than there are descriptors for."""

from __future__ import annotations

import pathlib
import resource
import select
import socket
import time

from harness import nodes
from harness.nodes import Cluster, Node
from support import ClusterTest

VERSION = b"VERSION 1.6.45\r\n"


def stats(address: tuple[str, int], *arguments: str) -> dict[str, str]:
    """What `stats` says, by name."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(" ".join(("stats", *arguments)).encode() + b"\r\n")
        text = b""
        while not text.endswith(b"END\r\n"):
            part = connection.recv(65536)
            if not part:
                raise OSError("the connection ended within stats")
            text += part
    lines = (line.split(" ", 2) for line in text.decode().splitlines() if line.startswith("STAT "))
    return {name: value for _, name, value in lines}


def receive(connection: socket.socket, count: int) -> bytes:
    """Exactly so many bytes."""
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise OSError(f"the connection ended after {len(data)} of {count} bytes")
        data += part
    return data


def is_served(connection: socket.socket) -> bool:
    connection.sendall(b"version\r\n")
    return receive(connection, len(VERSION)) == VERSION


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed; waits for nothing."""
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and connection.recv(1) == b""


def resident_bytes(node: Node) -> int:
    assert node.process is not None
    fields = pathlib.Path(f"/proc/{node.process.pid}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def processor_seconds(node: Node) -> float:
    assert node.process is not None
    tasks = pathlib.Path(f"/proc/{node.process.pid}/task").iterdir()
    return sum(int(task.joinpath("schedstat").read_text().split()[0]) for task in tasks) / 1e9


class ConnectionTest(ClusterTest):
    def one(self, *arguments: str) -> tuple[Cluster, Node]:
        cluster = self.cluster(1, start=False, seeds=False, arguments=arguments)
        cluster.start_all()
        cluster.wait_ready()
        return cluster, cluster.nodes[0]

    def connect(self, node: Node, *, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(20)
        connection.connect(node.client)
        self.addCleanup(connection.close)
        return connection

    def test_ten_thousand_idle_connections_cost_little_and_are_served(self) -> None:
        wanted = 10_000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < wanted + 200:
            self.skipTest(f"only {hard} descriptors are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 200), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        _, node = self.one("--max-connections", str(wanted + 100), "--workers", "2")
        warm = [self.connect(node) for _ in range(100)]
        for connection in warm:
            self.assertTrue(is_served(connection))
        before = resident_bytes(node)
        connections = []
        for _ in range(wanted - len(warm)):
            connections.append(self.connect(node))
            # Each has said something: what an idle connection keeps is what a used one left.
            connections[-1].sendall(b"version\r\n")
        for connection in connections:
            self.assertEqual(receive(connection, len(VERSION)), VERSION)
        each = (resident_bytes(node) - before) / len(connections)
        self.assertLess(each, 2048, "bytes of memory for each idle connection")
        self.assertEqual(int(stats(node.client)["curr_connections"]), wanted + 1)
        # An idle connection takes no processor time: what is used in a second is the node's own.
        began = time.monotonic()
        used = processor_seconds(node)
        for connection in warm:
            self.assertTrue(is_served(connection))
        self.assertLess((processor_seconds(node) - used) / (time.monotonic() - began + 1), 1.0)

    def test_a_client_that_never_reads_is_not_read_and_slows_nobody(self) -> None:
        _, node = self.one("--workers", "1")
        value = b"v" * 100_000
        other = self.connect(node)
        other.sendall(b"set big 0 0 100000\r\n" + value + b"\r\n")
        self.assertEqual(receive(other, 8), b"STORED\r\n")
        before = resident_bytes(node)
        silent = self.connect(node, receive_buffer=4096)
        silent.setblocking(False)
        # A gigabyte of answers is asked for; what is not read here stops the node from reading.
        request = b"get big\r\n" * 10_000
        sent = 0
        deadline = time.monotonic() + 5
        while sent < len(request) and time.monotonic() < deadline:
            _, writable, _ = select.select([], [silent], [], 0.5)
            if not writable:
                break
            sent += silent.send(request[sent:])
        for _ in range(200):
            began = time.monotonic()
            self.assertTrue(is_served(other))
            self.assertLess(time.monotonic() - began, 2.0)
        self.assertLess(resident_bytes(node) - before, 16 << 20)
        # It reads after all, and gets everything in order.
        silent.setblocking(True)
        silent.settimeout(20)
        answer = b"VALUE big 0 100000\r\n" + value + b"\r\nEND\r\n"
        for _ in range(20):
            self.assertEqual(receive(silent, len(answer)), answer)

    def test_a_deep_pipeline_leaves_others_their_share(self) -> None:
        _, node = self.one("--workers", "1")
        setter = self.connect(node)
        setter.sendall(b"set k 0 0 10\r\n0123456789\r\n")
        self.assertEqual(receive(setter, 8), b"STORED\r\n")
        greedy = self.connect(node)
        count = 200_000
        keys = b"get " + b" ".join([b"k"] * 20_000) + b"\r\n"
        answer = b"VALUE k 0 10\r\n0123456789\r\n"
        greedy.setblocking(False)
        polite = self.connect(node)
        request = b"get k\r\n" * (count // 4) + keys * 4
        expected = (answer + b"END\r\n") * (count // 4) + (answer * 20_000 + b"END\r\n") * 4
        sent, got, longest = 0, [], 0.0
        received = 0
        deadline = time.monotonic() + 60
        while received < len(expected):
            self.assertLess(time.monotonic(), deadline, "the pipeline never ends")
            readable, writable, _ = select.select([greedy], [greedy] if sent < len(request) else [], [], 1)
            if writable:
                sent += greedy.send(request[sent : sent + 262_144])
            if readable:
                got.append(greedy.recv(262_144))
                received += len(got[-1])
            began = time.monotonic()
            self.assertTrue(is_served(polite))
            longest = max(longest, time.monotonic() - began)
        self.assertEqual(b"".join(got), expected)
        self.assertLess(longest, 1.0)

    def test_half_a_request_waits_and_a_closed_side_is_answered_first(self) -> None:
        _, node = self.one("--workers", "1")
        slow = self.connect(node)
        for byte in b"set slow 0 0 3\r\nabc\r\nget slow\r\n":
            slow.sendall(bytes([byte]))
        answer = b"VALUE slow 0 3\r\nabc\r\nEND\r\n"
        self.assertEqual(receive(slow, 8 + len(answer)), b"STORED\r\n" + answer)
        # Who closes its side behind its requests still hears the answers, then the end.
        slow.sendall(b"get slow\r\n" * 1000)
        slow.shutdown(socket.SHUT_WR)
        self.assertEqual(receive(slow, 1000 * len(answer)), answer * 1000)
        self.assertEqual(slow.recv(1), b"")
        # Who goes away within a request is forgotten.
        gone = self.connect(node)
        gone.sendall(b"set gone 0 0 1000\r\nabc")
        gone.close()
        nodes.poll(
            "the connection to be forgotten",
            time.monotonic() + 10,
            lambda: int(stats(node.client)["curr_connections"]) == 1,
        )

    def test_silent_clients_are_disconnected_where_that_is_wanted(self) -> None:
        _, node = self.one("--idle-timeout", "2s")
        silent, busy = self.connect(node), self.connect(node)
        self.assertTrue(is_served(silent))
        deadline = time.monotonic() + 15

        def timed_out() -> bool:
            self.assertTrue(is_served(busy))
            return is_closed(silent)

        nodes.poll("the idle time-out", deadline, timed_out, interval=0.2)
        self.assertTrue(is_served(busy))
        figures = stats(node.client)
        self.assertGreaterEqual(int(figures["idle_kicks"]), 1)
        self.assertEqual(stats(node.client, "settings")["idle_timeout"], "2")

    def test_without_descriptors_accepting_pauses_and_goes_on(self) -> None:
        _, node = self.one("--workers", "1")
        assert node.process is not None
        pid = node.process.pid
        first = self.connect(node)
        self.assertTrue(is_served(first))
        used = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 2, hard))
        waiting = [self.connect(node) for _ in range(8)]
        for connection in waiting:
            connection.sendall(b"version\r\n")

        def paused() -> bool:
            self.assertTrue(is_served(first), "who is connected is served meanwhile")
            first.sendall(b"stats\r\n")
            text = b""
            while not text.endswith(b"END\r\n"):
                text += first.recv(65536)
            return b"STAT listen_disabled_num 0\r\n" not in text

        nodes.poll("accepting to pause", time.monotonic() + 10, paused)
        # It waits instead of spinning.
        began, before = time.monotonic(), processor_seconds(node)
        nodes.poll("a second", time.monotonic() + 5, lambda: time.monotonic() - began >= 1)
        self.assertLess((processor_seconds(node) - before) / (time.monotonic() - began), 0.5)
        self.assertIn("accepting no connections for a moment", node.log.read_text())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        for connection in waiting:
            self.assertEqual(receive(connection, len(VERSION)), VERSION)

    def test_connections_are_spread_evenly_also_after_some_have_gone(self) -> None:
        _, node = self.one("--workers", "2")
        connections = [self.connect(node) for _ in range(100)]
        for connection in connections:
            self.assertTrue(is_served(connection))
        # Every second one goes: dealt in turn, all of them were one worker's.
        for connection in connections[::2]:
            connection.close()
        nodes.poll(
            "the closed ones to be forgotten",
            time.monotonic() + 10,
            lambda: int(stats(node.client)["curr_connections"]) == 51,
        )
        connections = connections[1::2] + [self.connect(node) for _ in range(50)]
        for connection in connections:
            self.assertTrue(is_served(connection))
        shares = [int(value) for name, value in stats(node.client, "cluster").items() if name.endswith("_connections")]
        self.assertEqual(len(shares), 2)
        self.assertLessEqual(max(shares) - min(shares), 10, shares)
