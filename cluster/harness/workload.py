"""Keys, sizes and values like those of a production cache, from tables with their origin in `cluster/data`.

Everything is drawn from a seeded generator: the same seed gives the same sizes and the same sequence of keys.
"""

from __future__ import annotations

import bisect
import itertools
import pathlib
import random

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
# The largest value drawn; a few in ten thousand of the histogram are larger.
VALUE_BYTES_MAX = 200_000


def _table(name: str) -> list[tuple[int, int]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [(int(a), int(b)) for a, b in (line.split("\t") for line in lines if not line.startswith("#"))]


class Sizes:
    """Draws value sizes: a range by its weight, then evenly within it."""

    def __init__(self) -> None:
        rows = _table("value-sizes.tsv")
        self._bounds = [bound for bound, _ in rows] + [rows[-1][0] + 32]
        self._sums = list(itertools.accumulate(weight for _, weight in rows))

    def draw(self, chance: random.Random) -> int:
        index = bisect.bisect_right(self._sums, chance.randrange(self._sums[-1]))
        return min(chance.randrange(self._bounds[index], self._bounds[index + 1]), VALUE_BYTES_MAX)


class Popularity:
    """Draws key numbers below `count`: a bucket of the histogram by its requests, then one of its keys evenly.

    The histogram has ten million keys. Its buckets keep their order and requests and get fewer keys each, down to one,
    so the head stays as hot as it was.
    """

    def __init__(self, count: int) -> None:
        rows = _table("key-popularity.tsv")
        total = sum(keys for keys, _ in rows)
        first, self._first, self._keys, weights = 0, [], [], []
        for keys, requests in rows:
            scaled = max(1, round(keys * count / total))
            if first >= count:
                break
            scaled = min(scaled, count - first)
            self._first.append(first)
            self._keys.append(scaled)
            weights.append(requests)
            first += scaled
        # Rounding can leave keys over: the last, coldest bucket takes them.
        self._keys[-1] += count - first
        self._sums = list(itertools.accumulate(weights))

    def draw(self, chance: random.Random) -> int:
        index = bisect.bisect_right(self._sums, chance.randrange(self._sums[-1]))
        return self._first[index] + chance.randrange(self._keys[index])


# What values are filled with: bytes of every kind, line ends and commands among them.
_FILLING = random.Random(20).randbytes(VALUE_BYTES_MAX) + b"\r\nEND\r\nget a\r\n"


def value(key: str, counter: int, size: int) -> bytes:
    """A value that tells its key and its number, `size` bytes long (or as long as its head, if that is longer)."""
    head = f"{key} {counter} {size} ".encode()
    return head + _FILLING[: size - len(head)] if size > len(head) else head


def read_value(key: str, data: bytes) -> int | None:
    """The number in a value, or None when the value is not one that was made for this key, whole and unchanged."""
    parts = data[:80].split(b" ", 3)
    if len(parts) != 4 or parts[0] != key.encode() or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    counter = int(parts[1])
    return counter if data == value(key, counter, int(parts[2])) else None
