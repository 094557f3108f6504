"""Sixteen nodes on one machine: how soon all of them agree. The times are told, not judged: machines differ."""

from __future__ import annotations

import json
import time
from typing import Callable

from harness import nodes
from support import ClusterTest, reports

COUNT = 16
WAIT_SECONDS = 60.0
PAUSE_SECONDS = 30.0


class ManyNodesTest(ClusterTest):
    def sixteen(self) -> nodes.Cluster:
        cluster = self.cluster(COUNT, start=False, memory="8M", arguments=("--max-item-size", "64K"))
        cluster.start_all()
        return cluster

    def wait_all(
        self,
        cluster: nodes.Cluster,
        what: str,
        holds: Callable[[dict], bool],
        besides: str = "",
    ) -> float:
        """Until the status of every node but one holds at one time, with one ring hash; the seconds that took."""
        began = time.monotonic()

        def all_hold() -> bool:
            found = set()
            for node in cluster.nodes:
                if node.name == besides:
                    continue
                status = cluster.status(node.name)
                if not holds(status):
                    return False
                found.add(status["ring"]["hash"])
            return len(found) == 1

        nodes.poll(what, began + WAIT_SECONDS, all_hold)
        return time.monotonic() - began

    def wait_formed(self, cluster: nodes.Cluster) -> float:
        return self.wait_all(
            cluster,
            "one ring of all",
            lambda status: status["ring"]["members"] == len(nodes.up(status)) == COUNT,
        )

    @staticmethod
    def liveness(status: dict, name: str) -> str:
        return next(member["liveness"] for member in status["members"] if member["name"] == name)

    def test_sixteen_nodes_agree_after_their_start_a_crash_and_a_restart(self) -> None:
        cluster = self.sixteen()
        reports.append(f"one ring {self.wait_formed(cluster):.1f} s after the last start")
        cluster.kill("n7")
        took = self.wait_all(cluster, "n7 out", lambda status: self.liveness(status, "n7") == "down", besides="n7")
        reports.append(f"a killed node out of every ring after {took:.1f} s")
        cluster.start("n7")
        reports.append(f"up again everywhere {self.wait_formed(cluster):.1f} s after its restart")

    def test_a_node_that_stood_still_convicts_nobody_and_comes_back(self) -> None:
        cluster = self.sixteen()
        self.wait_formed(cluster)
        cluster.pause("n7")
        paused = time.monotonic()
        self.wait_all(cluster, "n7 out", lambda status: self.liveness(status, "n7") == "down", besides="n7")
        nodes.poll("the pause", paused + 2 * PAUSE_SECONDS, lambda: time.monotonic() >= paused + PAUSE_SECONDS, 0.5)
        cluster.resume("n7")
        reports.append(f"up again everywhere {self.wait_formed(cluster):.1f} s after SIGCONT")
        done = cluster.run("events", "-o", "json", via="n7")
        self.assertEqual(done.returncode, 0, done.stderr)
        events = json.loads(done.stdout)["events"]
        self.assertIn("stalled", [event["type"] for event in events])
        self.assertEqual([event for event in events if event["type"] == "down"], [])
        for node in cluster.nodes:
            if node.name == "n7":
                continue
            events = json.loads(cluster.run("events", "-o", "json", via=node.name).stdout)["events"]
            convicted = {event["member"] for event in events if event["type"] == "down"}
            self.assertLessEqual(convicted, {"n7"}, f"what {node.name} saw")
