"""Real nodes in network namespaces, on a network that is cut, split, lossy or slow, and with clocks that are wrong."""

from __future__ import annotations

import random
import re
import socket
import time

import support
from harness import load, nodes
from harness.checker import Checker
from harness.network import NetworkCluster
from support import ClusterTest, NetworkTest, reports

WAIT_SECONDS = 60.0
# The goal for the heal of any split.
HEAL_SECONDS = 35.0


class NetworkFaultTest(NetworkTest):
    def convicted(self, cluster: NetworkCluster, *names: str) -> set[str]:
        """Whom any of these nodes (all that run, without names) has ever called down."""
        return {
            event["member"]
            for node in cluster.nodes
            if node.running and (not names or node.name in names)
            for event in cluster.events(node.name)
            if event["type"] == "down"
        }

    def wait_down(self, cluster: NetworkCluster, gone: set[str], via: list[str]) -> float:
        """Until the nodes `via` call exactly these members down; the seconds that took."""
        began = time.monotonic()
        for name in via:
            nodes.poll(
                f"{', '.join(sorted(gone))} down at {name}",
                began + WAIT_SECONDS,
                lambda: {m["name"] for m in cluster.status(name)["members"] if m["liveness"] == "down"} == gone,
            )
        return time.monotonic() - began

    def watch(self, seconds: float, look) -> None:
        """Looks again and again for so long."""
        late = support.deadline(seconds)
        while not late():
            look()
            time.sleep(0.2)

    def tell(self, address: tuple[str, int], command: bytes, timeout: float = 10.0) -> bytes:
        """The first answer to a command of the text protocol, up to a line's end."""
        with socket.create_connection(address, timeout=timeout) as connection:
            connection.sendall(command)
            answer = b""
            while not answer.endswith(b"\r\n"):
                part = connection.recv(10_000)
                if not part:
                    break
                answer += part
            return answer

    def unix_time(self, cluster: NetworkCluster, name: str) -> int:
        """The wall clock of a node, as its own statistics tell it."""
        answer = self.tell(cluster.node(name).client, b"stats\r\n")
        return int(next(line.split()[2] for line in answer.splitlines() if line.startswith(b"STAT time ")))

    def test_a_split_heals_into_one_ring_and_what_was_deleted_stays_deleted(self) -> None:
        cluster = self.cluster(5, replicas=2)
        majority, minority = ["n1", "n2", "n3"], ["n4", "n5"]
        deleted = [f"deleted:{index}" for index in range(500)]
        replaced = [f"replaced:{index}" for index in range(500)]
        kept = [f"kept:{index}" for index in range(1_000)]
        keys = deleted + replaced + kept
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)

        cluster.network.split(majority, minority)
        took = self.wait_down(cluster, set(minority), majority)
        self.wait_down(cluster, set(majority), minority)
        reports.append(f"the others down at the majority {took:.1f} s after the split")
        session = self.session(cluster, *majority)
        for key in deleted:
            self.assertTrue(load.delete(checker, session, key))
        for key in replaced:
            self.assertTrue(load.write(checker, session, key, 200))
        for key in kept:
            load.read(checker, session, key)
        self.report(session.counts, checker, "through the majority")
        for name in minority:
            began = time.monotonic()
            answer = self.tell(cluster.node(name).client, b"set refused:%d 0 0 1\r\nx\r\n" % random.randrange(1000))
            self.assertTrue(answer.startswith(b"SERVER_ERROR"), answer)
            reports.append(f"{name} refused a write after {time.monotonic() - began:.2f} s: {answer.decode().strip()}")

        cluster.network.heal()
        took, _ = cluster.wait_agreed(timeout=HEAL_SECONDS)
        reports.append(f"one ring {took:.1f} s after the heal")
        # At once, while what each side has is still on its way to the other.
        first = load.sweep(checker, self.addresses(cluster), deleted + replaced)
        self.report(first, checker, "right after it, through all")
        began = time.monotonic()
        cluster.wait_settled()
        reports.append(f"all copies in place {time.monotonic() - began:.1f} s later")
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "at the end, through all")
        self.assertEqual(last.errors, 0)
        self.assert_true_to(checker, cluster)

    def test_a_cut_from_one_node_to_another_convicts_nobody_else(self) -> None:
        cluster = self.cluster(5)
        network = cluster.network
        network.cut("n1", "n2")
        self.watch(15, lambda: self.assertLessEqual(self.convicted(cluster), {"n1", "n2"}))
        self.assertGreater(network.counts("n1", "n2", "udp").cut, 0)
        # The others see both of them, so all know of each other by their word.
        cluster.wait_agreed(timeout=HEAL_SECONDS)
        reports.append(f"called down while the cut held: {', '.join(sorted(self.convicted(cluster))) or 'nobody'}")
        network.heal()
        took, _ = cluster.wait_agreed(timeout=HEAL_SECONDS)
        reports.append(f"one ring {took:.1f} s after the heal")
        cluster.wait_settled()
        self.assertLessEqual(self.convicted(cluster), {"n1", "n2"})

    def test_loss_of_a_fifth_both_ways_convicts_no_healthy_node(self) -> None:
        """What the nodes hold travels over TCP, which hardly gets on under such a loss: of that, only that it recovers."""
        cluster = self.cluster(5, start=False)
        names = cluster.network.names
        cluster.network.set(names, names, loss=0.2)
        cluster.start_all()
        took, ring = cluster.wait_agreed(joining=True)
        reports.append(f"one ring {took:.1f} s after the last start")
        self.watch(15, lambda: self.assertEqual(self.convicted(cluster), set()))
        events = [event["type"] for name in names for event in cluster.events(name)]
        reports.append(f"in 15 s: {events.count('suspected')} suspicions, {events.count('refuted')} refuted")
        cluster.kill("n5")
        reports.append(f"a killed node down after {self.wait_down(cluster, {'n5'}, names[:4]):.1f} s")
        cluster.start("n5")
        took, again = cluster.wait_agreed(joining=True)
        reports.append(f"in every ring {took:.1f} s after its restart")
        self.assertEqual(again, ring)
        self.assertEqual(self.convicted(cluster), {"n5"})
        counts = cluster.network.total("udp")
        self.assertAlmostEqual(counts.lost / (counts.lost + counts.sent), 0.2, delta=0.05)
        self.watch(10, lambda: self.assertEqual(self.convicted(cluster), {"n5"}))
        # Leases ended, claims crossed and copies were lost meanwhile; nothing of that may be left.
        cluster.network.heal()
        started = time.monotonic()
        cluster.wait_settled()
        reports.append(f"every slice held and copied {time.monotonic() - started:.1f} s after the heal")
        self.assertEqual(self.convicted(cluster), {"n5"})

    def test_packets_late_doubled_and_out_of_order_lose_nothing(self) -> None:
        cluster = self.cluster(4)
        names = cluster.network.names
        keys = [f"slow:{index}" for index in range(2_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        cluster.network.set(names, names, delay=0.005, jitter=0.01, duplicate=0.1, reorder=0.1)
        with load.Load(self.addresses(cluster), keys, checker, seed=support.seed) as running:
            running.progress(1_000)
            cluster.kill("n3")
            running.progress(2_000)
            cluster.start("n3")
            cluster.wait_ready(["n3"])
            running.progress(1_000)
        self.report(running.counts, checker, "load")
        cluster.network.heal()
        cluster.wait_settled()
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.assertEqual(running.broken, [])
        self.assertEqual(last.errors, 0)
        self.assert_true_to(checker, cluster)
        self.assertLessEqual(self.convicted(cluster), {"n3"})

    def test_a_paused_and_a_killed_node_leave_and_come_back_and_nobody_else_does(self) -> None:
        cluster = self.cluster(5)
        names = cluster.network.names
        cluster.network.set(names, names, delay=0.002, jitter=0.003)
        cluster.pause("n4")
        others = ["n1", "n2", "n3", "n5"]
        reports.append(f"a paused node down after {self.wait_down(cluster, {'n4'}, others):.1f} s")
        cluster.resume("n4")
        reports.append(f"up again everywhere {cluster.wait_agreed()[0]:.1f} s after SIGCONT")
        self.assertEqual(self.convicted(cluster, "n4"), set())
        cluster.kill("n5")
        reports.append(f"a killed node down after {self.wait_down(cluster, {'n5'}, names[:4]):.1f} s")
        cluster.start("n5")
        reports.append(f"up again everywhere {cluster.wait_agreed()[0]:.1f} s after its restart")
        self.assertEqual(self.convicted(cluster), {"n4", "n5"})
        cluster.wait_settled()

    def test_all_nodes_killed_and_started_again_make_the_same_ring(self) -> None:
        cluster = self.cluster(8, start=False)
        cluster.start_all()
        took, ring = cluster.wait_agreed()
        reports.append(f"one ring {took:.1f} s after the last start")
        before = {member["name"]: member["id"] for member in cluster.status("n1")["members"]}
        for name in before:
            cluster.kill(name)
        cluster.start_all()
        took, again = cluster.wait_agreed()
        reports.append(f"one ring {took:.1f} s after the last restart")
        self.assertEqual(again, ring)
        self.assertEqual({member["name"]: member["id"] for member in cluster.status("n8")["members"]}, before)
        self.assertEqual(self.convicted(cluster), set())
        cluster.wait_settled()

    def test_a_clock_an_hour_off_convicts_nobody_and_undoes_no_delete(self) -> None:
        cluster = self.cluster(3, own_clocks=True)
        keys = [f"clock:{index}" for index in range(900)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        session = self.session(cluster)
        chance = random.Random(support.seed)

        def change(part: list[str]) -> None:
            """Deletes half of the keys and replaces the others, through all nodes in turn, and reads all."""
            for key in part:
                if chance.random() < 0.5:
                    done = load.delete(checker, session, key)
                else:
                    done = load.write(checker, session, key, 200)
                self.assertTrue(done, session.trouble)
            last = load.sweep(checker, self.addresses(cluster), keys)
            self.assertEqual(last.errors, 0)
            self.assert_true_to(checker, cluster)

        for hours in (1, -1, 0):
            cluster.clocks["n2"].offset = 3600 * hours
            nodes.poll(
                "the clock of n2",
                time.monotonic() + WAIT_SECONDS,
                lambda: abs(self.unix_time(cluster, "n2") - self.unix_time(cluster, "n1") - 3600 * hours) < 60,
            )
            change(keys)
        self.assertEqual(self.convicted(cluster), set())
        self.assertEqual(cluster.status("n1")["ring"]["hash"], cluster.status("n2")["ring"]["hash"])

        before = cluster.member("n2", "n1")
        cluster.kill("n2")
        cluster.clocks["n2"].offset = -3600
        cluster.start("n2")
        cluster.wait_ready(["n2"])
        cluster.wait_settled()
        after = cluster.member("n2", "n1")
        self.assertEqual((after["id"], after["generation"]), (before["id"], before["generation"] + 1))
        change(keys)
        self.report(session.counts, checker, "changes under clocks an hour off")

    def test_a_cluster_of_IPv6_alone(self) -> None:
        cluster = self.cluster(3, version=6)
        for member in cluster.status("n1")["members"]:
            for kind in ("client", "cluster", "admin"):
                self.assertRegex(member[kind], r"^\[fd7[78]::[1-3]\]:1121[1-3]$")
        self.assertEqual(cluster.run("status", via="n2").returncode, 0)
        keys = [f"six:{index}" for index in range(300)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        cluster.kill("n3")
        self.wait_down(cluster, {"n3"}, ["n1", "n2"])
        cluster.start("n3")
        cluster.wait_ready(["n3"])
        cluster.wait_settled()
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "with n3 back")
        self.assertEqual((last.missed, last.errors), (0, 0))

    def test_names_of_seeds_are_looked_up_again_while_a_node_waits_alone(self) -> None:
        cluster = self.cluster(5, start=False)
        old, late = ["n1", "n2", "n3"], ["n4", "n5"]
        for name in old:
            cluster.node(name).seeds = ",".join(cluster.node(other).cluster[0] for other in old)
            cluster.start(name)
        cluster.wait_ready(old)
        # One name leads to an address where nobody is, the other nowhere.
        for name in late:
            cluster.node(name).seeds = "henge.test"
        cluster.hosts("n4", {"henge.test": "10.77.0.77"})
        for name in late:
            cluster.start(name)
        for name, why in (("n4", "no answer from henge.test"), ("n5", "no address for henge.test")):
            nodes.poll(
                f"{name} says why it waits",
                time.monotonic() + WAIT_SECONDS,
                lambda: why in nodes.http_get(cluster.node(name).admin, "/readyz?verbose")[1],
            )
        self.watch(3, lambda: self.assertEqual(len(cluster.status("n1")["members"]), 3))
        for name in late:
            cluster.hosts(name, {"henge.test": cluster.node("n2").cluster[0]})
        took, _ = cluster.wait_agreed()
        reports.append(f"both found the cluster {took:.1f} s after their names led to it")


class TwoClustersTest(ClusterTest):
    def test_clusters_of_different_names_meet_at_an_address_and_do_not_merge(self) -> None:
        red = self.cluster(2, arguments=("--cluster-name", "red"))
        blue = self.cluster(3, start=False, arguments=("--cluster-name", "blue"))
        # n1 and n2 of blue have an address of red among their own, n3 has nothing else.
        foreign = red.node("n1").cluster_address
        own = [blue.node(name).cluster_address for name in ("n1", "n2")]
        for name in ("n1", "n2"):
            blue.node(name).seeds = ",".join([*own, foreign])
        blue.node("n3").seeds = foreign
        blue.start_all()
        blue.wait_ready(["n1", "n2"])

        def refused() -> bool:
            code, said = nodes.http_get(blue.node("n3").admin, "/readyz?verbose")
            return code == 503 and f"{foreign} belongs to the cluster red" in said

        nodes.poll("n3 waits and says why", time.monotonic() + WAIT_SECONDS, refused)
        reports.append(nodes.http_get(blue.node("n3").admin, "/readyz?verbose")[1].splitlines()[1])
        # Members call seeds that are not among them every five seconds.
        late = support.deadline(8)
        while not late():
            for cluster in (red, blue):
                for name in ("n1", "n2"):
                    self.assertEqual([member["name"] for member in cluster.status(name)["members"]], ["n1", "n2"])
            time.sleep(0.2)
        self.assertEqual((red.status("n1")["cluster"], blue.status("n1")["cluster"]), ("red", "blue"))
        met = ((blue, "n1", "red"), (blue, "n2", "red"), (blue, "n3", "red"), (red, "n1", "blue"))
        for cluster, name, other in met:
            lines = [
                line
                for line in cluster.node(name).log.read_text().splitlines()
                if "a node of another cluster called" in line
            ]
            # A line for each address, however often it calls.
            self.assertTrue(lines and all(f"cluster-name={other}" in line for line in lines), lines)
            endpoints = [re.search(r"endpoint=(\S+)", line)[1] for line in lines]
            self.assertEqual(len(endpoints), len(set(endpoints)), lines)
        self.assertNotIn("another cluster", red.node("n2").log.read_text())
