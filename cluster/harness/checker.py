"""What a reader may see: the record of every key that the load writes, and the judgement of every read.

The rule under test (DESIGN, promise P2): no read returns a value older than the last acknowledged write or delete of
its key, and no acknowledged, undeleted item is missing. Each write and delete of a key takes the key's next number,
and each value carries its own, so age is a comparison of numbers.

- A write that was acknowledged makes all lower numbers stale, for reads that start after the acknowledgement.
- A write without an acknowledgement (an error line, a time-out, a connection that died) is *uncertain*: both what was
  there and what it wrote are fine, for every later read, until a later write is acknowledged. Such a request may still
  be on its way between two nodes while the next ones are sent, so what it wrote stays fine until a write that began
  `AFTERMATH_SECONDS` later is acknowledged.
- A read that overlaps a write may see either.

A key is written by one thread at a time (that thread's own keys), read by all.
"""

from __future__ import annotations

import dataclasses
import enum
import threading
import time

from . import workload

# How long a request whose sender gave up may still take effect somewhere.
AFTERMATH_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Uncertain:
    number: int
    deleted: bool
    since: float


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a key at one moment. Immutable: a reader keeps the one from before its read."""

    number: int = 0
    deleted: bool = True
    uncertain: tuple[Uncertain, ...] = ()


@dataclasses.dataclass
class Record:
    key: str
    known: Known = Known()
    # The highest number given to a write or delete, and the highest given to a delete: those may be in flight.
    issued: int = 0
    issued_delete: int = 0


class Verdict(enum.Enum):
    HIT = "hit"
    MISS = "miss"
    """Nothing found, and rightly so: never stored, deleted, or not known for sure."""
    STALE = "stale"
    LOST = "lost"
    FOREIGN = "foreign"
    """A value that nobody wrote to this key: damaged, of another key, or from the future."""


@dataclasses.dataclass
class Finding:
    verdict: Verdict
    key: str
    text: str


class Checker:
    def __init__(self, keys: list[str]):
        self.records = {key: Record(key) for key in keys}
        self.findings: list[Finding] = []
        self.stale = self.lost = self.foreign = 0
        self._lock = threading.Lock()

    def begin_write(self, key: str) -> int:
        """The number for the next value of a key."""
        record = self.records[key]
        record.issued += 1
        return record.issued

    def begin_delete(self, key: str) -> int:
        record = self.records[key]
        # The second first: whoever sees the number as given must also see that it is a delete.
        record.issued_delete = record.issued + 1
        record.issued += 1
        return record.issued

    def acknowledged(self, key: str, number: int, started: float, *, deleted: bool = False) -> None:
        """A write or delete was answered well; `started` is the monotonic time at which it was (last) sent."""
        record = self.records[key]
        still = tuple(
            other
            for other in record.known.uncertain
            if other.number <= number and started - other.since < AFTERMATH_SECONDS
        )
        record.known = Known(number, deleted, still)

    def failed(self, key: str, number: int, *, deleted: bool = False) -> None:
        """A write or delete was not answered, or with an error: whether it happened is not known."""
        record = self.records[key]
        known = record.known
        uncertain = tuple(other for other in known.uncertain if other.number != number)
        record.known = dataclasses.replace(
            known, uncertain=(*uncertain, Uncertain(number, deleted, time.monotonic()))
        )

    def before_read(self, key: str) -> Known:
        return self.records[key].known

    def read(self, key: str, before: Known, data: bytes | None, where: str) -> Verdict:
        """Judges what a read found, given what was known before it was sent."""
        record = self.records[key]
        if data is None:
            if self._may_be_absent(record, before):
                return Verdict.MISS
            return self._found(Verdict.LOST, key, f"{where}: nothing; number {before.number} is acknowledged")
        number = workload.read_value(key, data)
        if number is None:
            return self._found(Verdict.FOREIGN, key, f"{where}: not a value of this key: {data[:60]!r}")
        if number > record.issued:
            return self._found(Verdict.FOREIGN, key, f"{where}: number {number}, only {record.issued} were written")
        if number >= before.number and not (number == before.number and before.deleted):
            return Verdict.HIT
        if any(other.number == number and not other.deleted for other in before.uncertain):
            return Verdict.HIT
        what = "deleted" if before.deleted else "replaced"
        return self._found(
            Verdict.STALE, key, f"{where}: number {number}, {what} by number {before.number} before the read began"
        )

    def _may_be_absent(self, record: Record, before: Known) -> bool:
        if before.deleted or any(other.deleted for other in before.uncertain):
            return True
        return record.issued_delete > before.number

    def _found(self, verdict: Verdict, key: str, text: str) -> Verdict:
        with self._lock:
            name = verdict.value
            setattr(self, name, getattr(self, name) + 1)
            if len(self.findings) < 50:
                self.findings.append(Finding(verdict, key, text))
        return verdict

    @property
    def uncertain(self) -> int:
        """How many keys are not known for sure now."""
        return sum(
            any(other.number > record.known.number for other in record.known.uncertain)
            for record in self.records.values()
        )

    @property
    def present(self) -> list[str]:
        """The keys that must be there now."""
        return [
            key
            for key, record in self.records.items()
            if not record.known.deleted and not any(other.deleted for other in record.known.uncertain)
        ]
