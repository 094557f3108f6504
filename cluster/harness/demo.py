"""`cluster/demo`: what a cluster does when a node is drained and when one is killed, under a verified load."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time

from . import load, picture, state
from .checker import Checker
from .nodes import Cluster, ClusterError

ITEMS = 60_000
THREADS = 4
# Operations between the steps, so that each step has a load before, while, and after it happens.
BETWEEN = 8_000
DOWN_SECONDS = 3.0


class Show:
    def __init__(self, cluster: Cluster, seed: int):
        self.cluster, self.seed = cluster, seed
        self.addresses = {node.name: node.client for node in cluster.nodes}
        self.keys = [f"item:{index:07d}" for index in range(ITEMS)]
        self.checker = Checker(self.keys)
        self.counts = load.Counts()
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:5.1f} s  {text}", flush=True)

    def ring(self, title: str, via: str = "n1") -> None:
        done = self.cluster.run("status", "-o", "json", via=via)
        try:
            text = picture.ring(json.loads(done.stdout))
        except (ValueError, KeyError) as problem:
            raise ClusterError(
                f"henge status -o json: exit {done.returncode}, {problem!r}: {(done.stdout + done.stderr)[:300]}"
            ) from problem
        print(f"\n{title}\n{text}\n", flush=True)

    def run(self) -> None:
        cluster = self.cluster
        self.say(f"starting {', '.join(self.addresses)} with the same seed list; seed of the load {self.seed}")
        cluster.start_all()
        cluster.wait_ready()
        cluster.wait_settled()
        self.say("the nodes have formed one cluster and are ready")

        self.say(f"storing {ITEMS:,} items of production sizes with pymemcache, a third through each node")
        filled = load.fill(self.checker, self.addresses, self.keys, seed=self.seed)
        self.counts.add(filled)
        self.say(f"stored {filled.answered:,} items")
        self.ring("The ring before:")

        self.say(f"mixed load: {THREADS} threads, 85 % get, 12 % set, 3 % delete, every answer verified")
        with load.Load(
            self.addresses, self.keys, self.checker, seed=self.seed, threads=THREADS
        ) as running:
            running.progress(BETWEEN)
            self.drain("n3")
            running.progress(BETWEEN)
            self.ring("With n3 drained:")
            self.say("bringing n3 back")
            cluster.start("n3")
            cluster.wait_ready(["n3"])
            cluster.wait_settled()
            self.say("n3 has learnt its slices and serves them")
            running.progress(BETWEEN)

            self.say("killing n2 with SIGKILL")
            cluster.kill("n2")
            back = time.monotonic() + DOWN_SECONDS
            while time.monotonic() < back:
                running.progress(500)
            self.say("starting n2 again")
            cluster.start("n2")
            cluster.wait_ready(["n2"])
            cluster.wait_settled()
            self.say("n2 is back, every slice has all its copies")
            running.progress(BETWEEN)
        if running.broken:
            raise running.broken[0]
        self.counts.add(running.counts)
        for text, count in running.trouble.most_common(5):
            self.say(f"  {count} x {text}")

        self.say("reading every key through every node")
        self.counts.add(load.sweep(self.checker, self.addresses, self.keys))
        self.ring("The ring after:")

    def drain(self, name: str) -> None:
        self.say(f"draining {name}: henge drain {name}")
        arguments = [self.cluster.henge, "drain", name, "-n", self.cluster.node("n1").admin_address]
        code = subprocess.run(arguments, stdin=subprocess.DEVNULL, timeout=120).returncode
        if code != 0:
            raise ClusterError(f"henge drain {name} ended with {code}\n{self.cluster.log_tail(name)}")
        ended = self.cluster.wait_exit(name, 30)
        if ended != 0:
            raise ClusterError(f"the process of {name} ended with {ended}\n{self.cluster.log_tail(name)}")
        self.say(f"{name} is drained and its process has ended with 0")

    def result(self) -> bool:
        checker, counts = self.checker, self.counts
        for finding in checker.findings[:10]:
            print(f"  {finding.verdict.value}: {finding.key}: {finding.text}")
        stale = checker.stale + checker.foreign
        print(f"asked {counts.asked:,}")
        print(f"answered {counts.answered:,}")
        print(f"missed {counts.missed:,}  (reads of items that the load itself had deleted, unless lost)")
        print(
            f"errors {counts.errors:,}  moved to another node {counts.moved:,}  "
            f"longest {counts.longest * 1e3:,.0f} ms  items in doubt {checker.uncertain:,}"
        )
        print(f"stale {stale}")
        print(f"lost {checker.lost}")
        return stale == 0 and checker.lost == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster/demo", description=__doc__)
    parser.add_argument("--henge", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up and print how to connect")
    parser.add_argument("--seed", type=int, default=None, help="repeats the load of an earlier run")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    # A closed terminal or a stop from outside ends the nodes, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))

    cluster, kept = None, False
    try:
        place = state.create() if options.keep else None
        cluster = Cluster(options.henge, 3, place, detached=options.keep)
        show = Show(cluster, seed)
        show.run()
        good = show.result()
        if options.keep:
            state.save(cluster)
            kept = True
            print("\nThe cluster stays up:")
            print(state.how_to_connect(cluster))
        return 0 if good else 1
    except (ClusterError, TimeoutError, OSError, load.clients.NodeError, subprocess.TimeoutExpired) as problem:
        print(f"cluster/demo: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ncluster/demo: interrupted", file=sys.stderr)
        return 130
    finally:
        if cluster is not None and not kept:
            cluster.close()
            if options.keep:
                state.end()


if __name__ == "__main__":
    sys.exit(main())
