"""`cluster/up`: a local cluster that stays."""

from __future__ import annotations

import argparse
import sys

from . import state
from .nodes import Cluster, ClusterError

BASE_PORT = 21_211


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster/up", description="starts a cluster on loopback and leaves it up")
    parser.add_argument("--henge", required=True, help=argparse.SUPPRESS)
    parser.add_argument("count", type=int, nargs="?", default=3, help="number of nodes (3)")
    parser.add_argument(
        "--base-port", type=int, default=BASE_PORT, help=f"three ports a node from here on ({BASE_PORT})"
    )
    options = parser.parse_args()
    if not 1 <= options.count <= 24:
        parser.error("from 1 to 24 nodes")
    try:
        place = state.create()
        cluster = Cluster(options.henge, options.count, place, base_port=options.base_port, detached=True)
    except (ClusterError, OSError) as problem:
        print(f"cluster/up: {problem}", file=sys.stderr)
        return 1
    try:
        cluster.start_all()
        state.save(cluster)
        cluster.wait_ready()
    except (ClusterError, OSError, KeyboardInterrupt) as problem:
        print(f"cluster/up: {problem or 'interrupted'}", file=sys.stderr)
        state.save(cluster)
        state.end()
        return 1
    print(f"{options.count} nodes are up:")
    print(state.how_to_connect(cluster))
    return 0


if __name__ == "__main__":
    sys.exit(main())
