"""Loopback ports that stay free while a node is down.

The kernel gives ports of the ephemeral range (from 32768) to outgoing connections, so a node that restarts could find
its own taken by a client. Ports below the range are only taken by whoever asks for them.
"""

from __future__ import annotations

import random
import socket

FIRST, LAST = 14_000, 31_999
_given: set[int] = set()


def is_free(port: int) -> bool:
    """Whether both a TCP listener and a UDP socket can have the port on 127.0.0.1 now."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def text_of(address: tuple[str, int]) -> str:
    """Host and port as commands take them."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free(count: int) -> list[int]:
    """`count` ports that nobody uses and that this process has not been given before."""
    chance = random.SystemRandom()
    ports: list[int] = []
    for _ in range(20_000):
        port = chance.randint(FIRST, LAST)
        if port not in _given and is_free(port):
            _given.add(port)
            ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError(f"no {count} free ports between {FIRST} and {LAST}")
