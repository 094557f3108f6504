"""The servers of a benchmark, each pinned to its processor, and what they say of themselves.

Every process is ended by its pid when its context ends, and by the kernel when the thread that started it is gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Iterator, Protocol

from . import memcached, ports
from .nodes import HOST, Cluster, ClusterError, Node, generate_key

NUTCRACKER = "/usr/sbin/nutcracker"
CONNECTIONS_MAX = 4096


@dataclasses.dataclass(frozen=True)
class Pinning:
    """Which processors servers and the generator get; none where there is only one or no taskset."""

    server: str | None
    generator: str | None

    @staticmethod
    def choose(workers: int = 1) -> Pinning:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2 or not shutil.which("taskset"):
            return Pinning(None, None)
        # Two workers share a processor where there are only two: what a request costs shows also then.
        own = cores[:workers] if len(cores) > workers else cores[:1]
        return Pinning(",".join(map(str, own)), str(cores[-1]))


def pinned(cores: str | None, command: list[str]) -> list[str]:
    return ["taskset", "-c", cores, *command] if cores else command


class Server(Protocol):
    """What the generator is pointed at."""

    name: str

    @property
    def addresses(self) -> list[str]: ...

    @property
    def pids(self) -> list[int]: ...


class Ports:
    """Port numbers: from a base on, or whichever are free."""

    def __init__(self, base: int | None):
        self._next = base

    def take(self, count: int) -> list[int]:
        if self._next is None:
            return ports.free(count)
        numbers: list[int] = []
        while len(numbers) < count:
            if self._next > 65_535:
                raise ClusterError("no port is free above --base-port")
            if ports.is_free(self._next):
                numbers.append(self._next)
            self._next += 1
        return numbers


class Henge(Cluster):
    """`count` nodes, a worker each unless said otherwise."""

    name = "henge"

    def __init__(
        self,
        program: str,
        numbers: Ports,
        *,
        count: int = 1,
        replicas: int = 0,
        workers: int = 1,
        memory: str = "1G",
        arguments: tuple[str, ...] = (),
        sealed: bool = False,
    ):
        # No nodes there: their ports are chosen here.
        super().__init__(
            program, 0, base_port=0, replicas=replicas, memory=memory, workers=workers, arguments=arguments
        )
        self._cores = Pinning.choose(workers).server
        for index, (client, cluster, admin) in enumerate(numbers.take(3) for _ in range(count)):
            name = f"n{index + 1}"
            place = self.directory / name
            self.nodes.append(
                Node(
                    name,
                    *((HOST, number) for number in (client, cluster, admin)),
                    data=place / "data",
                    log=self.directory / f"{name}.log",
                )
            )
        # A node without seeds is a cluster of one.
        if count > 1:
            for node in self.nodes:
                node.seeds = ",".join(other.cluster_address for other in self.nodes)
        if sealed:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._common += ["--cluster-key-file", str(generate_key(program, self.directory / "cluster.key"))]
            self.name = "henge sealed"

    def command(self, node: Node) -> list[str]:
        return pinned(self._cores, super().command(node))

    def __enter__(self) -> Henge:
        try:
            self.start_all()
            self.wait_ready()
            if len(self.nodes) > 1:
                self.wait_settled()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def addresses(self) -> list[str]:
        return [node.client_address for node in self.nodes]

    @property
    def pids(self) -> list[int]:
        return [node.process.pid for node in self.nodes if node.process]


class Process:
    """A program on loopback ports that ends with its context."""

    def __init__(self, command: list[str], port: int, cores: str | None):
        self.address = (HOST, port)
        # memcached does not run as root. Were it to change its user itself, the kernel would forget the death signal.
        user = ["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            ["setpriv", *user, "--pdeathsig", "KILL", *pinned(cores, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(self.address, timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise ClusterError(f"{self.process.args} did not start on port {self.address[1]}") from None
                time.sleep(0.01)

    def end(self) -> None:
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Memcached:
    """One memcached, `megabytes` of memory and `threads` workers."""

    name = "memcached"

    def __init__(self, numbers: Ports, *, megabytes: int = 1024, threads: int = 1, arguments: tuple[str, ...] = ()):
        self._port = numbers.take(1)[0]
        self._cores = Pinning.choose(threads).server
        self._command = [
            memcached.PROGRAM,
            *("-l", HOST, "-p", str(self._port), "-U", "0"),
            *("-t", str(threads), "-m", str(megabytes), "-c", str(CONNECTIONS_MAX)),
            *arguments,
        ]
        self._process: Process | None = None

    def __enter__(self) -> Memcached:
        self._process = Process(self._command, self._port, self._cores)
        try:
            self._process.wait()
        except BaseException:
            self._process.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.end()

    @property
    def addresses(self) -> list[str]:
        return [f"{HOST}:{self._port}"]

    @property
    def pids(self) -> list[int]:
        return [self._process.process.pid] if self._process else []


class Nutcracker:
    """nutcracker before three memcacheds; its time is that of all four processes."""

    name = "nutcracker+3 memcached"

    def __init__(self, numbers: Ports, *, megabytes: int = 1024):
        self._stack = contextlib.ExitStack()
        self._backends = [Memcached(numbers, megabytes=megabytes) for _ in range(3)]
        self._port, self._statistics = numbers.take(2)
        self._cores = Pinning.choose().server
        self._process: Process | None = None

    def __enter__(self) -> Nutcracker:
        with contextlib.ExitStack() as stack:
            for backend in self._backends:
                stack.enter_context(backend)
            place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="henge-bench-")))
            servers = "".join(f"    - {backend.addresses[0]}:1\n" for backend in self._backends)
            place.chmod(0o777)
            (place / "nutcracker.yml").write_text(
                f"bench:\n  listen: {HOST}:{self._port}\n  hash: fnv1a_64\n  distribution: ketama\n"
                f"  auto_eject_hosts: false\n  timeout: 10000\n  server_connections: 1\n  servers:\n{servers}"
            )
            command = [NUTCRACKER, "-c", str(place / "nutcracker.yml"), "-s", str(self._statistics), "-v", "0"]
            command += ["-a", HOST, "-o", str(place / "nutcracker.log")]
            self._process = Process(command, self._port, self._cores)
            stack.callback(self._process.end)
            self._process.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def addresses(self) -> list[str]:
        return [f"{HOST}:{self._port}"]

    @property
    def pids(self) -> list[int]:
        own = [self._process.process.pid] if self._process else []
        return own + [pid for backend in self._backends for pid in backend.pids]


def has_nutcracker() -> bool:
    return os.access(NUTCRACKER, os.X_OK)


def has_memcached() -> bool:
    return os.access(memcached.PROGRAM, os.X_OK)


def resident_bytes(pid: int) -> int:
    """What a process has resident."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ClusterError(f"process {pid} has no resident size in /proc")


def statistics(address: str) -> dict[str, str]:
    """The answer to `stats`."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"stats\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n"):
            piece = connection.recv(65_536)
            if not piece:
                raise ClusterError(f"{address} closed the connection within stats")
            answer += piece
    rows = (line.split(" ", 2) for line in answer.decode().splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "STAT"}


@contextlib.contextmanager
def both(first: contextlib.AbstractContextManager, second: contextlib.AbstractContextManager) -> Iterator[tuple]:
    """Two servers side by side."""
    with first as left, second as right:
        yield left, right
