"""The same bytes to Henge and to a freshly started memcached, and the replies compared byte by byte.

    run.py --henge PATH          Henge beside memcached, then `memccapable -a` against Henge
    run.py --self-check          memcached beside memcached: checks the corpus itself, and that it marks every
                                 difference between 1.6.18 and 1.6.45 and no other

Every case runs twice: as one write per step, and cut into random pieces (seed printed, `--seed` repeats it). CAS
uniques differ between servers, so replies are compared with the unique masked, after checking that it is a number
from 1 to 2^63 - 1; cases that use one capture it from each server. The closing line says how many passed and failed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "cluster")]

import corpus  # noqa: E402
from harness import memcached, nodes  # noqa: E402
from wire import Wire  # noqa: E402

REPLY_TIMEOUT = 10.0
QUIET = 0.3
SENTINEL = b"version\r\n"
SENTINEL_ANSWER = re.compile(rb"VERSION [^\r\n]*\r\n\Z")
# memccapable's text tests; it prints one line for each, ending in [pass] or [FAIL].
MEMCCAPABLE = "/usr/bin/memccapable"


class Reply:
    """What a server answered to a case: the bytes with uniques masked, and whether it closed the connection."""

    def __init__(self, data: bytes, closed: bool, trouble: str = ""):
        self.data, self.closed, self.trouble = data, closed, trouble

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reply) and (self.data, self.closed, self.trouble) == (
            other.data,
            other.closed,
            other.trouble,
        )

    def show(self) -> str:
        text = self.data[:400].decode("latin-1").encode("unicode_escape").decode().replace("\\r\\n", "⏎")
        if len(self.data) > 400:
            text += f"… ({len(self.data)} bytes)"
        return text + (" <closed>" if self.closed else "") + (f" <{self.trouble}>" if self.trouble else "")


def play(case: corpus.Case, address: tuple[str, int], pieces: random.Random | None) -> Reply:
    """Runs a case against one server."""
    wire = Wire(address)
    uniques: dict[str, int] = {}
    replies = b""
    now = int(time.time())
    try:
        pending = b""
        for step in case.steps:
            if step.kind == "send":
                pending += corpus.expand(step.text, uniques, now)
                continue
            wire.send(pending, cut(pending, pieces))
            pending = b""
            if step.kind == "wait":
                time.sleep(step.seconds)
            else:
                answered, wire, unique = capture(case, wire, step, uniques, now)
                replies += answered
                uniques[step.name] = unique
        wire.send(pending, cut(pending, pieces))
        data, trouble = finish(case, wire)
        masked, unclear = mask(replies + data)
        return Reply(masked, wire.closed, trouble or unclear)
    except (TimeoutError, ValueError) as problem:
        return Reply(bytes(replies + wire.received), wire.closed, str(problem))
    finally:
        wire.close()


def finish(case: corpus.Case, wire: Wire) -> tuple[bytes, str]:
    """Reads the rest of a reply: up to the close, to silence, or to the answer to a closing `version`."""
    if case.closes:
        done = wire.read_until(lambda _: False, REPLY_TIMEOUT)
        return bytes(wire.received), "" if done else "did not close"
    if case.open:
        wire.read_until_quiet(QUIET)
        return bytes(wire.received), ""
    wire.send(SENTINEL)
    # A case may itself end in `version`: only the last answer is the closing one, and it comes alone.
    wanted = sentinel_count(case) + 1
    done = wire.read_until(lambda data: versions(data) >= wanted and SENTINEL_ANSWER.search(data), REPLY_TIMEOUT)
    if not done:
        return bytes(wire.received), "no answer to a closing version"
    return SENTINEL_ANSWER.sub(b"", bytes(wire.received)), ""


def sentinel_count(case: corpus.Case) -> int:
    return sum(kind == "match" and text.startswith("VERSION") for kind, text in case.expected or [])


def versions(data: bytes) -> int:
    return len(re.findall(rb"(?:\A|(?<=\n))VERSION [^\r\n]*\r\n", data))


def capture(
    case: corpus.Case, wire: Wire, step: corpus.Step, uniques: dict[str, int], now: int
) -> tuple[bytes, Wire, int]:
    """Asks for the CAS unique of a key on the case's own connection, after what was sent so far is answered."""
    before, trouble = finish(case, wire)
    if trouble:
        raise ValueError(trouble)
    wire.received.clear()
    wire.send(b"gets " + corpus.expand(step.text, uniques, now) + b"\r\n")
    if not wire.read_until(lambda data: data.endswith(b"END\r\n"), REPLY_TIMEOUT):
        raise ValueError("no answer to gets")
    match = re.match(rb"VALUE \S+ \d+ \d+ (\d+)\r\n", bytes(wire.received))
    if not match:
        raise ValueError(f"gets {step.text} answered {bytes(wire.received)!r}")
    wire.received.clear()
    return before, wire, int(match.group(1))


def mask(data: bytes) -> tuple[bytes, str]:
    """The reply with each CAS unique as `<cas>`; values are stepped over by their length, never searched."""
    result, position = bytearray(), 0
    while position < len(data):
        end = data.find(b"\r\n", position)
        if end < 0:
            break
        line = data[position:end]
        match = re.fullmatch(rb"(VALUE [^ ]+ \d+ (\d+)) (\d+)", line) or re.fullmatch(
            rb"(VALUE [^ ]+ \d+ (\d+))()", line
        )
        position = end + 2
        if not match:
            result += line + b"\r\n"
            continue
        if match.group(3) and not 1 <= int(match.group(3)) < 1 << 63:
            return data, f"CAS unique {match.group(3).decode()} is out of range"
        length = int(match.group(2)) + 2
        result += match.group(1) + (b" <cas>" if match.group(3) else b"") + b"\r\n"
        result += data[position : position + length]
        position += length
    return bytes(result + data[position:]), ""


def cut(data: bytes, pieces: random.Random | None) -> list[int] | None:
    """Lengths of random pieces: single bytes in small commands, at most 200 pieces in large ones."""
    if pieces is None or not data:
        return None
    longest = max(3, len(data) // 100)
    lengths, left = [], len(data)
    while left > 0:
        lengths.append(min(left, pieces.randint(1, longest)))
        left -= lengths[-1]
    return lengths


def matches(case: corpus.Case, reply: Reply) -> bool:
    """Whether a reply is what the case's own lines expect."""
    if reply.trouble or reply.closed != case.closes:
        return False
    pattern = b""
    for kind, text in case.expected or []:
        if kind == "match":
            pattern += text.encode("latin-1") + rb"\r\n"
        else:
            literal = corpus.expand(text.replace("<cas>", "\\x01"), {}, 0).replace(b"\x01", b"<cas>")
            pattern += re.escape(literal + (b"\r\n" if kind == "line" else b""))
    return re.fullmatch(pattern, reply.data, re.DOTALL) is not None


def judge(case: corpus.Case, henge: Reply | None, reference: Reply, old: bool) -> str:
    """An empty string, or what is wrong."""
    if case.expected is not None and old:
        if case.differs and matches(case, reference):
            return f"is marked as different in 1.6.18 ({case.differs}), but memcached answers as expected"
        if not case.differs and not matches(case, reference):
            return f"memcached answers otherwise than the case expects\n    memcached {reference.show()}"
    if henge is None:
        return f"memcached: {reference.trouble}" if reference.trouble and not case.differs else ""
    if case.expected is not None:
        if matches(case, henge):
            return ""
        wanted = "⏎".join(text[:200] for _, text in case.expected) + (" <closed>" if case.closes else "")
        return f"\n    expected  {wanted}\n    henge     {henge.show()}"
    if henge != reference or henge.trouble:
        return f"\n    memcached {reference.show()}\n    henge     {henge.show()}"
    return ""


def flush(address: tuple[str, int]) -> None:
    wire = Wire(address)
    try:
        wire.send(b"flush_all\r\n")
        if not wire.read_until(lambda data: data.endswith(b"\r\n"), REPLY_TIMEOUT) or wire.received != b"OK\r\n":
            raise SystemExit(f"flush_all at {address[1]} answered {bytes(wire.received)!r}")
    finally:
        wire.close()


class Comparison:
    def __init__(self, subject: tuple[str, int], reference: tuple[str, int], self_check: bool, seed: int):
        self.subject, self.reference, self.self_check, self.seed = subject, reference, self_check, seed
        self.old = memcached.version() == "1.6.18"
        self.passed = self.failed = 0

    def run(self, case: corpus.Case, pieces: bool) -> str:
        # The generator is the case's own, so that one case alone is cut as it is in a whole run.
        def generator() -> random.Random | None:
            return random.Random(f"{self.seed} {case.name}") if pieces else None

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first = pool.submit(play, case, self.reference, generator())
            second = pool.submit(play, case, self.subject, generator())
            reference, subject = first.result(), second.result()
        if self.self_check:
            problem = judge(case, None, reference, self.old)
            return problem or ("" if subject == reference else f"two memcached differ: {subject.show()}")
        return judge(case, subject, reference, self.old)

    def count(self, name: str, problem: str) -> None:
        if problem:
            self.failed += 1
            print(f"FAILED {name} {problem}", flush=True)
        else:
            self.passed += 1

    def all(self, cases: list[corpus.Case]) -> None:
        together = [case for case in cases if case.waits and not case.flushes]
        for pieces in (False, True):
            for case in cases:
                if case in together or (pieces and (case.whole or case.waits)):
                    continue
                flush(self.subject)
                flush(self.reference)
                self.count(case.place + (" (in pieces)" if pieces else ""), self.run(case, pieces))
        # Cases that only wait have keys of their own and wait together.
        if together:
            with concurrent.futures.ThreadPoolExecutor(len(together)) as pool:
                for case, problem in zip(together, pool.map(lambda case: self.run(case, False), together)):
                    self.count(case.place, problem)


# What memccapable refuses of 1.6.45: it sends `delete a b c d e` and wants an error, where surplus arguments are
# ignored (`delete k 0` comes from old clients).
MEMCCAPABLE_REFUSES = {"ascii delete", "ascii delete noreply"}


def memccapable(port: int, comparison: Comparison, refused: set[str]) -> None:
    """libmemcached's own conformance test, text part; `refused` are the tests that must fail."""
    done = subprocess.run(
        [MEMCCAPABLE, "-h", "127.0.0.1", "-p", str(port), "-a"], capture_output=True, text=True, timeout=120
    )
    # A test's name, then its result; where it failed, the result comes on a line of its own or not at all.
    names = re.findall(r"(ascii(?: [a-z]+)+)\s{2,}(\[pass\])?", done.stdout)
    for name, result in names:
        wanted = name not in refused
        comparison.count(f"memccapable {name}", "" if bool(result) == wanted else (result or "[FAIL]"))
    if len(names) < 20:
        comparison.count("memccapable", f"exit {done.returncode}: {(done.stdout + done.stderr)[-500:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--henge", help="the program to test")
    parser.add_argument("--self-check", action="store_true", help="memcached in the place of Henge")
    parser.add_argument("--seed", type=int, default=None, help="repeats the cuts of an earlier run")
    parser.add_argument("--case", default="", help="only cases whose file and name contain this")
    options = parser.parse_args()
    if bool(options.henge) == options.self_check:
        parser.error("exactly one of --henge and --self-check")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    cases = [case for case in corpus.load(HERE / "cases") if options.case in case.place]
    print(f"{len(cases)} cases, seed {seed}, beside memcached {memcached.version()}", flush=True)

    with memcached.Server() as reference, tempfile.TemporaryDirectory(prefix="henge-conformance-") as directory:
        if options.self_check:
            with memcached.Server() as subject:
                comparison = Comparison(subject.address, reference.address, True, seed)
                comparison.all(cases)
                if not options.case:
                    memccapable(subject.address[1], comparison, set())
        else:
            with nodes.Cluster(options.henge, 1, pathlib.Path(directory), seeds=False) as cluster:
                cluster.start_all()
                cluster.wait_ready()
                comparison = Comparison(cluster.nodes[0].client, reference.address, False, seed)
                comparison.all(cases)
                if not options.case:
                    memccapable(cluster.nodes[0].client[1], comparison, MEMCCAPABLE_REFUSES)
                if comparison.failed:
                    sys.stdout.write(cluster.log_tail("n1", 30))
    print(f"{comparison.passed} passed, {comparison.failed} failed")
    return 1 if comparison.failed else 0


if __name__ == "__main__":
    if not shutil.which("memcached") or not pathlib.Path(MEMCCAPABLE).exists():
        raise SystemExit("memcached and memccapable are needed: ops/setup installs them")
    sys.exit(main())
