"""Gossip over TCP, where the network drops UDP: for all, for one node, for a while."""

from __future__ import annotations

import pathlib
import tempfile
import time

import support
from harness import nodes
from harness.network import NetworkCluster
from support import ClusterTest, NetworkTest, reports

WAIT_SECONDS = 30.0


def liveness(cluster: nodes.Cluster, name: str, via: str) -> str:
    return next(member["liveness"] for member in cluster.status(via)["members"] if member["name"] == name)


class StreamsTest(NetworkTest):
    def types(self, cluster: NetworkCluster, name: str) -> list[str]:
        return [event["type"] for event in cluster.events(name)]

    def test_a_node_whose_udp_is_closed_stays_a_member_and_hears_the_news(self) -> None:
        cluster = self.cluster(5)
        others = ["n1", "n2", "n4", "n5"]
        for name in cluster.network.names:
            self.assertNotIn("udp-blocked", self.types(cluster, name))
        cluster.network.set(["n3"], others, ["udp"], cut=True)
        cluster.network.set(others, ["n3"], ["udp"], cut=True)
        began = time.monotonic()
        nodes.poll(
            "n3 and another say that UDP is blocked",
            began + 60,
            lambda: "udp-blocked" in self.types(cluster, "n3")
            and any("udp-blocked" in self.types(cluster, name) for name in others),
        )
        reports.append(f"named {time.monotonic() - began:.1f} s after the cut")
        self.assertIn("UDP does not pass, only TCP", cluster.node("n3").log.read_text())
        # News both ways: a member goes and comes back.
        cluster.kill("n5")
        began = time.monotonic()
        for name in ("n1", "n2", "n3", "n4"):
            nodes.poll(
                f"n5 down at {name}", began + WAIT_SECONDS, lambda: liveness(cluster, "n5", name) == "down"
            )
        reports.append(f"a killed node down everywhere after {time.monotonic() - began:.1f} s")
        cluster.start("n5")
        took, _ = cluster.wait_agreed(timeout=WAIT_SECONDS)
        reports.append(f"in every ring {took:.1f} s after its restart")
        cluster.wait_settled()
        for name in ("n1", "n2", "n3", "n4"):
            for event in cluster.events(name):
                self.assertFalse(event["type"] == "down" and event["member"] != "n5", event)
        self.assertGreater(cluster.network.counts("n3", "n1", "udp").cut, 0)
        cluster.network.heal()
        nodes.poll(
            "UDP passes again", time.monotonic() + 60, lambda: self.types(cluster, "n3").count("udp-passes") >= 1
        )

    def test_a_node_whose_udp_is_closed_joins(self) -> None:
        cluster = self.cluster(4, start=False)
        others = ["n1", "n2", "n3"]
        for name in others:
            cluster.start(name)
        cluster.wait_ready(others)
        cluster.network.set(["n4"], others, ["udp"], cut=True)
        cluster.network.set(others, ["n4"], ["udp"], cut=True)
        began = time.monotonic()
        cluster.start("n4")
        cluster.wait_ready(["n4"])
        reports.append(f"ready {time.monotonic() - began:.1f} s after its start")
        cluster.wait_settled()
        late = support.deadline(10)
        while not late():
            self.assertEqual(liveness(cluster, "n4", "n1"), "alive")
            time.sleep(0.2)


class TCPAloneTest(ClusterTest):
    def test_a_cluster_that_gossips_over_tcp_alone(self) -> None:
        directory = self.enterContext(tempfile.TemporaryDirectory(prefix="henge-key-"))
        for sealed in (False, True):
            arguments = ("--gossip", "tcp")
            if sealed:
                arguments += ("--cluster-key-file", str(nodes.generate_key(support.henge, pathlib.Path(directory, f"{sealed}.key"))))
            cluster = self.cluster(4, arguments=arguments)
            for node in cluster.nodes:
                self.assertNotIn(":%04X " % node.cluster[1], pathlib.Path("/proc/net/udp").read_text())
            cluster.kill("n4")
            nodes.poll(
                "n4 down everywhere",
                time.monotonic() + 15,
                lambda: all(
                    liveness(cluster, "n4", name) == "down" for name in ("n1", "n2", "n3")
                ),
            )
            cluster.start("n4")
            cluster.wait_ready()
            cluster.wait_settled()
            if sealed:
                done = cluster.run("keyring", "rotate", via="n3")
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            cluster.close()
