"""`henge doctor`: what it says of a network that is well, of one that is closed here and there, of clocks and settings."""

from __future__ import annotations

import json
import pathlib
import re
import tempfile
import time

import support
from harness import nodes
from support import ClusterTest, NetworkTest, reports

WAIT_SECONDS = 30.0
WELL, FOUND, UNREACHABLE = 0, 3, 5


def doctor(cluster: nodes.Cluster, via: str) -> tuple[int, dict]:
    """The exit code, and the report, whose findings are by member."""
    done = cluster.run("doctor", "-o", "json", via=via)
    if done.returncode not in (WELL, FOUND):
        raise ValueError(f"henge doctor at {via} ended with {done.returncode}: {done.stderr}")
    report = json.loads(done.stdout)
    report["members"] = {member["name"]: member for member in report["members"]}
    return done.returncode, report


def wait_found(cluster: nodes.Cluster, wanted: str) -> None:
    """Until the doctor says that n1 has no cluster, and these words."""

    def look() -> str | None:
        texts = [finding["text"] for finding in doctor(cluster, "n1")[1]["findings"]]
        if not any("n1 has no cluster" in text for text in texts):
            raise ValueError(f"the doctor found {texts}")
        return next((text for text in texts if wanted in text), None)

    reports.append(nodes.poll(f"the doctor says '{wanted}'", time.monotonic() + WAIT_SECONDS, look))


def found(report: dict) -> list[tuple[str, str | None]]:
    return [(finding["check"], finding.get("member")) for finding in report["findings"]]


class DoctorTest(NetworkTest):
    def assert_found(self, cluster: nodes.Cluster, via: str, *wanted: tuple[str, str]) -> dict:
        code, report = doctor(cluster, via)
        self.assertEqual(found(report), list(wanted), report)
        self.assertEqual(code, FOUND if wanted else WELL)
        reports.extend(f"{via}: {finding['check']}: {finding['text']}" for finding in report["findings"])
        return report

    def wait_well(self, cluster: nodes.Cluster) -> None:
        for node in cluster.nodes:
            nodes.poll(
                f"all is well at {node.name}",
                time.monotonic() + WAIT_SECONDS,
                lambda: doctor(cluster, node.name)[0] == WELL,
            )

    def test_the_doctor_tells_which_way_of_udp_is_closed(self) -> None:
        cluster = self.cluster(3)
        for name in ("n1", "n2", "n3"):
            self.assert_found(cluster, name)
        shown = cluster.run("doctor", via="n1")
        self.assertEqual(shown.returncode, WELL)
        self.assertIn("all is well", shown.stdout)

        cluster.network.cut("n1", "n3", "udp")
        report = self.assert_found(cluster, "n1", ("udp", "n3"))
        self.assertEqual([report["members"]["n3"][way] for way in ("udpOut", "udpBack")], ["fails", "passes"])
        self.assertEqual([report["members"]["n3"][way] for way in ("tcpOut", "tcpBack")], ["passes", "passes"])
        here, there = (cluster.node(name).cluster for name in ("n1", "n3"))
        self.assertIn(f"open UDP from {here[0]} to {nodes.text_of(there)}", report["findings"][0]["text"])
        report = self.assert_found(cluster, "n3", ("udp", "n1"))
        self.assertEqual([report["members"]["n1"][way] for way in ("udpOut", "udpBack")], ["passes", "fails"])
        self.assert_found(cluster, "n2")

        cluster.network.cut("n3", "n1", "udp")
        for name, other in (("n1", "n3"), ("n3", "n1")):
            report = self.assert_found(cluster, name, ("udp", other))
            self.assertEqual([report["members"][other][way] for way in ("udpOut", "udpBack")], ["fails", "fails"])
            self.assertIn("UDP does not pass either way, TCP does", report["findings"][0]["text"])
            self.assertIn("--gossip tcp", report["findings"][0]["text"])
        metric = re.compile(r"^henge_gossip_streamed_addresses 1$", re.MULTILINE)
        nodes.poll(
            "n1 counts an address that UDP does not reach",
            time.monotonic() + 60,
            lambda: metric.search(nodes.http_get(cluster.node("n1").admin, "/metrics")[1]),
        )
        cluster.network.heal()
        self.wait_well(cluster)

    def test_the_doctor_tells_that_tcp_is_closed_and_who_is_down(self) -> None:
        cluster = self.cluster(3)
        for source, destination in (("n1", "n3"), ("n3", "n1")):
            cluster.network.cut(source, destination, "tcp")
        report = self.assert_found(cluster, "n1", ("tcp", "n3"))
        # Packets there are answered, so both ways of UDP are seen without TCP.
        self.assertEqual([report["members"]["n3"][way] for way in ("udpOut", "udpBack")], ["passes", "passes"])
        self.assertEqual(report["members"]["n3"]["tcpOut"], "fails")
        cluster.network.heal()
        self.wait_well(cluster)
        cluster.kill("n3")
        self.assert_found(cluster, "n1", ("liveness", "n3"))
        gone = cluster.run("doctor", via="n3")
        self.assertEqual(gone.returncode, UNREACHABLE, gone.stderr)

    def test_the_doctor_tells_a_clock_that_is_off_and_settings_that_differ(self) -> None:
        cluster = self.cluster(3, own_clocks=True)
        self.assert_found(cluster, "n1")
        for hours, words in ((1, "ahead of"), (-1, "behind")):
            cluster.clocks["n2"].offset = 3600 * hours
            report = self.assert_found(cluster, "n1", ("clock", "n2"))
            self.assertAlmostEqual(report["members"]["n2"]["clock"], 3_600_000 * hours, delta=500)
            self.assertIn(f"{words} n1's", report["findings"][0]["text"])
            self.assert_found(cluster, "n2", ("clock", "n1"), ("clock", "n3"))
        cluster.clocks["n2"].offset = 0
        self.wait_well(cluster)

        # Nodes whose replicas or policy differ refuse each other; others of the settings show here alone.
        self.assertEqual(cluster.stop("n3"), 0)
        cluster.node("n3").arguments = ("--fill-delay", "60s")
        cluster.start("n3")
        cluster.wait_ready()
        cluster.wait_settled()
        report = self.assert_found(cluster, "n1", ("settings", "n3"))
        self.assertIn("here fill-delay=30s, there fill-delay=60s", report["findings"][0]["text"])
        self.assert_found(cluster, "n3", ("settings", "n1"), ("settings", "n2"))

    def test_the_doctor_of_a_node_that_waits_tells_a_seed_without_an_address_and_one_that_is_silent(self) -> None:
        cluster = self.cluster(2, start=False)
        cluster.node("n1").seeds = f"henge.test,{cluster.node('n2').cluster_address}"
        cluster.start("n1")
        wait_found(cluster, "seed henge.test:11212 has no address: correct the name service")
        wait_found(cluster, f"seed {cluster.node('n2').cluster_address} does not answer")
        self.assertEqual(cluster.run("doctor", via="n1").returncode, FOUND)


class DoctorOnLoopbackTest(ClusterTest):
    def test_the_doctor_misses_no_udp_where_gossip_goes_over_tcp_alone(self) -> None:
        cluster = self.cluster(2, arguments=("--gossip", "tcp"))
        code, report = doctor(cluster, "n1")
        self.assertEqual((code, report["findings"]), (WELL, []))
        self.assertEqual([report["members"]["n2"][way] for way in ("udpOut", "tcpOut")], ["unused", "passes"])
        self.assertIn("gossip=tcp", report["settings"])
        lines = cluster.run("doctor", via="n2").stdout.splitlines()
        self.assertRegex(lines[2], r"^n1 +\S+ +alive +unused +ok +[+-]\d+ ms +equal$")

    def test_the_doctor_of_a_node_that_waits_tells_which_seeds_are_amiss(self) -> None:
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="henge-key-")))
        keys = [str(nodes.generate_key(support.henge, directory / f"{name}.key")) for name in ("one", "two")]
        red = self.cluster(1, arguments=("--cluster-name", "red", "--cluster-key-file", keys[0]))
        plain = self.cluster(1, arguments=("--cluster-name", "plain"))
        self.assertEqual(doctor(red, "n1")[0], WELL)

        def waiting(seeds: str, *arguments: str) -> nodes.Cluster:
            cluster = self.cluster(1, start=False, arguments=arguments)
            cluster.node("n1").seeds = seeds
            cluster.start("n1")
            return cluster

        blue = waiting(plain.node("n1").cluster_address, "--cluster-name", "blue")
        wait_found(blue, "belongs to the cluster plain, not to this one")
        stranger = waiting(red.node("n1").cluster_address, "--cluster-name", "red", "--cluster-key-file", keys[1])
        wait_found(stranger, f"seed {red.node('n1').cluster_address} does not answer")
