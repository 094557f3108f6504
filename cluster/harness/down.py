"""`cluster/down`: ends what `cluster/up` or `cluster/demo --keep` left."""

from __future__ import annotations

import sys

from . import state
from .nodes import ClusterError

if __name__ == "__main__":
    try:
        ended = state.end()
    except (ClusterError, OSError) as problem:
        sys.exit(f"cluster/down: {problem}")
    print(f"ended {', '.join(ended)}" if ended else "no cluster is up")
