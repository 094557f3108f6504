"""Bytes to a server and back over a raw socket: the part of the comparison that knows TCP, and nothing of a protocol.

An exchange writes and reads at the same time, so that neither side can block the other with full buffers, and every
read ends at a deadline.
"""

from __future__ import annotations

import select
import socket
import time


class Wire:
    """One connection. `received` grows; `closed` is set once the server has ended the connection."""

    def __init__(self, address: tuple[str, int], timeout: float = 10.0):
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = bytearray()
        self.closed = False

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes, pieces: list[int] | None = None, timeout: float = 20.0) -> None:
        """Sends all of `data`, reading meanwhile. `pieces` are the lengths of the single writes, in order."""
        deadline = time.monotonic() + timeout
        start = 0
        for length in pieces or [len(data)]:
            view = memoryview(data)[start : start + length]
            start += length
            while view and not self.closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("the server stopped reading")
                readable, writable, _ = select.select([self.socket], [self.socket], [], left)
                if readable:
                    self._read()
                if writable and not self.closed:
                    try:
                        view = view[self.socket.send(view) :]
                    except BlockingIOError:
                        pass
                    except OSError:
                        self._drain()

    def read_until(self, done, timeout: float) -> bool:
        """Reads until `done(received)` holds or the server closes. False when the time ran out before."""
        deadline = time.monotonic() + timeout
        while not self.closed and not done(self.received):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                return False
            self._read()
        return True

    def read_until_quiet(self, seconds: float) -> None:
        """Reads until the server has said nothing for `seconds`."""
        while not self.closed and select.select([self.socket], [], [], seconds)[0]:
            self._read()

    def _read(self) -> None:
        try:
            data = self.socket.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.received += data
        else:
            self.closed = True

    def _drain(self) -> None:
        """After a failed write: what the server said before it closed is still to be read."""
        while not self.closed:
            if not select.select([self.socket], [], [], 0.2)[0]:
                self.closed = True
            else:
                self._read()
