"""Nodes that die or stop: nothing acknowledged is lost, nothing old comes back."""

from __future__ import annotations

import random
import threading
import time

import support
from harness import load
from harness.checker import Checker
from support import BOTH, ClusterTest, reports

PAUSE_SECONDS = 10.0
WATCH_SECONDS = 60.0


class FailureTest(ClusterTest):
    def test_10000_sets_through_one_node_survive_the_kill_of_another(self) -> None:
        cluster = self.cluster()
        keys = [f"kill:{index}" for index in range(10_000)]
        checker = Checker(keys)
        chance = random.Random(support.seed)
        session = self.session(cluster, "n1")
        for key in keys:
            load.write(checker, session, key, chance.randint(50, 300))
        self.report(session.counts, checker, "sets through n1")
        self.assertEqual(session.counts.errors + session.counts.moved, 0, session.trouble)

        survivors = self.addresses(cluster, "n1", "n3")
        cluster.kill("n2")
        at_once = load.sweep(checker, survivors, keys, batch=1)
        self.report(at_once, checker, "reads through n1 and n3")
        again = load.sweep(checker, survivors, keys, library="pylibmc")
        self.report(again, checker, "once more, pylibmc")
        for counts in (at_once, again):
            self.assertEqual(counts.answered, 2 * len(keys))
            self.assertEqual((counts.missed, counts.errors, counts.moved), (0, 0, 0))
        self.assert_true_to(checker, cluster)

        cluster.start("n2")
        cluster.wait_ready(["n2"])
        cluster.wait_settled()
        back = load.sweep(checker, self.addresses(cluster), keys)
        self.report(back, checker, "with n2 back")
        self.assertEqual((back.missed, back.errors), (0, 0))
        self.assert_true_to(checker, cluster)

    def test_2000_deletes_stay_deleted_when_a_stopped_node_continues(self) -> None:
        cluster = self.cluster()
        deleted = [f"delete:{index}" for index in range(2_000)]
        replaced = [f"replace:{index}" for index in range(1_000)]
        checker = Checker(deleted + replaced)
        load.fill(checker, self.addresses(cluster), deleted + replaced, seed=support.seed)
        session = self.session(cluster, "n1")

        cluster.pause("n3")
        stopped = time.monotonic()
        for key in deleted:
            load.delete(checker, session, key)
        took = time.monotonic() - stopped
        for key in replaced:
            if time.monotonic() - stopped > PAUSE_SECONDS - 2:
                break
            load.write(checker, session, key, 200)
        self.report(session.counts, checker, f"writes through n1, the deletes in {took:.1f} s")
        self.assertLess(took, PAUSE_SECONDS, "the deletes did not end while n3 was stopped")

        # Readers of n3 ask while it is still stopped: the first thing that it does when it wakes is to answer them.
        ending = threading.Event()
        readers = {name: self.session(cluster, name) for name in ("n1", "n2", "n3")}
        rounds = dict.fromkeys(readers, 0)

        def watch(name: str) -> None:
            while not ending.is_set():
                for key in (*deleted, *replaced):
                    load.read(checker, readers[name], key)
                    if ending.is_set():
                        return
                rounds[name] += 1
                ending.wait(0.5)

        remaining = stopped + PAUSE_SECONDS - 2 - time.monotonic()
        ending.wait(max(0.0, remaining))
        threads = [threading.Thread(target=watch, args=(name,), daemon=True) for name in readers]
        for thread in threads:
            thread.start()
        ending.wait(max(0.0, stopped + PAUSE_SECONDS - time.monotonic()))
        cluster.resume("n3")
        ending.wait(WATCH_SECONDS)
        ending.set()
        for thread in threads:
            thread.join()
        for name, reader in readers.items():
            self.report(reader.counts, checker, f"{rounds[name]} rounds through {name}")
        cluster.wait_settled()
        last = load.sweep(checker, self.addresses(cluster), deleted + replaced)
        self.report(last, checker, "at the end")
        self.assertTrue(all(rounds.values()), rounds)
        self.assertEqual(last.errors, 0)
        self.assert_true_to(checker, cluster)

    def test_a_kill_and_a_restart_under_load_lose_nothing(self) -> None:
        cluster = self.cluster()
        keys = [f"load:{index}" for index in range(20_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        with load.Load(self.addresses(cluster), keys, checker, seed=support.seed, libraries=BOTH) as running:
            running.progress(4_000)
            cluster.kill("n2")
            running.progress(8_000)
            cluster.start("n2")
            cluster.wait_ready(["n2"])
            cluster.wait_settled()
            running.progress(4_000)
        self.report(running.counts, checker, "load")
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "every key through every node")
        reports.append(f"keys in doubt {checker.uncertain}")
        self.assertEqual(running.broken, [])
        self.assertEqual(running.counts.read_errors, 0, running.trouble)
        self.assertEqual(last.errors, 0)
        self.assert_true_to(checker, cluster)

    def test_a_stop_and_a_continuation_under_load_show_nothing_old(self) -> None:
        cluster = self.cluster()
        keys = [f"pause:{index}" for index in range(5_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        others = self.addresses(cluster, "n1", "n2")
        with load.Load(others, keys, checker, seed=support.seed, libraries=BOTH) as running:
            for _ in range(2):
                cluster.pause("n3")
                running.progress(6_000)
                cluster.resume("n3")
                self.report(load.sweep(checker, self.addresses(cluster, "n3"), keys), checker, "through n3 at once")
                cluster.wait_settled()
        self.report(running.counts, checker, "load through n1 and n2")
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "every key through every node")
        self.assertEqual(running.broken, [])
        self.assertEqual(last.errors, 0)
        self.assert_true_to(checker, cluster)

    def test_two_of_three_that_restart_at_once_are_up_again_and_nothing_old_is_shown(self) -> None:
        """Whoever is left cannot tell what the two had recorded: all starts empty, and deleted stays deleted."""
        cluster = self.cluster()
        keys = [f"standstill:{index}" for index in range(2_000)]
        checker = Checker(keys)
        load.fill(checker, self.addresses(cluster), keys, seed=support.seed)
        session = self.session(cluster, "n1")
        for key in keys[::2]:
            self.assertTrue(load.delete(checker, session, key))
        cluster.kill("n2")
        cluster.kill("n3")
        cluster.start("n2")
        cluster.start("n3")
        began = time.monotonic()
        cluster.wait_ready(["n1", "n2", "n3"])
        cluster.wait_settled()
        reports.append(f"ready and settled {time.monotonic() - began:.1f} s after the second restart")
        last = load.sweep(checker, self.addresses(cluster), keys)
        self.report(last, checker, "every key through every node")
        self.assertEqual(last.errors, 0)
        self.assertEqual(checker.stale, 0, checker.findings[:8])
        self.assertEqual(checker.foreign, 0)
        fresh = [f"afterwards:{index}" for index in range(1_000)]
        checker = Checker(fresh)
        load.fill(checker, self.addresses(cluster), fresh, seed=support.seed)
        last = load.sweep(checker, self.addresses(cluster), fresh)
        self.assertEqual(last.errors, 0)
        self.assert_true_to(checker, cluster)
