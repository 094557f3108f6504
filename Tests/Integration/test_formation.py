"""Three nodes with identical seeds find each other, and say so in the object that operators read."""

from __future__ import annotations

import json
import time

from harness import nodes
from support import ClusterTest, reports

FORMATION_SECONDS = 5.0

STATUS = ("cluster", "ring", "members", "tasks")
SLICES = ("total", "settled", "moving", "short", "unavailable")
MEMBER = (
    "name id generation lifecycle liveness client cluster admin zone weight primaries copies items bytes memory"
).split()


class FormationTest(ClusterTest):
    def test_three_nodes_form_one_cluster_within_5_s(self) -> None:
        cluster = self.cluster(start=False)
        began = time.monotonic()
        cluster.start_all()
        started = time.monotonic()
        self.assertLess(started - began, 1.0)

        def hashes() -> set[str]:
            found = set()
            for node in cluster.nodes:
                done = cluster.run("status", "-o", "json", via=node.name)
                if done.returncode not in (0, 3):
                    return set()
                status = json.loads(done.stdout)
                if nodes.up(status) != ["n1", "n2", "n3"] or len(status["members"]) != 3:
                    return set()
                found.add(status["ring"]["hash"])
            return found if len(found) == 1 else set()

        nodes.poll("three up members and one ring hash", started + FORMATION_SECONDS, hashes)
        reports.append(f"formed {time.monotonic() - started:.2f} s after the last start")

    def test_status_is_one_object_with_the_promised_names(self) -> None:
        cluster = self.cluster()
        done = cluster.run("status", "-o", "json", via="n2")
        self.assertEqual(done.returncode, 0, done.stderr)
        for status in (json.loads(done.stdout), cluster.status("n2")):
            for name in STATUS:
                self.assertIn(name, status)
            self.assertEqual(status["cluster"], "henge")
            for name in SLICES:
                self.assertIn(name, status["ring"]["slices"])
            self.assertEqual(status["ring"]["slices"]["total"], 16_384)
            self.assertEqual(status["ring"]["slices"]["unavailable"], 0)
            for member in status["members"]:
                self.assertLessEqual(set(MEMBER), set(member))
            self.assertEqual(sum(member["primaries"] for member in status["members"]), 16_384)
        # What others are copies of is as they told it last, a ping ago.
        nodes.poll(
            "every slice counted at its two owners",
            time.monotonic() + FORMATION_SECONDS,
            lambda: sum(member["copies"] for member in cluster.status("n2")["members"]) == 2 * 16_384,
        )
        self.assertEqual(cluster.run("status", "--wait", via="n1").returncode, 0)
        self.assertEqual(cluster.run("status", via="n3").returncode, 0)
        self.assertEqual(cluster.run("ring", via="n3").returncode, 0)

    def test_a_node_restarted_under_its_name_is_a_new_generation_of_the_same_member(self) -> None:
        cluster = self.cluster()
        before = {member["name"]: member for member in cluster.status("n1")["members"]}
        cluster.kill("n2")
        cluster.start("n2")
        cluster.wait_ready(["n2"])
        cluster.wait_settled()
        after = {member["name"]: member for member in cluster.status("n1")["members"]}
        self.assertEqual(len(after), 3)
        self.assertEqual(after["n2"]["id"], before["n2"]["id"])
        self.assertGreater(after["n2"]["generation"], before["n2"]["generation"])
