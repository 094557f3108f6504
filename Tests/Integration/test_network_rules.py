"""The network that the tests in namespaces stand on: what its rules do, one way and one protocol at a time."""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys
import time
from typing import Iterator

import support
from harness import nodes, proxy
from harness.network import Network
from harness.state import start_time
from support import NetworkTest, reports

PORT = 9
WAIT_SECONDS = 10.0
MANY = 2_000
# Of `MANY` packets, a share by chance is off by more than this once in some ten million runs.
TOLERANCE = 0.06


@contextlib.contextmanager
def place_of(network: Network, name: str) -> Iterator[None]:
    """Sockets made within are the node's."""
    network.enter(name)
    try:
        yield
    finally:
        network.leave()


class Datagrams:
    """A UDP socket at every node's place."""

    def __init__(self, test: NetworkTest, network: Network, version: int = 4):
        self.network, self.version = network, version
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self.sockets: dict[str, socket.socket] = {}
        for name in network.names:
            with place_of(network, name):
                made = socket.socket(family, socket.SOCK_DGRAM)
            test.addCleanup(made.close)
            made.bind((self.address(name), PORT))
            made.setblocking(False)
            self.sockets[name] = made

    def address(self, name: str) -> str:
        return proxy.mesh_address(self.network.names.index(name), self.version)

    def exchange(self, source: str, destination: str, count: int) -> tuple[list[int], proxy.Counts]:
        """Sends numbered datagrams; the numbers that arrived, in their order, and what the network counted."""
        before = self.network.counts(source, destination, "udp")
        arrived: list[int] = []

        def since() -> proxy.Counts:
            now = self.network.counts(source, destination, "udp")
            return proxy.Counts(*(a - b for a, b in zip(vars(now).values(), vars(before).values())))

        def receive() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    arrived.append(int.from_bytes(self.sockets[destination].recv(100), "big"))

        for number in range(count):
            self.sockets[source].sendto(number.to_bytes(4, "big"), (self.address(destination), PORT))
            if number % 50 == 49:
                # No more at a time than the queues take.
                done = number + 1
                nodes.poll("the datagrams", time.monotonic() + WAIT_SECONDS, lambda: seen(since()) == done, 0.001)
                receive()

        def complete() -> bool:
            receive()
            counts = since()
            return seen(counts) == count and len(arrived) == counts.sent

        nodes.poll(f"{count} datagrams at {destination}", time.monotonic() + WAIT_SECONDS, complete, 0.005)
        return arrived, since()


def seen(counts: proxy.Counts) -> int:
    """How many packets came from the sender."""
    return counts.sent - counts.duplicated + counts.cut + counts.lost


class NetworkRulesTest(NetworkTest):
    def connects(self, network: Network, source: str, destination: str) -> bool:
        """Whether a TCP connection comes about within half a second."""
        address = (proxy.mesh_address(network.names.index(destination), 4), PORT)
        with place_of(network, destination):
            listener = socket.create_server(address)
        with listener, place_of(network, source):
            try:
                socket.create_connection(address, timeout=0.5).close()
            except TimeoutError:
                return False
        return True

    def test_packets_pass_whole_in_order_and_once_over_IPv4_and_IPv6(self) -> None:
        network = self.network(2, versions=(4, 6))
        for version in (4, 6):
            arrived, _ = Datagrams(self, network, version).exchange("n1", "n2", MANY)
            self.assertEqual(arrived, list(range(MANY)))
        self.assertTrue(self.connects(network, "n1", "n2"))

    def test_a_cut_holds_one_way_and_for_one_protocol_until_it_is_healed(self) -> None:
        network = self.network(3)
        datagrams = Datagrams(self, network)
        network.cut("n1", "n2")
        for source, destination, passed in (("n1", "n2", 0), ("n2", "n1", 10), ("n1", "n3", 10), ("n3", "n2", 10)):
            arrived, counts = datagrams.exchange(source, destination, 10)
            self.assertEqual((len(arrived), counts.cut), (passed, 10 - passed), f"{source} to {destination}")
        # A connection needs both ways.
        self.assertFalse(self.connects(network, "n1", "n2"))
        self.assertFalse(self.connects(network, "n2", "n1"))
        self.assertTrue(self.connects(network, "n2", "n3"))
        network.heal()
        self.assertEqual(len(datagrams.exchange("n1", "n2", 10)[0]), 10)
        network.cut("n1", "n2", "udp")
        self.assertEqual(datagrams.exchange("n1", "n2", 10)[0], [])
        self.assertTrue(self.connects(network, "n1", "n2"))
        network.cut("n1", "n2", "tcp")
        network.set(["n1"], ["n2"], ["udp"])
        self.assertEqual(len(datagrams.exchange("n1", "n2", 10)[0]), 10)
        self.assertFalse(self.connects(network, "n1", "n2"))
        network.heal()
        network.split(["n1", "n2"], ["n3"])
        for source, destination, passed in (("n1", "n2", 10), ("n2", "n1", 10), ("n1", "n3", 0), ("n3", "n2", 0)):
            self.assertEqual(len(datagrams.exchange(source, destination, 10)[0]), passed, f"{source} to {destination}")

    def test_packets_are_lost_doubled_and_overtaken_at_the_rates_of_the_rule(self) -> None:
        network = self.network(2)
        datagrams = Datagrams(self, network)
        network.set(["n1"], ["n2"], ["udp"], loss=0.2)
        arrived, counts = datagrams.exchange("n1", "n2", MANY)
        self.assertAlmostEqual(counts.lost / MANY, 0.2, delta=TOLERANCE)
        self.assertEqual(len(arrived), MANY - counts.lost)
        self.assertEqual(len(datagrams.exchange("n2", "n1", MANY)[0]), MANY)
        reports.append(f"lost {counts.lost / MANY:.1%} of 20 %")

        network.set(["n1"], ["n2"], ["udp"], duplicate=0.3)
        arrived, counts = datagrams.exchange("n1", "n2", MANY)
        self.assertAlmostEqual(counts.duplicated / MANY, 0.3, delta=TOLERANCE)
        self.assertEqual((len(arrived), set(arrived)), (MANY + counts.duplicated, set(range(MANY))))
        reports.append(f"doubled {counts.duplicated / MANY:.1%} of 30 %")

        network.set(["n1"], ["n2"], ["udp"], reorder=0.1)
        arrived, counts = datagrams.exchange("n1", "n2", MANY)
        self.assertEqual(sorted(arrived), list(range(MANY)))
        self.assertAlmostEqual(counts.held / MANY, 0.1, delta=TOLERANCE)
        overtaken = sum(later < earlier for earlier, later in zip(arrived, arrived[1:]))
        self.assertGreater(overtaken, 0)
        reports.append(f"held back {counts.held / MANY:.1%} of 10 %, {overtaken} places out of order")

    def test_a_delay_holds_every_packet_that_long_and_one_way(self) -> None:
        network = self.network(2)
        datagrams = Datagrams(self, network)
        network.set(["n1"], ["n2"], delay=0.2)
        began = time.monotonic()
        arrived, counts = datagrams.exchange("n1", "n2", 20)
        took = time.monotonic() - began
        self.assertEqual((arrived, counts.held), (list(range(20)), 20))
        self.assertGreaterEqual(took, 0.2)
        arrived, counts = datagrams.exchange("n2", "n1", 20)
        self.assertEqual((arrived, counts.held), (list(range(20)), 0))
        reports.append(f"0.200 s took {took:.3f} s")

    def test_nothing_is_left_of_a_network_whose_maker_was_killed(self) -> None:
        self.network(1).close()
        script = (
            "import sys, time; sys.path.insert(0, sys.argv[1]); from harness.network import NetworkCluster\n"
            "cluster = NetworkCluster(sys.argv[2], 2); cluster.start_all()\n"
            "print(cluster.directory, cluster.network.process_id, *(node.process.pid for node in cluster.nodes))\n"
            "sys.stdout.flush()\n"
            "time.sleep(600)"
        )
        cluster = str(pathlib.Path(proxy.__file__).resolve().parents[1])
        maker = subprocess.Popen(
            [sys.executable, "-c", script, cluster, support.henge], stdout=subprocess.PIPE, text=True
        )
        try:
            directory, *numbers = maker.stdout.readline().split()
        finally:
            maker.kill()
            maker.wait()
            maker.stdout.close()
        self.addCleanup(subprocess.run, ["rm", "-r", directory])
        processes = [int(number) for number in numbers]
        nodes.poll(
            "the end of the proxy and of both nodes",
            time.monotonic() + WAIT_SECONDS,
            lambda: not any(map(start_time, processes)),
        )
