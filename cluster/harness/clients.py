"""Two real memcache client libraries behind one small face: a connection to one node.

`Gone` means that the connection ended (the node closed it, died, or refuses a new one): whether the request was
carried out is not known, unless it is `Unreached`. `Late` means that no answer came in time, `Refused` that the answer
was an error line. Everything else is an answer.
"""

from __future__ import annotations

import socket
from typing import Any

import pylibmc
import pymemcache.client.base
import pymemcache.exceptions

CONNECT_SECONDS = 1.0
# Longer than the longest pause that a single failure may cause (DESIGN, promise P6), so a late answer is a fault.
ANSWER_SECONDS = 5.0


class NodeError(Exception):
    """The request has no good answer."""


class Gone(NodeError):
    pass


class Unreached(Gone):
    """There was no connection to begin with: the request was certainly not carried out."""


class Late(NodeError):
    pass


class Refused(NodeError):
    pass


class Pymemcache:
    """python3-pymemcache: pure Python, text protocol."""

    library = "pymemcache"

    def __init__(self, address: tuple[str, int]):
        self.address = address
        self._client = pymemcache.client.base.Client(
            address, connect_timeout=CONNECT_SECONDS, timeout=ANSWER_SECONDS, no_delay=True, default_noreply=False
        )

    def close(self) -> None:
        self._client.close()

    def get(self, key: str) -> bytes | None:
        return self._call(self._client.get, key)

    def get_many(self, keys: list[str]) -> dict[str, bytes]:
        return self._call(self._client.get_many, keys)

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        return self._call(self._client.gets, key)

    def set(self, key: str, value: bytes, expire: int = 0) -> None:
        if not self._call(self._client.set, key, value, expire=expire):
            raise Refused("set was not stored")

    def set_many(self, values: dict[str, bytes]) -> list[str]:
        """Returns the keys that were not stored."""
        return self._call(self._client.set_many, values)

    def add(self, key: str, value: bytes) -> bool:
        return self._call(self._client.add, key, value)

    def cas(self, key: str, value: bytes, unique: Any) -> bool:
        """False when the value changed meanwhile or is gone."""
        return bool(self._call(self._client.cas, key, value, unique))

    def delete(self, key: str) -> bool:
        """Whether there was something to delete."""
        return self._call(self._client.delete, key)

    def incr(self, key: str, delta: int = 1) -> int | None:
        return self._call(self._client.incr, key, delta)

    def decr(self, key: str, delta: int = 1) -> int | None:
        return self._call(self._client.decr, key, delta)

    def touch(self, key: str, expire: int) -> bool:
        return self._call(self._client.touch, key, expire)

    def flush(self) -> None:
        if not self._call(self._client.flush_all):
            raise Refused("flush_all")

    def stats(self, *arguments: str) -> dict[bytes, Any]:
        return self._call(self._client.stats, *arguments)

    def _call(self, function: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except pymemcache.exceptions.MemcacheUnexpectedCloseError as problem:
            raise Gone(str(problem)) from problem
        except pymemcache.exceptions.MemcacheError as problem:
            self._client.close()
            raise Refused(f"{type(problem).__name__}: {problem}") from problem
        except socket.timeout as problem:
            self._client.close()
            raise Late(str(problem)) from problem
        except ConnectionRefusedError as problem:
            self._client.close()
            raise Unreached(str(problem)) from problem
        except OSError as problem:
            self._client.close()
            raise Gone(str(problem)) from problem


class Pylibmc:
    """python3-pylibmc: libmemcached, text protocol."""

    library = "pylibmc"

    def __init__(self, address: tuple[str, int]):
        self.address = address
        self._client: Any = None

    def _open(self) -> Any:
        # libmemcached remembers a dead server for a while; a new client asks anew.
        return pylibmc.Client(
            [f"{self.address[0]}:{self.address[1]}"],
            binary=False,
            behaviors={
                "cas": True,
                "tcp_nodelay": True,
                "connect_timeout": int(CONNECT_SECONDS * 1e3),
                "receive_timeout": int(ANSWER_SECONDS * 1e6),
                "send_timeout": int(ANSWER_SECONDS * 1e6),
                "_poll_timeout": int(ANSWER_SECONDS * 1e3),
            },
        )

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect_all()
            self._client = None

    def get(self, key: str) -> bytes | None:
        return self._call("get", key)

    def get_many(self, keys: list[str]) -> dict[str, bytes]:
        return self._call("get_multi", keys)

    def gets(self, key: str) -> tuple[bytes | None, Any]:
        return self._call("gets", key)

    def set(self, key: str, value: bytes, expire: int = 0) -> None:
        if not self._call("set", key, value, time=expire):
            raise Refused("set was not stored")

    def set_many(self, values: dict[str, bytes]) -> list[str]:
        """Returns the keys that were not stored."""
        return self._call("set_multi", values)

    def add(self, key: str, value: bytes) -> bool:
        return self._call("add", key, value)

    def cas(self, key: str, value: bytes, unique: Any) -> bool:
        """False when the value changed meanwhile or is gone."""
        try:
            return bool(self._call("cas", key, value, unique))
        except pylibmc.NotFound:
            return False

    def delete(self, key: str) -> bool:
        """Whether there was something to delete."""
        return self._call("delete", key)

    def incr(self, key: str, delta: int = 1) -> int | None:
        return self._number("incr", key, delta)

    def decr(self, key: str, delta: int = 1) -> int | None:
        return self._number("decr", key, delta)

    def touch(self, key: str, expire: int) -> bool:
        return self._call("touch", key, expire)

    def flush(self) -> None:
        if not self._call("flush_all"):
            raise Refused("flush_all")

    def _number(self, name: str, key: str, delta: int) -> int | None:
        try:
            return self._call(name, key, delta)
        except pylibmc.NotFound:
            return None

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        if self._client is None:
            self._client = self._open()
        try:
            return getattr(self._client, name)(*arguments, **named)
        except pylibmc.NotFound:
            raise
        except (pylibmc.ServerError, pylibmc.ClientError, pylibmc.ProtocolError) as problem:
            self.close()
            raise Refused(f"{type(problem).__name__}: {problem}") from problem
        except pylibmc.Error as problem:
            self.close()
            text = f"{type(problem).__name__}: {problem}"
            if "Connection refused" in text:
                raise Unreached(text) from problem
            raise (Late if "TIMEOUT" in text.upper() else Gone)(text) from problem


LIBRARIES = {client.library: client for client in (Pymemcache, Pylibmc)}
