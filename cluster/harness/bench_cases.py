"""What `cluster/bench` can measure, by name."""

from __future__ import annotations

import dataclasses


class Skipped(Exception):
    """A case that cannot be measured here, and why."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """The most that a ratio may be, beside a memcached that sends each pipelined reply by itself, and one that does
    not (from 1.6.35 on)."""

    single: float | None = None
    batched: float | None = None


@dataclasses.dataclass(frozen=True)
class Case:
    """A load whose cost to the server is compared."""

    name: str
    # Which servers: see `bench.group`.
    servers: str = "single"
    depth: int = 1
    get_share: float = 1.0
    keys_per_get: int = 1
    value_bytes: int = 100
    keys: int = 100_000
    wire: str = "text"
    goal: Goal = Goal()

    @property
    def unit(self) -> str:
        return "key" if self.keys_per_get > 1 else "request"


CASES = [
    Case("get-1", goal=Goal(0.90, 0.90)),
    Case("mixed-1", get_share=0.9, goal=Goal(0.90, 0.90)),
    Case("get-16", depth=16, goal=Goal(0.14, 0.65)),
    Case("get-100", depth=100, goal=Goal(0.11, 0.50)),
    Case("mixed-16", depth=16, get_share=0.9),
    Case("set-1", get_share=0.0),
    Case("set-16", depth=16, get_share=0.0, goal=Goal(0.58, 0.75)),
    Case("multiget-100", keys_per_get=100, goal=Goal(0.52, 0.55)),
    Case("get-4k-1", value_bytes=4096, keys=20_000, goal=Goal(0.85, 1.0)),
    Case("get-4k-16", value_bytes=4096, keys=20_000, depth=16, goal=Goal(0.30, 0.95)),
    Case("get-64k-1", value_bytes=65_536, keys=2_000),
    Case("mg-16", depth=16, wire="meta", goal=Goal(0.65, 0.65)),
    Case("workers-2", servers="workers-2", get_share=0.9),
    Case("cluster-3-r0", servers="cluster-r0", get_share=0.9, goal=Goal(0.6, 0.6)),
    Case("cluster-3-r1", servers="cluster-r1", get_share=0.9),
    Case("sealed-3-r1", servers="sealed-r1", get_share=0.9),
    Case("sealed-3-r1-16", servers="sealed-r1", get_share=0.9, depth=16),
]

# Measured in a way of their own, each by a function of `bench_special`.
SPECIAL = {
    "latency": "open loop at 25, 50 and 75 % of saturation, 9 gets to 1 set",
    "memory": "resident bytes an item beyond key and value",
    "hit-ratio": "misses of replayed and drawn sequences at equal growth of resident size",
    "promoted": "what a copy that took over would have of its holder's hits, in-process",
    "expiry": "share of expired items among those held",
    "store": "the store in-process: henge-store-bench",
}

DESCRIPTIONS = {
    "workers-2": "two workers each, 9 gets to 1 set, one in flight",
    "cluster-3-r0": "three nodes without replicas, any node asked; beside nutcracker and three memcacheds",
    "cluster-3-r1": "three nodes with one replica, any node asked; beside nutcracker and three memcacheds",
    "sealed-3-r1": "the same with a cluster key; beside the same without",
    "sealed-3-r1-16": "the same, 16 in flight",
}


def describe(case: Case) -> str:
    if case.name in DESCRIPTIONS:
        return DESCRIPTIONS[case.name]
    kind = {1.0: "get", 0.0: "set"}.get(case.get_share, f"{case.get_share:.0%} get")
    keys = f" of {case.keys_per_get} keys, per key" if case.keys_per_get > 1 else ""
    wire = " by mg" if case.wire == "meta" else ""
    return f"{kind}{wire}{keys}, {case.depth} in flight, {case.value_bytes} bytes"


NAMES = [case.name for case in CASES] + list(SPECIAL)
