"""What the integration tests share: a cluster that ends with its test, a seed, and a report of counts."""

from __future__ import annotations

import subprocess
import time
import unittest
from typing import Callable

from harness import load
from harness.checker import Checker
from harness.network import NamespacesRefused, Network, NetworkCluster
from harness.nodes import Cluster

henge = ""
seed = 0
# Lines about the running test, printed under its name.
reports: list[str] = []

BOTH = ("pymemcache", "pylibmc")


def deadline(seconds: float) -> Callable[[], bool]:
    """A question that is answered with yes once the seconds have passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


class ClusterTest(unittest.TestCase):
    def cluster(self, count: int = 3, *, start: bool = True, **options) -> Cluster:
        """A cluster that ends with the test; started, ready and settled unless `start` is false."""
        cluster = self.make(count, **options)
        self.addCleanup(cluster.close)
        if start:
            cluster.start_all()
            cluster.wait_ready()
            cluster.wait_settled()
        return cluster

    def make(self, count: int, **options) -> Cluster:
        return Cluster(henge, count, **options)

    def addresses(self, cluster: Cluster, *names: str) -> dict[str, tuple[str, int]]:
        return {node.name: node.client for node in cluster.nodes if not names or node.name in names}

    def session(self, cluster: Cluster, *names: str, library: str = "pymemcache") -> load.Session:
        session = load.Session(self.addresses(cluster, *names), library)
        self.addCleanup(session.close)
        return session

    def report(self, counts: load.Counts, checker: Checker | None = None, title: str = "") -> None:
        reports.append(f"{title + ': ' if title else ''}{counts.line(checker)}")

    def assert_true_to(self, checker: Checker, cluster: Cluster) -> None:
        """Nothing stale, nothing lost, nothing foreign; the message has the first findings and the ends of the logs."""
        if checker.stale or checker.lost or checker.foreign:
            found = "\n".join(f"{item.verdict.value} {item.key} {item.text}" for item in checker.findings[:8])
            logs = "".join(cluster.log_tail(node.name) for node in cluster.nodes)
            self.fail(
                f"stale {checker.stale}, lost {checker.lost}, foreign {checker.foreign}; seed {seed}\n{found}\n{logs}"
            )

    def serve(self, *arguments: str, timeout: float = 15.0) -> subprocess.CompletedProcess[str]:
        """`henge serve` that is expected to end by itself."""
        return subprocess.run(
            [henge, "serve", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def assert_one_line_and_2(self, done: subprocess.CompletedProcess[str], *words: str) -> None:
        """Exit 2, and one line that holds the words."""
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        self.assertEqual(done.returncode, 2, lines)
        self.assertEqual(len(lines), 1, lines)
        for word in words:
            self.assertIn(word, lines[0])


class NetworkTest(ClusterTest):
    """Nodes in network namespaces; skipped, and says so, where the kernel refuses those."""

    def make(self, count: int, **options) -> NetworkCluster:
        try:
            return NetworkCluster(henge, count, network_seed=seed, **options)
        except NamespacesRefused as refused:
            self.skipTest(str(refused))

    def network(self, count: int, **options) -> Network:
        """A network without nodes, which ends with the test."""
        try:
            network = Network([f"n{index + 1}" for index in range(count)], seed=seed, **options)
        except NamespacesRefused as refused:
            self.skipTest(str(refused))
        self.addCleanup(network.close)
        return network
