"""Real `henge` processes on loopback: started, watched, paused, killed, and ended with whoever started them.

All nodes of a cluster get the same seed list, as an operator would write it. Each process is a session of its own and
is only ever signalled by its pid; unless the cluster is to stay (`detached`), the kernel kills it when the thread that
started it is gone, whatever that thread died of.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from typing import Any, Callable

from . import ports
from .ports import text_of

HOST = "127.0.0.1"
# No proxy of the environment stands between two processes of one machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ClusterError(Exception):
    """A node or the cluster did not do in time what was waited for; the text carries the end of the logs."""


@dataclasses.dataclass
class Node:
    name: str
    client: tuple[str, int]
    cluster: tuple[str, int]
    admin: tuple[str, int]
    data: pathlib.Path
    log: pathlib.Path
    # As `--seeds` takes them; empty for a node that forms a cluster of its own.
    seeds: str = ""
    # What its command has beside the others', from its next start on.
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    # Exit codes of the processes that ran under this name, in order; negative for a signal.
    exits: list[int] = dataclasses.field(default_factory=list)

    @property
    def admin_address(self) -> str:
        return text_of(self.admin)

    @property
    def cluster_address(self) -> str:
        return text_of(self.cluster)

    @property
    def client_address(self) -> str:
        return text_of(self.client)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


def http_get(address: tuple[str, int], path: str, timeout: float = 2.0) -> tuple[int, str]:
    """Status code and body. Raises OSError (or its URLError) when nobody answers."""
    try:
        with _opener.open(f"http://{text_of(address)}{path}", timeout=timeout) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def generate_key(henge: str | os.PathLike[str], path: pathlib.Path) -> pathlib.Path:
    """A new cluster key in a file for `--cluster-key-file`."""
    made = subprocess.run([henge, "keyring", "generate"], capture_output=True, text=True, check=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(made.stdout)
    return path


def poll(what: str, deadline: float, check: Callable[[], Any], interval: float = 0.05) -> Any:
    """The first true value of `check()`, asked again and again until the monotonic time `deadline`."""
    last: Exception | None = None
    while True:
        try:
            value = check()
            if value:
                return value
        except (OSError, ValueError, KeyError) as problem:
            last = problem
        if time.monotonic() >= deadline:
            raise ClusterError(f"{what}: not in time" + (f" (last: {last!r})" if last else ""))
        time.sleep(interval)


class Cluster:
    """`count` nodes n1, n2, … A context: leaving it ends every process and removes what it made."""

    def __init__(
        self,
        henge: str | os.PathLike[str],
        count: int,
        directory: pathlib.Path | None = None,
        *,
        base_port: int | None = None,
        seeds: bool = True,
        replicas: int = 1,
        memory: str = "256M",
        workers: int = 1,
        arguments: tuple[str, ...] = (),
        detached: bool = False,
    ):
        self.henge = str(pathlib.Path(henge).resolve())
        self._own_directory = directory is None
        self.directory = directory or pathlib.Path(tempfile.mkdtemp(prefix="henge-cluster-"))
        self.detached = detached
        self.nodes: list[Node] = []
        for index, (client, cluster, admin) in enumerate(self.places(count, base_port)):
            name = f"n{index + 1}"
            place = self.directory / name
            self.nodes.append(Node(name, client, cluster, admin, place / "data", self.directory / f"{name}.log"))
        self._common = ["--replicas", str(replicas), "--memory", memory, "--workers", str(workers), *arguments]
        if seeds:
            for node in self.nodes:
                node.seeds = ",".join(other.cluster_address for other in self.nodes)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def places(self, count: int, base_port: int | None) -> list[tuple[tuple[str, int], ...]]:
        """For each node: where clients, other nodes, and commands connect."""
        if base_port is None:
            numbers = ports.free(3 * count)
        else:
            numbers = list(range(base_port, base_port + 3 * count))
            taken = [number for number in numbers if not ports.is_free(number)]
            if taken:
                raise ClusterError(f"port {taken[0]} is in use: choose another --base-port")
        return [tuple((HOST, number) for number in numbers[first : first + 3]) for first in range(0, 3 * count, 3)]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    # MARK: processes

    def command(self, node: Node) -> list[str]:
        return [
            self.henge,
            "serve",
            *("--name", node.name, "--data-dir", str(node.data)),
            *("--listen", node.client_address, "--cluster", node.cluster_address, "--admin", node.admin_address),
            *self._common,
            *node.arguments,
            *(("--seeds", node.seeds) if node.seeds else ()),
        ]

    def launcher(self, node: Node) -> list[str]:
        """What the command of a node is preceded by."""
        return []

    def start(self, name: str) -> Node:
        """Starts a node's process and does not wait for anything."""
        node = self.node(name)
        if node.running:
            raise ClusterError(f"{name} runs already")
        node.data.mkdir(parents=True, exist_ok=True)
        command = [*self.launcher(node), *self.command(node)]
        if not self.detached:
            # The kernel's death signal follows the starting thread, so that has to be one that lasts.
            assert threading.current_thread() is threading.main_thread(), "start nodes from the main thread"
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with open(node.log, "ab") as log:
            node.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return node

    def start_all(self) -> None:
        for node in self.nodes:
            self.start(node.name)

    def signal(self, name: str, number: signal.Signals) -> None:
        process = self.node(name).process
        if process is None or process.poll() is not None:
            raise ClusterError(f"{name} does not run")
        process.send_signal(number)

    def pause(self, name: str) -> None:
        self.signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.signal(name, signal.SIGCONT)

    def kill(self, name: str) -> None:
        """SIGKILL, and the process is gone when this returns."""
        self.signal(name, signal.SIGKILL)
        self.wait_exit(name, 5)

    def stop(self, name: str, timeout: float = 40.0) -> int:
        """SIGTERM; returns the exit code."""
        self.signal(name, signal.SIGTERM)
        return self.wait_exit(name, timeout)

    def wait_exit(self, name: str, timeout: float) -> int:
        node = self.node(name)
        if node.process is None:
            raise ClusterError(f"{name} does not run")
        try:
            code = node.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"{name} did not end within {timeout:g} s\n{self.log_tail(name)}") from None
        node.process = None
        node.exits.append(code)
        return code

    def close(self) -> None:
        """Ends every process: SIGTERM to all, SIGKILL to those that are still there three seconds later."""
        running = [node.process for node in self.nodes if node.process and node.process.poll() is None]
        for number, patience in ((signal.SIGCONT, 0.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
            for process in running:
                if process.poll() is None:
                    process.send_signal(number)
            deadline = time.monotonic() + patience
            while patience and time.monotonic() < deadline and any(process.poll() is None for process in running):
                time.sleep(0.02)
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    # MARK: what the nodes say

    def status(self, name: str, timeout: float = 2.0) -> dict[str, Any]:
        """The object of `/v1/status`."""
        code, body = http_get(self.node(name).admin, "/v1/status", timeout)
        if code != 200:
            raise ValueError(f"/v1/status of {name} answered {code}: {body[:200]}")
        return json.loads(body)

    def member(self, name: str, via: str) -> dict[str, Any]:
        """What a node says of a member."""
        return next(member for member in self.status(via)["members"] if member["name"] == name)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The last membership events of a node since its start."""
        code, body = http_get(self.node(name).admin, "/v1/events")
        if code != 200:
            raise ValueError(f"/v1/events of {name} answered {code}: {body[:200]}")
        return json.loads(body)["events"]

    def run(self, *arguments: str, via: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A `henge` command against the admin address of a node."""
        return subprocess.run(
            [self.henge, *arguments, "-n", self.node(via).admin_address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def wait_ready(self, names: list[str] | None = None, timeout: float = 30.0) -> None:
        """Until `/readyz` of the nodes says yes. A process that ended meanwhile is an error at once."""
        deadline = time.monotonic() + timeout
        for name in names or [node.name for node in self.nodes]:
            node = self.node(name)

            def ready(node: Node = node) -> bool:
                if not node.running:
                    raise ClusterError(f"{node.name} has ended\n{self.log_tail(node.name)}")
                return http_get(node.admin, "/readyz")[0] == 200

            try:
                poll(f"{name} ready", deadline, ready)
            except ClusterError as problem:
                raise ClusterError(f"{problem}\n{self.log_tail(name)}") from None

    def wait_settled(self, names: list[str] | None = None, timeout: float = 60.0) -> None:
        """Until every named node sees exactly these members up and every slice with all its copies in place."""
        wanted = sorted(names or [node.name for node in self.nodes if node.running])
        deadline = time.monotonic() + timeout
        for name in wanted:
            seen: dict[str, Any] = {}

            def settled(name: str = name) -> bool:
                seen.clear()
                seen.update(self.status(name))
                slices = seen["ring"]["slices"]
                return up(seen) == wanted and slices["settled"] == slices["total"] and not slices["short"]

            try:
                poll(f"{name} settled with {', '.join(wanted)}", deadline, settled, 0.1)
            except ClusterError as problem:
                ring = seen.get("ring")
                raise ClusterError(f"{problem}; saw up {up(seen)}, ring {ring}\n{self.log_tail(name)}") from None

    def wait_agreed(
        self, names: list[str] | None = None, *, joining: bool = False, timeout: float = 60.0
    ) -> tuple[float, str]:
        """Until the named nodes (all that run, without names) see each other and nobody else up, by one ring; `joining`
        ones count too where it says so. Returns the seconds that took, and the ring's hash."""
        wanted = sorted(names or [node.name for node in self.nodes if node.running])
        began = time.monotonic()

        def agreed() -> str | None:
            found = {}
            for name in wanted:
                status = self.status(name)
                damped = sum(member["damped"] for member in status["members"])
                if up(status, joining) != wanted or status["ring"]["members"] != len(wanted) - damped:
                    return None
                found[status["ring"]["hash"]] = name
            return next(iter(found)) if len(found) == 1 else None

        try:
            ring = poll(f"one ring of {', '.join(wanted)}", began + timeout, agreed)
        except ClusterError as problem:
            raise ClusterError(f"{problem}\n{''.join(self.log_tail(name, 5) for name in wanted)}") from None
        return time.monotonic() - began, ring

    def log_tail(self, name: str, lines: int = 15) -> str:
        try:
            text = self.node(name).log.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return ""
        return "".join(f"    {name}| {line}\n" for line in text)


def up(status: dict[str, Any], joining: bool = False) -> list[str]:
    """The names of the members that are up, or about to be where `joining` says so, and alive, sorted."""
    return sorted(
        member["name"]
        for member in status.get("members", [])
        if member["liveness"] == "alive" and member["lifecycle"] in (("up", "joining") if joining else ("up",))
    )
