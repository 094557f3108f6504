"""Carries packets between nodes in network namespaces and does to them what a bad network does.

Every node has a namespace with two interfaces. `mesh` is a TUN device whose other end is this process: all that nodes
send each other, UDP and TCP, IPv4 and IPv6, is read here and written to the receiver's device, or not, or late, or
twice. `out` is one end of a veth pair whose other end hangs on a bridge in a namespace of its own, the outside, where
clients and commands are; that way is the kernel's and stays whole.

Why TUN for the nodes, and not veth with packets taken from the bridge: whole IP packets pass here, so one rule serves
both protocols and each direction has its own; nothing but this process forwards them, so a cut is sure; and a device
is gone with the process that has it open.

A process of its own, since its sender's timing must not wait for a test's threads: started by `network.Network`, which
writes a JSON line a command to its input and reads a line a reply. It ends when its input does.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

from . import namespaces

# What rules tell apart; "other" is mostly ICMP.
PROTOCOLS = ("udp", "tcp", "other")
_BY_NUMBER = {17: "udp", 6: "tcp"}

# How long a packet is held that is to be overtaken by those behind it.
REORDER_SECONDS = 0.02
# Packets that may wait for their time; further ones are dropped and counted as overflow.
HELD_MAX = 20_000
# Packets that a device may have waiting for this process: the queue of the kernel's.
QUEUE_PACKETS = 5_000
# Packets read from one device before the next has its turn.
TURN_PACKETS = 64
PACKET_BYTES_MAX = 65_536

MESH, OUT = "mesh", "out"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


@dataclasses.dataclass(frozen=True)
class Rule:
    """What happens to the packets of one protocol from one node to another. Chances are from 0 to 1."""

    cut: bool = False
    loss: float = 0.0
    # Seconds that every packet takes, and at most so many more by chance: with the second, packets overtake each other.
    delay: float = 0.0
    jitter: float = 0.0
    duplicate: float = 0.0
    # The chance of being held back by `REORDER_SECONDS`.
    reorder: float = 0.0


@dataclasses.dataclass
class Counts:
    """Of one protocol from one node to another. Copies count as sent; what was cut or lost was not."""

    sent: int = 0
    cut: int = 0
    lost: int = 0
    duplicated: int = 0
    held: int = 0
    overflow: int = 0


Way = tuple[int, int, str]
PLAIN = Rule()


def mesh_address(index: int, version: int) -> str:
    """Where node `index`, from 0, is reached by the others."""
    return f"10.77.0.{index + 1}" if version == 4 else f"fd77::{index + 1:x}"


def out_address(index: int, version: int) -> str:
    """Where it is reached from outside."""
    return f"10.78.0.{index + 1}" if version == 4 else f"fd78::{index + 1:x}"


OUTSIDE = {4: "10.78.0.254", 6: "fd78::ffff"}
_PREFIX = {4: 24, 6: 64}


class Forwarder:
    """Which packets go where and when: no device, no clock."""

    def __init__(self, count: int, seed: int):
        self.count = count
        self.rules: dict[Way, Rule] = {}
        self.counts: dict[Way, Counts] = {}
        self.stray = 0
        self._random = random.Random(seed)
        # (time, number, destination, packet); the number keeps the order of packets that are due at one time.
        self._held: list[tuple[float, int, int, bytes]] = []
        self._number = 0

    @property
    def next_due(self) -> float | None:
        return self._held[0][0] if self._held else None

    def arrived(self, source: int, packet: bytes, now: float) -> list[tuple[int, bytes]]:
        """A packet came from a node; returns what is to be delivered at once, with its receiver."""
        read = self._read(packet)
        if read is None:
            self.stray += 1
            return []
        way = (source, *read)
        rule = self.rules.get(way, PLAIN)
        counts = self.counts.setdefault(way, Counts())
        if rule.cut:
            counts.cut += 1
            return []
        if rule.loss and self._random.random() < rule.loss:
            counts.lost += 1
            return []
        copies = 1
        if rule.duplicate and self._random.random() < rule.duplicate:
            counts.duplicated += 1
            copies = 2
        at_once = []
        for _ in range(copies):
            wait = rule.delay + (self._random.random() * rule.jitter if rule.jitter else 0.0)
            if rule.reorder and self._random.random() < rule.reorder:
                wait += REORDER_SECONDS
            if wait == 0:
                at_once.append((way[1], packet))
            elif len(self._held) >= HELD_MAX:
                counts.overflow += 1
                continue
            else:
                counts.held += 1
                self._number += 1
                heapq.heappush(self._held, (now + wait, self._number, way[1], packet))
            counts.sent += 1
        return at_once

    def due(self, now: float) -> list[tuple[int, bytes]]:
        """The packets whose time has come, with their receivers."""
        result = []
        while self._held and self._held[0][0] <= now:
            _, _, destination, packet = heapq.heappop(self._held)
            result.append((destination, packet))
        return result

    def _read(self, packet: bytes) -> tuple[int, str] | None:
        """Receiver and protocol, or None where no node has the packet's address."""
        version = packet[0] >> 4 if packet else 0
        if version == 4 and len(packet) >= 20 and packet[16:19] == b"\x0a\x4d\x00":
            index, number = packet[19] - 1, packet[9]
        elif version == 6 and len(packet) >= 40 and packet[24:38] == b"\xfd\x77" + bytes(12):
            index, number = int.from_bytes(packet[38:40], "big") - 1, packet[6]
        else:
            return None
        return (index, _BY_NUMBER.get(number, "other")) if 0 <= index < self.count else None


class Proxy:
    def __init__(self, count: int, versions: list[int], seed: int):
        self.forwarder = Forwarder(count, seed)
        self._input = b""
        self.outside = namespaces.make()
        _ip(
            "link set lo up",
            "link add name hub type bridge",
            "link set hub up",
            *(f"addr add {OUTSIDE[version]}/{_PREFIX[version]} dev hub {_quick(version)}" for version in versions),
        )
        self.namespaces, self.devices = [], []
        for index in range(count):
            descriptor = namespaces.make()
            self.namespaces.append(descriptor)
            self.devices.append(_tun(MESH))
            namespaces.enter(self.outside)
            port = f"port{index + 1}"
            _ip(
                f"link add name {port} type veth peer name {OUT} netns /proc/{os.getpid()}/fd/{descriptor}",
                f"link set {port} master hub up",
            )
            namespaces.enter(descriptor)
            addresses = [
                f"addr add {address(index, version)}/{_PREFIX[version]} dev {device} {_quick(version)}"
                for device, address in ((MESH, mesh_address), (OUT, out_address))
                for version in versions
            ]
            _ip(
                "link set lo up",
                *addresses,
                f"link set {MESH} txqueuelen {QUEUE_PACKETS} up",
                f"link set {OUT} up",
            )
        namespaces.enter(self.outside)

    def run(self) -> None:
        poller = select.epoll()
        for descriptor in (0, *self.devices):
            os.set_blocking(descriptor, False)
            poller.register(descriptor, select.EPOLLIN)
        sources = {descriptor: index for index, descriptor in enumerate(self.devices)}
        while True:
            due = self.forwarder.next_due
            wait = -1.0 if due is None else max(0.0, due - time.monotonic())
            for descriptor, _ in poller.poll(wait):
                if descriptor == 0:
                    if not self._commands():
                        return
                else:
                    self._drain(sources[descriptor], descriptor)
            self._deliver(self.forwarder.due(time.monotonic()))

    def _drain(self, source: int, descriptor: int) -> None:
        for _ in range(TURN_PACKETS):
            try:
                packet = os.read(descriptor, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            self._deliver(self.forwarder.arrived(source, packet, time.monotonic()))

    def _deliver(self, packets: list[tuple[int, bytes]]) -> None:
        for destination, packet in packets:
            os.write(self.devices[destination], packet)

    def _commands(self) -> bool:
        """Carries out what stands in the input; false at its end."""
        part = os.read(0, PACKET_BYTES_MAX)
        if not part:
            return False
        *lines, self._input = (self._input + part).split(b"\n")
        for line in lines:
            command = json.loads(line)
            if "rules" in command:
                for source, destination, protocol, rule in command["rules"]:
                    self.forwarder.rules[source, destination, protocol] = Rule(**rule)
                _reply({})
            elif "counts" in command:
                _reply(
                    {
                        "stray": self.forwarder.stray,
                        "counts": [[*way, dataclasses.asdict(counts)] for way, counts in self.forwarder.counts.items()],
                    }
                )
            else:
                raise ValueError(f"no such command: {line!r}")
        return True


def _quick(version: int) -> str:
    # An address of IPv6 is used at once, without asking first whether another has it.
    return "nodad" if version == 6 else ""


def _tun(name: str) -> int:
    """A new TUN device in this thread's namespace: its descriptor reads and writes whole IP packets."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


def _ip(*lines: str) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip: {done.stderr.strip()}")


def _reply(value: object) -> None:
    print(json.dumps(value), flush=True)


# What a kernel says that has no namespaces or devices for this user.
_REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOENT, errno.ENODEV, errno.ENXIO)


def main() -> None:
    options = json.loads(sys.argv[1])
    try:
        proxy = Proxy(options["count"], options["versions"], options["seed"])
    except OSError as problem:
        if problem.errno not in _REFUSALS:
            raise
        _reply({"refused": str(problem)})
        return
    _reply({"outside": proxy.outside, "namespaces": proxy.namespaces})
    proxy.run()


if __name__ == "__main__":
    main()
