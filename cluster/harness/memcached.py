"""A memcached of its own, on a free loopback port, to compare with. Ends with its context."""

from __future__ import annotations

import functools
import os
import pwd
import socket
import subprocess
import time

from . import ports

PROGRAM = "/usr/bin/memcached"


@functools.cache
def version() -> str:
    """As `1.6.18`."""
    text = subprocess.run([PROGRAM, "-V"], capture_output=True, text=True, check=True).stdout
    return text.split()[-1]


class Server:
    def __init__(self, *arguments: str):
        self.arguments = arguments
        self.address = ("127.0.0.1", 0)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.address = ("127.0.0.1", ports.free(1)[0])
        command = [PROGRAM, "-l", "127.0.0.1", "-p", str(self.address[1]), "-U", "0", "-m", "256", "-t", "2"]
        if os.geteuid() == 0:
            command += ["-u", pwd.getpwnam("nobody").pw_name]
        self.process = subprocess.Popen(command + list(self.arguments), start_new_session=True)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(self.address, timeout=1).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError(f"memcached did not start on port {self.address[1]}") from None
                time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
