"""Real nodes, each in a network namespace of its own, and the network between them, which a test breaks by rules."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from typing import Iterable

from . import clocks, namespaces, proxy
from .nodes import Cluster, Node, generate_key
from .proxy import PROTOCOLS, Counts, Rule

END_SECONDS = 5.0
CLIENT_PORT, CLUSTER_PORT, ADMIN_PORT = 11_211, 11_212, 11_213


class NamespacesRefused(Exception):
    """This kernel, or this user's rights, do not allow network namespaces or TUN devices."""


class Network:
    """Namespaces for nodes of these names, and the process that carries packets between them."""

    def __init__(self, names: list[str], *, versions: tuple[int, ...] = (4,), seed: int = 0):
        self.names = names
        self._lock = threading.Lock()
        options = {"count": len(names), "versions": versions, "seed": seed}
        # The kernel's death signal follows the starting thread, so that has to be one that lasts.
        assert threading.current_thread() is threading.main_thread(), "make networks from the main thread"
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "harness.proxy", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[1])},
            start_new_session=True,
        )
        self._home: int | None = None
        try:
            made = self._read()
            if "refused" in made:
                raise NamespacesRefused(f"no network namespaces or TUN devices here: {made['refused']}")
            self._outside = self._path(made["outside"])
            self._namespaces = [self._path(number) for number in made["namespaces"]]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Steps out of the network and ends the process that carries it; the kernel removes the rest."""
        self.leave()
        with self._process as process:
            process.stdin.close()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def _path(self, number: int) -> str:
        return f"/proc/{self._process.pid}/fd/{number}"

    def namespace(self, name: str) -> str:
        """The file by which `nsenter --net=FILE` finds a node's namespace."""
        return self._namespaces[self.names.index(name)]

    # MARK: where the calling thread is

    def enter(self, name: str | None = None) -> None:
        """Moves the calling thread, and all that it starts, outside (None), from where every node can be reached, or to
        a node's place. A socket stays in the namespace in which it was made."""
        home = self._home
        if home is None:
            home = namespaces.current()
        descriptor = os.open(self._outside if name is None else self.namespace(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.enter(descriptor)
        finally:
            os.close(descriptor)
        self._home = home

    def leave(self) -> None:
        """Moves the thread that called `enter` back to where it was before."""
        if self._home is not None:
            namespaces.enter(self._home)
            os.close(self._home)
            self._home = None

    # MARK: rules

    def set(
        self,
        sources: Iterable[str],
        destinations: Iterable[str],
        protocols: Iterable[str] = PROTOCOLS,
        **rule: float,
    ) -> None:
        """The rule (see `Rule`) from each source to each destination, instead of the one before; holds on return."""
        made = dataclasses.asdict(Rule(**rule))
        targets = [self.names.index(name) for name in destinations]
        ways = [
            (self.names.index(source), target, protocol, made)
            for source in sources
            for target in targets
            for protocol in protocols
            if self.names.index(source) != target
        ]
        self._ask({"rules": ways})

    def cut(self, source: str, destination: str, *protocols: str) -> None:
        """Nothing gets from one node to the other, or nothing of these protocols; the way back stays as it is."""
        self.set([source], [destination], protocols or PROTOCOLS, cut=True)

    def split(self, *sides: list[str]) -> None:
        """Nothing gets from one side to another."""
        for side in sides:
            self.set(side, [name for other in sides if other is not side for name in other], cut=True)

    def heal(self) -> None:
        """All packets pass everywhere."""
        self.set(self.names, self.names)

    def counts(self, source: str, destination: str, protocol: str) -> Counts:
        """What has happened from one node to another since the network was made."""
        way = [self.names.index(source), self.names.index(destination), protocol]
        for *found, counts in self._ask({"counts": True})["counts"]:
            if found == way:
                return Counts(**counts)
        return Counts()

    def total(self, *protocols: str) -> Counts:
        """The sum of all ways."""
        result = Counts()
        for _, _, protocol, counts in self._ask({"counts": True})["counts"]:
            if protocol in (protocols or PROTOCOLS):
                for name, value in counts.items():
                    setattr(result, name, getattr(result, name) + value)
        return result

    def _ask(self, command: dict[str, object]) -> dict:
        with self._lock:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process between the nodes has ended with {self._process.wait(END_SECONDS)}")
        return json.loads(line)


class NetworkCluster(Cluster):
    """Nodes n1, n2, … that reach each other through a `Network`. The thread that made it is outside until `close`.

    They seal what they say to each other; `arguments` come after the key's. Each node reads names from a file of its own instead of /etc/hosts, and has a clock of its own where `own_clocks` says
    so.
    """

    def __init__(
        self,
        henge: str | os.PathLike[str],
        count: int,
        *,
        version: int = 4,
        network_seed: int = 0,
        own_clocks: bool = False,
        memory: str = "64M",
        arguments: tuple[str, ...] = (),
        **options,
    ):
        self._version = version
        self._keys = tempfile.TemporaryDirectory(prefix="henge-key-")
        key = generate_key(henge, pathlib.Path(self._keys.name, "cluster.key"))
        sealed = ("--cluster-key-file", str(key), *arguments)
        self.network = Network([f"n{index + 1}" for index in range(count)], versions=(version,), seed=network_seed)
        try:
            super().__init__(henge, count, memory=memory, arguments=sealed, **options)
            for node in self.nodes:
                self.hosts(node.name, {})
            self.clocks: dict[str, clocks.Clock] = {}
            if own_clocks:
                library = clocks.build(self.directory)
                self.clocks = {
                    node.name: clocks.Clock(library, self.directory / f"{node.name}.clock") for node in self.nodes
                }
            self.network.enter()
        except BaseException:
            self.network.close()
            raise

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.network.close()
            self._keys.cleanup()

    def places(self, count: int, base_port: int | None) -> list[tuple[tuple[str, int], ...]]:
        return [
            (
                (proxy.out_address(index, self._version), CLIENT_PORT),
                (proxy.mesh_address(index, self._version), CLUSTER_PORT),
                (proxy.out_address(index, self._version), ADMIN_PORT),
            )
            for index in range(count)
        ]

    def launcher(self, node: Node) -> list[str]:
        # The mount is seen by the node alone, and gone with it.
        mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
        clock = self.clocks.get(node.name)
        return [
            "nsenter",
            f"--net={self.network.namespace(node.name)}",
            *("unshare", "--mount", "sh", "-c", mount, str(self._hosts(node.name))),
            *(clock.launcher() if clock else []),
        ]

    def _hosts(self, name: str) -> pathlib.Path:
        return self.directory / f"{name}.hosts"

    def hosts(self, name: str, addresses: dict[str, str]) -> None:
        """What a node's resolver finds from now on: host names with their addresses, and localhost."""
        lines = ["127.0.0.1 localhost", *(f"{address} {host}" for host, address in addresses.items())]
        # Written in place: a running node has this file, not this name, in its /etc/hosts.
        self._hosts(name).write_text("\n".join(lines) + "\n")
