"""A wall clock for each node: a library that is loaded into its process, and the file that says how far off it is.

A setting of the tests alone; the nodes know nothing of it. Time namespaces would not do: they move the monotonic clock
and leave the wall clock.
"""

from __future__ import annotations

import pathlib
import struct
import subprocess

SOURCE = pathlib.Path(__file__).resolve().with_name("clock.c")


def build(directory: pathlib.Path) -> pathlib.Path:
    library = directory / "clock.so"
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
    return library


class Clock:
    def __init__(self, library: pathlib.Path, file: pathlib.Path):
        self.library, self.file = library, file
        self.offset = 0.0

    @property
    def offset(self) -> float:
        """Seconds that the clock is ahead. Setting it moves the clock at once, also of a running process."""
        return self._offset

    @offset.setter
    def offset(self, seconds: float) -> None:
        self._offset = seconds
        # Opened without truncation: the process has the file mapped.
        mode = "r+b" if self.file.exists() else "xb"
        with open(self.file, mode) as file:
            file.write(struct.pack("=q", int(seconds * 1e9)))

    def launcher(self) -> list[str]:
        """What a command is to be preceded by."""
        return ["env", f"LD_PRELOAD={self.library}", f"CLOCK_OFFSET_FILE={self.file}"]
