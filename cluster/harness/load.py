"""A mixed load over all nodes through real client libraries, every answer checked.

Each thread has a connection to every node and goes on to the next node when one closes or dies, as an application with
a server list does. What is counted:

- asked: operations begun; answered: those that got a good answer, from whichever node;
- missed: reads that found nothing; lost: those of them whose item was acknowledged and not deleted;
- stale: reads that returned a value older than the last acknowledged write, or a deleted one;
- moved: attempts that ended with the connection (the node left, died, or restarted) and were made again elsewhere;
- errors: error lines and time-outs, each attempt, and operations that no node would answer; those of reads again
  as read_errors.
"""

from __future__ import annotations

import collections
import dataclasses
import random
import threading
import time
from typing import Any, Callable

from . import clients, workload
from .checker import Checker, Verdict

# An operation is given up after this long over all nodes; a single failure may stop writes for 1.5 s.
OPERATION_SECONDS = 10.0
RETRY_SECONDS = 0.02
# A node that did not take a connection is asked last for so long.
AVOID_SECONDS = 0.25


@dataclasses.dataclass
class Counts:
    asked: int = 0
    answered: int = 0
    missed: int = 0
    moved: int = 0
    errors: int = 0
    read_errors: int = 0
    longest: float = 0.0

    def add(self, other: Counts) -> None:
        for field in ("asked", "answered", "missed", "moved", "errors", "read_errors"):
            setattr(self, field, getattr(self, field) + getattr(other, field))
        self.longest = max(self.longest, other.longest)

    def line(self, checker: Checker | None = None) -> str:
        text = f"asked {self.asked:,}  answered {self.answered:,}  missed {self.missed:,}"
        if checker:
            text += f"  stale {checker.stale + checker.foreign:,}  lost {checker.lost:,}"
        return f"{text}  errors {self.errors:,}  moved {self.moved:,}  longest {self.longest * 1e3:,.0f} ms"


class Session:
    """One thread's connections, one to each node, and the rule of going on to the next."""

    def __init__(self, addresses: dict[str, tuple[str, int]], library: str, first: int = 0):
        self.connections = {name: clients.LIBRARIES[library](address) for name, address in addresses.items()}
        self._order = collections.deque(self.connections)
        self._order.rotate(-first)
        self._avoided: dict[str, float] = {}
        self.counts = Counts()
        self.trouble: collections.Counter[str] = collections.Counter()

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()

    def do(
        self,
        operation: Callable[[Any], Any],
        node: str | None = None,
        on_failure: Callable[[], None] = lambda: None,
        on_attempt: Callable[[], None] = lambda: None,
        weight: int = 1,
    ) -> tuple[Any, str] | None:
        """The answer and the node that gave it, or None when no node answered well in time.

        Starts with the next node in turn, or `node`. `on_failure` hears of each attempt that may have happened.
        A batch of several keys counts with its `weight`.
        """
        self._order.rotate(-1)
        started = time.monotonic()
        names = sorted(self._order, key=lambda name: (name != node, self._avoided.get(name, 0.0) > started))
        self.counts.asked += weight
        attempt = 0
        while True:
            name = names[attempt % len(names)]
            attempt += 1
            try:
                on_attempt()
                result = operation(self.connections[name])
                self.counts.answered += weight
                self.counts.longest = max(self.counts.longest, time.monotonic() - started)
                return result, name
            except clients.Gone as problem:
                self.counts.moved += 1
                self._avoided[name] = time.monotonic() + AVOID_SECONDS
                if not isinstance(problem, clients.Unreached):
                    on_failure()
            except clients.NodeError as problem:
                self.counts.errors += 1
                self.trouble[f"{name}: {problem}"[:200]] += 1
                on_failure()
            if time.monotonic() - started > OPERATION_SECONDS:
                self.counts.errors += 1
                self.trouble[f"no node answered within {OPERATION_SECONDS:g} s"] += 1
                return None
            if attempt % len(names) == 0:
                time.sleep(RETRY_SECONDS)


@dataclasses.dataclass
class Mix:
    """Shares of operations; the rest are reads."""

    sets: float = 0.12
    deletes: float = 0.03


class Worker:
    """One thread's part: reads any key, writes the keys whose number modulo `of` is its own."""

    def __init__(self, load: Load, index: int, library: str):
        self.load, self.index = load, index
        self.session = Session(load.addresses, library, first=index)
        self.chance = random.Random(f"{load.seed} {index}")
        self.thread = threading.Thread(target=self._run, name=f"load {index}", daemon=True)

    def _run(self) -> None:
        try:
            while not self.load.stopping.is_set():
                self.step()
                if self.load.pause:
                    time.sleep(self.load.pause)
        except Exception as problem:  # a fault of the load itself must fail the run, not end a thread silently
            self.load.broken.append(problem)
            raise
        finally:
            self.session.close()

    def step(self) -> None:
        load = self.load
        number = load.popularity.draw(self.chance)
        kind = self.chance.random()
        if kind < load.mix.sets + load.mix.deletes:
            # Its own key nearest to the one drawn.
            number = min(number - number % load.threads + self.index, len(load.keys) - 1)
            if number % load.threads != self.index:
                return
            key = load.keys[number]
            if kind < load.mix.sets:
                write(load.checker, self.session, key, load.sizes.draw(self.chance))
            else:
                delete(load.checker, self.session, key)
        else:
            read(load.checker, self.session, load.keys[number])


class Load:
    """A running load. A context: entering starts the threads, leaving stops and joins them."""

    def __init__(
        self,
        addresses: dict[str, tuple[str, int]],
        keys: list[str],
        checker: Checker,
        *,
        seed: int,
        libraries: tuple[str, ...] = ("pymemcache",),
        threads: int = 4,
        mix: Mix | None = None,
        pause: float = 0.0,
    ):
        self.addresses, self.keys, self.checker, self.seed = addresses, keys, checker, seed
        self.threads, self.mix, self.pause = threads, mix or Mix(), pause
        self.popularity, self.sizes = workload.Popularity(len(keys)), workload.Sizes()
        self.stopping = threading.Event()
        self.broken: list[Exception] = []
        self.workers = [Worker(self, index, libraries[index % len(libraries)]) for index in range(threads)]

    def __enter__(self) -> Load:
        for worker in self.workers:
            worker.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.stopping.set()
        for worker in self.workers:
            worker.thread.join()

    @property
    def counts(self) -> Counts:
        total = Counts()
        for worker in self.workers:
            total.add(worker.session.counts)
        return total

    @property
    def trouble(self) -> collections.Counter[str]:
        return sum((worker.session.trouble for worker in self.workers), collections.Counter())

    def progress(self, more: int, seconds: float = 60.0) -> None:
        """Waits until that many more operations were answered."""
        goal, deadline = self.counts.answered + more, time.monotonic() + seconds
        while self.counts.answered < goal:
            if self.broken:
                raise self.broken[0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"the load did not get {more} answers within {seconds:g} s: {self.counts.line()}")
            time.sleep(0.02)


def write(checker: Checker, session: Session, key: str, size: int, node: str | None = None) -> bool:
    """Sets the next value of a key; the same value goes to the next node until one acknowledges it."""
    number = checker.begin_write(key)
    data = workload.value(key, number, size)
    sent = [0.0]

    def on_attempt() -> None:
        sent[0] = time.monotonic()

    done = session.do(
        lambda connection: connection.set(key, data), node, lambda: checker.failed(key, number), on_attempt
    )
    if done:
        checker.acknowledged(key, number, sent[0])
    return done is not None


def delete(checker: Checker, session: Session, key: str, node: str | None = None) -> bool:
    number = checker.begin_delete(key)
    sent = [0.0]

    def on_attempt() -> None:
        sent[0] = time.monotonic()

    done = session.do(
        lambda connection: connection.delete(key),
        node,
        lambda: checker.failed(key, number, deleted=True),
        on_attempt,
    )
    if done:
        checker.acknowledged(key, number, sent[0], deleted=True)
    return done is not None


def read(checker: Checker, session: Session, key: str, node: str | None = None) -> Verdict | None:
    before, errors = checker.before_read(key), session.counts.errors
    done = session.do(lambda connection: connection.get(key), node)
    session.counts.read_errors += session.counts.errors - errors
    if done is None:
        return None
    data, name = done
    verdict = checker.read(key, before, data, f"{name} ({session.connections[name].library})")
    if data is None:
        session.counts.missed += 1
    return verdict


def fill(
    checker: Checker,
    addresses: dict[str, tuple[str, int]],
    keys: list[str],
    *,
    seed: int,
    library: str = "pymemcache",
    sizes: Callable[[random.Random], int] | None = None,
    batch: int = 100,
) -> Counts:
    """Stores a first value under every key, a thread a node, each its share, in batches. Raises on any failure."""
    draw = sizes or workload.Sizes().draw
    names = list(addresses)
    counts, problems = [Counts() for _ in names], []

    def share(index: int) -> None:
        connection = clients.LIBRARIES[library](addresses[names[index]])
        chance = random.Random(f"{seed} fill {index}")
        try:
            mine = keys[index :: len(names)]
            for start in range(0, len(mine), batch):
                part = mine[start : start + batch]
                numbers = {key: checker.begin_write(key) for key in part}
                values = {key: workload.value(key, numbers[key], draw(chance)) for key in part}
                counts[index].asked += len(part)
                began = time.monotonic()
                missing = connection.set_many(values)
                counts[index].longest = max(counts[index].longest, time.monotonic() - began)
                if missing:
                    raise clients.Refused(f"{len(missing)} of {len(part)} sets were not stored by {names[index]}")
                counts[index].answered += len(part)
                for key in part:
                    checker.acknowledged(key, numbers[key], began)
        except Exception as problem:
            problems.append(problem)
        finally:
            connection.close()

    run_all([lambda index=index: share(index) for index in range(len(names))])
    if problems:
        raise problems[0]
    total = Counts()
    for part in counts:
        total.add(part)
    return total


def sweep(
    checker: Checker,
    addresses: dict[str, tuple[str, int]],
    keys: list[str],
    *,
    library: str = "pymemcache",
    batch: int = 100,
) -> Counts:
    """Reads every key once through every node, a thread a node.

    One by one with pylibmc, whatever `batch` says: its multi-get reports a dead node as missing keys.
    """
    counts, problems = [], []
    if library == "pylibmc":
        batch = 1

    def some(session: Session, name: str, part: list[str]) -> None:
        before = {key: checker.before_read(key) for key in part}
        errors = session.counts.errors
        done = session.do(lambda connection: connection.get_many(part), weight=len(part))
        session.counts.read_errors += session.counts.errors - errors
        if done is None:
            return
        for key in part:
            data = done[0].get(key)
            checker.read(key, before[key], data, f"sweep of {name}")
            session.counts.missed += data is None

    def all_of(name: str) -> None:
        # Only this node: a sweep through a node must not be answered by another.
        session = Session({name: addresses[name]}, library)
        try:
            for start in range(0, len(keys), batch):
                if batch == 1:
                    read(checker, session, keys[start])
                else:
                    some(session, name, keys[start : start + batch])
        except Exception as problem:
            problems.append(problem)
        finally:
            counts.append(session.counts)
            session.close()

    run_all([lambda name=name: all_of(name) for name in addresses])
    if problems:
        raise problems[0]
    total = Counts()
    for part in counts:
        total.add(part)
    return total


def run_all(jobs: list[Callable[[], None]]) -> None:
    """Runs the jobs in a thread each and returns when all have ended."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
