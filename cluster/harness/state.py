"""A cluster that outlives the command that started it: where it is written down, and how it is ended.

The directory ($XDG_RUNTIME_DIR/henge-cluster, or /tmp/henge-cluster-UID) holds data, logs and `state.json`. A process
is told by its pid and its start time, so that a pid which by now belongs to somebody else is left alone.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import stat
import time

from .nodes import Cluster, ClusterError

END_SECONDS = 10.0


def directory() -> pathlib.Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return pathlib.Path(runtime, "henge-cluster") if runtime else pathlib.Path(f"/tmp/henge-cluster-{os.getuid()}")


def create() -> pathlib.Path:
    """Makes the directory, for this user alone. An error if a cluster is there already."""
    place = directory()
    if alive():
        raise ClusterError(f"a cluster is up already ({place}): cluster/down ends it")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    _check(place)
    return place


def _check(place: pathlib.Path) -> None:
    found = place.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise ClusterError(f"{place} belongs to somebody else")


def save(cluster: Cluster) -> None:
    nodes = [
        {
            "name": node.name,
            "pid": node.process.pid,
            "started": start_time(node.process.pid),
            "client": node.client_address,
            "admin": node.admin_address,
        }
        for node in cluster.nodes
        if node.process is not None
    ]
    (cluster.directory / "state.json").write_text(json.dumps({"henge": cluster.henge, "nodes": nodes}, indent=1))


def start_time(pid: int) -> str | None:
    """The start time of a process in the kernel's ticks, or None when there is none (or only a zombie)."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _saved() -> list[dict[str, object]]:
    try:
        _check(directory())
        return json.loads((directory() / "state.json").read_text())["nodes"]
    except FileNotFoundError:
        return []


def alive() -> list[dict[str, object]]:
    """The nodes of the saved cluster whose processes are still there."""
    return [node for node in _saved() if node["started"] and start_time(int(str(node["pid"]))) == node["started"]]


def end() -> list[str]:
    """Ends the saved cluster, SIGTERM first, and removes its directory. Returns the names of the nodes it ended."""
    ended = [str(node["name"]) for node in alive()]
    for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
        for node in alive():
            try:
                os.kill(int(str(node["pid"])), number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + END_SECONDS
        while number != signal.SIGCONT and alive() and time.monotonic() < deadline:
            time.sleep(0.05)
    if directory().exists():
        _check(directory())
        shutil.rmtree(directory(), ignore_errors=True)
    return ended


def how_to_connect(cluster: Cluster) -> str:
    """What to type next."""
    clients = ",".join(node.client_address for node in cluster.nodes)
    first = cluster.nodes[0]
    lines = [
        f"  {node.name}   clients {node.client_address}   admin http://{node.admin_address}" for node in cluster.nodes
    ]
    return "\n".join(
        [
            *lines,
            f"  any memcache client: {clients} (any one is enough)",
            f"  memccat --servers={first.client_address} KEY",
            f"  {cluster.henge} status -n {first.admin_address}",
            f"  {cluster.henge} drain n{len(cluster.nodes)} -n {first.admin_address}",
            f"  logs and data: {cluster.directory}",
            "  cluster/down ends it",
        ]
    )
