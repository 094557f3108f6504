"""Planned changes under load cost no miss and no error: drain, return, rolling restart."""

from __future__ import annotations

import random
import subprocess
import time

import support
from harness import load, nodes
from harness.checker import Checker
from support import BOTH, ClusterTest, reports

# Reads and sets only, so that every miss is a fault.
NO_DELETES = load.Mix(sets=0.1, deletes=0.0)


class PlannedTest(ClusterTest):
    def assert_no_miss_and_no_error(self, counts: load.Counts, trouble: object = "") -> None:
        self.assertEqual((counts.missed, counts.errors, counts.answered), (0, 0, counts.asked), trouble)

    def test_the_drain_of_a_node_with_100000_items_under_load(self) -> None:
        cluster = self.cluster()
        keys = [f"drain:{index:06d}" for index in range(156_000)]
        checker = Checker(keys)
        filled = load.fill(
            checker, self.addresses(cluster), keys, seed=support.seed, sizes=lambda chance: chance.randint(60, 240)
        )
        self.report(filled, checker, "stored")

        # What n1 knows of n3 is as old as n3's last ping.
        def items_of_n3() -> int:
            count = next(member["items"] for member in cluster.status("n1")["members"] if member["name"] == "n3")
            return count if count >= 100_000 else 0

        held = nodes.poll("100,000 items in n3", time.monotonic() + 5, items_of_n3)

        with load.Load(
            self.addresses(cluster), keys, checker, seed=support.seed, libraries=BOTH, mix=NO_DELETES
        ) as running:
            running.progress(3_000)
            drain = subprocess.Popen(
                [cluster.henge, "drain", "n3", "-n", cluster.node("n1").admin_address],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            output, _ = drain.communicate(timeout=180)
            self.assertEqual(drain.returncode, 0, output + cluster.log_tail("n3"))
            self.assertEqual(cluster.wait_exit("n3", 30), 0, cluster.log_tail("n3"))
            running.progress(3_000)
        self.report(running.counts, checker, f"load, n3 held {held:,} items")
        last = load.sweep(checker, self.addresses(cluster, "n1", "n2"), keys)
        self.report(last, checker, "every key through n1 and n2")
        self.assertEqual(running.broken, [])
        self.assert_no_miss_and_no_error(running.counts, running.trouble)
        self.assert_no_miss_and_no_error(last)
        self.assert_true_to(checker, cluster)
        cluster.wait_settled(["n1", "n2"])

    def test_a_drained_node_comes_back_under_load(self) -> None:
        cluster = self.cluster()
        keys = [f"return:{index}" for index in range(20_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        with load.Load(
            self.addresses(cluster), keys, checker, seed=support.seed, libraries=BOTH, mix=NO_DELETES
        ) as running:
            done = cluster.run("drain", "n2", via="n1")
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(cluster.wait_exit("n2", 30), 0, cluster.log_tail("n2"))
            running.progress(2_000)
            cluster.start("n2")
            cluster.wait_ready(["n2"])
            cluster.wait_settled()
            running.progress(2_000)
        self.report(running.counts, checker, "load")
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "every key through every node")
        self.assertEqual(running.broken, [])
        self.assert_no_miss_and_no_error(running.counts, running.trouble)
        self.assert_no_miss_and_no_error(last)
        self.assert_true_to(checker, cluster)

    def test_a_rolling_restart_of_every_node_under_load(self) -> None:
        cluster = self.cluster()
        keys = [f"rolling:{index}" for index in range(20_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        order = [node.name for node in cluster.nodes]
        random.Random(support.seed).shuffle(order)
        with load.Load(
            self.addresses(cluster), keys, checker, seed=support.seed, libraries=BOTH, mix=NO_DELETES
        ) as running:
            for name in order:
                running.progress(2_000)
                self.assertEqual(cluster.stop(name), 0, cluster.log_tail(name))
                running.progress(1_000)
                cluster.start(name)
                cluster.wait_ready([name])
                cluster.wait_settled()
            running.progress(2_000)
        self.report(running.counts, checker, f"load, restarted {', '.join(order)}")
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "every key through every node")
        self.assertEqual(running.broken, [])
        self.assert_no_miss_and_no_error(running.counts, running.trouble)
        self.assert_no_miss_and_no_error(last)
        self.assert_true_to(checker, cluster)

    def test_the_drain_of_a_node_that_does_not_exist_fails(self) -> None:
        cluster = self.cluster()
        done = cluster.run("drain", "nobody", via="n1")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("nobody", done.stdout + done.stderr)
        reports.append(f"exit {done.returncode}")
        cluster.wait_settled()
