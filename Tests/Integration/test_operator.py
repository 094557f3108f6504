"""What an operator says about nodes that are gone for good."""

from __future__ import annotations

import json
import signal
import time

import support
from harness import load, nodes
from harness.checker import Checker
from support import ClusterTest

WAIT_SECONDS = 30.0


class OperatorTest(ClusterTest):
    def member(self, cluster: nodes.Cluster, name: str, via: str) -> dict:
        return next(member for member in cluster.status(via)["members"] if member["name"] == name)

    def wait_down(self, cluster: nodes.Cluster, name: str, via: str) -> None:
        nodes.poll(
            f"{name} down",
            time.monotonic() + WAIT_SECONDS,
            lambda: self.member(cluster, name, via)["liveness"] == "down",
        )

    def events(self, cluster: nodes.Cluster, via: str) -> list[dict]:
        done = cluster.run("events", "-o", "json", via=via)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads(done.stdout)
        self.assertEqual((found["node"], found["dropped"]), (via, 0))
        self.assertEqual([event["number"] for event in found["events"]], list(range(1, len(found["events"]) + 1)))
        return found["events"]

    def assert_story(self, cluster: nodes.Cluster, via: str, name: str, types: list[str]) -> None:
        """What a node tells of a member last, as the command prints it and as the metric counts it."""
        events = self.events(cluster, via)
        self.assertEqual([event["type"] for event in events if event.get("member") == name][-len(types) :], types)
        metrics = nodes.http_get(cluster.node(via).admin, "/metrics")[1]
        for kind in types:
            count = sum(event["type"] == kind for event in events)
            self.assertIn(f'henge_membership_events_total{{type="{kind}"}} {count}\n', metrics)
        table = cluster.run("events", via=via).stdout.splitlines()
        self.assertEqual(len(table), len(events) + 2)
        self.assertRegex(table[-1], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  ")

    def forget(self, cluster: nodes.Cluster, name: str, via: str) -> tuple[int, str]:
        done = cluster.run("forget", name, via=via)
        return done.returncode, done.stdout + done.stderr

    def test_a_killed_node_is_forgotten_once_it_is_down_and_joins_again_as_a_new_generation(self) -> None:
        cluster = self.cluster()
        code, said = self.forget(cluster, "n3", "n1")
        self.assertEqual(code, 4, said)
        self.assertIn("n3 is alive: drain it", said)
        code, said = self.forget(cluster, "n9", "n1")
        self.assertEqual(code, 1, said)
        self.assertIn("no member is called 'n9'", said)
        self.assertIn("n1, n2, n3", said)

        before = self.member(cluster, "n3", "n1")
        cluster.kill("n3")
        self.wait_down(cluster, "n3", "n1")
        code, said = self.forget(cluster, "n3", "n1")
        self.assertEqual((code, said), (0, "n3 is forgotten; members are n1, n2\n"))
        self.assertEqual(self.forget(cluster, "n3", "n1")[0], 1)
        cluster.wait_settled(["n1", "n2"])
        for name in ("n1", "n2"):
            self.assertEqual([member["name"] for member in cluster.status(name)["members"]], ["n1", "n2"])
            shown = cluster.run("status", via=name)
            self.assertEqual(shown.returncode, 0, shown.stdout)
            self.assertIn("2 nodes up", shown.stdout)
            self.assertNotIn("n3", shown.stdout)

        cluster.start("n3")
        cluster.wait_ready(["n3"])
        cluster.wait_settled()
        after = self.member(cluster, "n3", "n1")
        self.assertEqual(after["id"], before["id"])
        self.assertGreater(after["generation"], before["generation"])
        self.assert_story(cluster, "n1", "n3", ["suspected", "down", "forgotten", "joined"])
        self.assert_story(cluster, "n2", "n3", ["forgotten", "joined"])
        self.assertIn("joined", [event["type"] for event in self.events(cluster, "n3")])

    def test_the_last_of_three_serves_on_once_the_others_are_forgotten(self) -> None:
        cluster = self.cluster()
        keys = [f"forget:{index}" for index in range(1_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        cluster.kill("n3")
        self.wait_down(cluster, "n3", "n1")
        self.assertEqual(self.forget(cluster, "n3", "n1")[0], 0)
        cluster.wait_settled(["n1", "n2"])
        cluster.kill("n2")
        self.wait_down(cluster, "n2", "n1")
        # One of two members is no majority.
        self.assertEqual(nodes.http_get(cluster.node("n1").admin, "/readyz")[0], 503)
        self.assertEqual(self.forget(cluster, "n2", "n1")[0], 0)
        cluster.wait_ready(["n1"])
        cluster.wait_settled(["n1"])
        alone = load.sweep(checker, self.addresses(cluster, "n1"), keys)
        self.report(alone, checker, "every key through n1")
        self.assertEqual((alone.missed, alone.errors), (0, 0))
        for name in ("n2", "n3"):
            cluster.start(name)
        cluster.wait_ready()
        cluster.wait_settled()
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.assertEqual((last.missed, last.errors), (0, 0))
        self.assert_true_to(checker, cluster)

    def test_the_only_seed_that_is_left_forms_a_cluster_when_it_is_told_to(self) -> None:
        cluster = self.cluster(start=False)
        cluster.start("n1")
        nodes.poll(
            "n1 waits for seeds",
            time.monotonic() + WAIT_SECONDS,
            lambda: "waiting for seeds" in nodes.http_get(cluster.node("n1").admin, "/readyz?verbose")[1],
        )
        self.assertEqual(cluster.run("form", via="n1").returncode, 2)
        done = cluster.run("form", "--yes", via="n1")
        self.assertEqual((done.returncode, done.stdout), (0, "n1 formed a cluster; members are n1\n"), done.stderr)
        cluster.wait_ready(["n1"])
        again = cluster.run("form", "--yes", via="n1")
        self.assertEqual(again.returncode, 4, again.stderr)
        self.assertIn("n1 is part of a cluster already", again.stderr)
        for name in ("n2", "n3"):
            cluster.start(name)
        cluster.wait_ready()
        cluster.wait_settled()

    def test_a_process_that_was_forgotten_while_it_stood_still_stops_and_says_how_to_come_back(self) -> None:
        cluster = self.cluster()
        cluster.pause("n3")
        self.wait_down(cluster, "n3", "n1")
        self.assertEqual(self.forget(cluster, "n3", "n2")[0], 0)
        cluster.signal("n3", signal.SIGCONT)
        self.assertEqual(cluster.wait_exit("n3", WAIT_SECONDS), 1)
        self.assertIn("the cluster has forgotten this node: restart it to join again", cluster.log_tail("n3"))
        cluster.start("n3")
        cluster.wait_ready(["n3"])
        cluster.wait_settled()

    def test_two_of_five_killed_at_once_brake_until_the_operator_says_so(self) -> None:
        cluster = self.cluster(5, replicas=2, arguments=("--fill-delay", "2s"))
        keys = [f"brake:{index}" for index in range(1_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        left = ("n1", "n3", "n5")
        for name in ("n2", "n4"):
            cluster.kill(name)
        for name in ("n2", "n4"):
            self.wait_down(cluster, name, "n1")
        nodes.poll(
            "a removal that waits",
            time.monotonic() + WAIT_SECONDS,
            lambda: all("left" in cluster.status(name)["ring"].get("brake", {}) for name in left),
        )
        brake = cluster.status("n1")["ring"]["brake"]
        self.assertEqual((brake["lost"], brake["members"]), (["n2", "n4"], 5))
        self.assertIn("brake on: n2, n4 of 5 went at once", cluster.run("status", via="n1").stdout)
        self.assertIn("henge_ring_brake 1\n", nodes.http_get(cluster.node("n1").admin, "/metrics")[1])
        self.assertIn("nobody is taken out of the ring for now", cluster.log_tail("n1"))
        # Every slice has a copy among those that are left, and is served.
        braked = load.sweep(checker, self.addresses(cluster, *left), keys)
        self.report(braked, checker, "reads while the brake is on")
        self.assertEqual((braked.missed, braked.errors), (0, 0))
        session = self.session(cluster, *left)
        for key in keys:
            load.write(checker, session, key, 100)
        self.assertEqual(session.counts.errors, 0, session.trouble)

        done = cluster.run("brake", "release", via="n3")
        self.assertEqual((done.returncode, done.stdout), (0, "no brake is on any more at n1, n3, n5\n"), done.stderr)
        cluster.wait_settled(list(left))
        for name in left:
            self.assertNotIn("brake", cluster.status(name)["ring"])
            self.assertIn("henge_ring_brake 0\n", nodes.http_get(cluster.node(name).admin, "/metrics")[1])
            types = [event["type"] for event in self.events(cluster, name)]
            self.assertEqual([kind for kind in types if kind.startswith("brake")], ["braked", "brake-ended"])
        after = load.sweep(checker, self.addresses(cluster, *left), keys)
        self.assertEqual((after.missed, after.errors), (0, 0))
        self.assert_true_to(checker, cluster)

    def test_a_node_that_was_out_of_the_ring_is_up_at_once_and_back_in_the_ring_soon(self) -> None:
        cluster = self.cluster(arguments=("--fill-delay", "1s"))
        cluster.pause("n3")
        nodes.poll(
            "n3 out of the ring",
            time.monotonic() + WAIT_SECONDS,
            lambda: self.wanted(cluster, "n3", "n1") == 0,
        )
        cluster.resume("n3")
        resumed = time.monotonic()
        for name in ("n1", "n2", "n3"):
            nodes.poll(
                "n3 up",
                resumed + 5.0,
                lambda name=name: self.member(cluster, "n3", name)["liveness"] == "alive",
            )
        nodes.poll("n3 in the ring", resumed + 5.0, lambda: self.wanted(cluster, "n3", "n1") > 0)
        cluster.wait_settled()
        self.assert_story(cluster, "n1", "n3", ["suspected", "down", "refuted", "damped", "undamped"])
        self.assertIn("henge_dampings_total 1\n", nodes.http_get(cluster.node("n3").admin, "/metrics")[1])

    def wanted(self, cluster: nodes.Cluster, name: str, via: str) -> int:
        report = json.loads(cluster.run("ring", "-o", "json", via=via).stdout)
        return next(member for member in report["members"] if member["name"] == name)["copies"]["wanted"]
