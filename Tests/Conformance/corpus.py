"""The corpus: cases of bytes to send, read from the text files in `cases/`.

    case a value is read back            starts a case; the rest of the line is its name
    > set k 0 0 5                        sends the text and \\r\\n
    >| half a li                         sends the text alone
    pause                                lets 50 ms pass, so that what follows comes in another packet
    wait 2.1                             lets that many seconds pass
    capture one k                        asks `gets k` and keeps the CAS unique, each server's own, as {cas one}
    < STORED                             expects exactly this line (and \\r\\n) as the next of the whole reply
    <| STORED                            expects the text alone
    <~ VERSION 1\\.6\\.45\\S*              expects a line that matches
    silent                               expects no reply at all
    1.6.18: says ERROR                   memcached 1.6.18 is known to answer otherwise than the lines above, and how
    closes                               the server ends the connection after the last reply
    open                                 the case ends inside a command: wait for silence, not for a closing answer
    whole                                not to be repeated with the bytes cut into pieces

A case without `<` lines expects what memcached answers. One with them expects them of both, and of Henge alone where
a `1.6.18:` line says that the old server differs. Lines that start with `#` are comments.

Escapes in texts: \\r \\n \\t \\0 \\\\ \\s (a space) \\xHH; {x*300} is `x` 300 times; {now+60} Unix time in a minute;
{cas one} and {cas one+1} a captured unique.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re

ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\", "s": " "}


@dataclasses.dataclass
class Step:
    """One thing to do: `send` (text), `wait` (seconds) or `capture` (name, key)."""

    kind: str
    text: str = ""
    seconds: float = 0.0
    name: str = ""


@dataclasses.dataclass
class Case:
    name: str
    file: str
    line: int
    steps: list[Step] = dataclasses.field(default_factory=list)
    # ("line" | "raw" | "match", text); None where memcached's own answer is the expectation.
    expected: list[tuple[str, str]] | None = None
    differs: str = ""
    closes: bool = False
    open: bool = False
    whole: bool = False

    @property
    def waits(self) -> bool:
        return any(step.kind == "wait" and step.seconds >= 0.5 for step in self.steps)

    @property
    def flushes(self) -> bool:
        return any("flush_all" in step.text for step in self.steps)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}: {self.name}"


class CorpusError(Exception):
    pass


def load(directory: pathlib.Path) -> list[Case]:
    """All cases of all files, in the order of the files' names."""
    cases: list[Case] = []
    for path in sorted(directory.glob("*.txt")):
        cases += parse(path.read_text(encoding="utf-8"), path.name)
    seen: dict[str, Case] = {}
    for case in cases:
        if case.name in seen:
            raise CorpusError(f"{case.place}: there is a case of that name at {seen[case.name].place}")
        seen[case.name] = case
    return cases


def parse(text: str, file: str) -> list[Case]:
    cases: list[Case] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "case":
            cases.append(Case(rest, file, number))
            continue
        if not cases:
            raise CorpusError(f"{file}:{number}: text before the first case")
        _add(cases[-1], word, rest, f"{file}:{number}")
    for case in cases:
        if not case.steps:
            raise CorpusError(f"{case.place}: sends nothing")
        if case.differs and case.expected is None:
            raise CorpusError(f"{case.place}: differs from 1.6.18, but does not say what is expected")
    return cases


def _add(case: Case, word: str, rest: str, place: str) -> None:
    if word == ">":
        case.steps.append(Step("send", text=rest + "\\r\\n"))
    elif word == ">|":
        case.steps.append(Step("send", text=rest))
    elif word in ("<", "<|", "<~"):
        kind = {"<": "line", "<|": "raw", "<~": "match"}[word]
        case.expected = (case.expected or []) + [(kind, rest)]
    elif word == "silent":
        case.expected = []
    elif word == "pause":
        case.steps.append(Step("wait", seconds=0.05))
    elif word == "wait":
        case.steps.append(Step("wait", seconds=float(rest)))
    elif word == "capture":
        name, key = rest.split(" ")
        case.steps.append(Step("capture", text=key, name=name))
    elif word == "1.6.18:":
        case.differs = rest
    elif word in ("closes", "open", "whole"):
        setattr(case, word, True)
    else:
        raise CorpusError(f"{place}: what is '{word}'?")


def expand(text: str, uniques: dict[str, int], now: int) -> bytes:
    """The bytes that a text of the corpus stands for."""

    def one(match: re.Match[str]) -> str:
        whole = match.group(0)
        if whole.startswith("\\x"):
            return chr(int(whole[2:], 16))
        if whole.startswith("\\"):
            return ESCAPES[whole[1]]
        if match.group("times"):
            return match.group("unit") * int(match.group("times"))
        if match.group("clock"):
            return str(now + int(match.group("clock")))
        return str(uniques[match.group("unique")] + int(match.group("more") or 0))

    pattern = (
        r"\\x[0-9A-Fa-f]{2}|\\[rnt0\\s]|\{(?P<unit>[^{}*]+)\*(?P<times>\d+)\}|\{now(?P<clock>[+-]\d+)\}"
        r"|\{cas (?P<unique>\w+)(?P<more>[+-]\d+)?\}"
    )
    return re.sub(pattern, one, text).encode("latin-1")
