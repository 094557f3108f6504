"""Network namespaces, by the kernel's calls.

No namespace here has a name under /run/netns, as those of `ip netns add` have: such a name outlives whoever made it.
One without a name lives as long as a process is in it or has it open, so the kernel removes it, its interfaces and its
routes once those processes are gone, whatever they died of.
"""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def current() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def make() -> int:
    """Moves the calling thread into a new, empty namespace; returns its descriptor."""
    _call("unshare", CLONE_NEWNET)
    return current()


def enter(descriptor: int) -> None:
    """Moves the calling thread, and with it all threads and processes that it starts from now on."""
    _call("setns", descriptor, CLONE_NEWNET)
