"""Runs the tests against real `henge` processes on loopback: run.py --henge PATH [--seed N] [NAME…].

A NAME is a part of a test's name. A line a test with its time and its counts; the closing line says how many passed
and failed.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import re
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "cluster")]

import support  # noqa: E402


class Result(unittest.TestResult):
    passed = failed = passed_over = 0

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.began = time.monotonic()
        support.reports.clear()
        self.problems: list[str] = []
        self.reason = ""

    def addError(self, test: unittest.TestCase, err) -> None:
        if not isinstance(test, unittest.TestCase):
            # A class that could not be set up: none of its tests ran, and none of them speaks for itself.
            print(f"             FAILED  {test}\n{self._exc_info_to_string(err, test)}", flush=True)
            self.failed += 1
            return
        self.problems.append(self._exc_info_to_string(err, test))

    addFailure = addError

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.reason = reason

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err) -> None:
        if err is not None:
            self.problems.append(self._exc_info_to_string(err, test))

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        name = re.sub(r"^test ", "", test.id().rpartition(".")[2].replace("_", " "))
        outcome = "FAILED " if self.problems else "skipped" if self.reason else "ok     "
        print(f"{time.monotonic() - self.began:7.1f} s  {outcome} {name}{': ' if self.reason else ''}{self.reason}")
        for line in support.reports:
            print(f"             {line}")
        for problem in self.problems:
            print("             " + problem.rstrip().replace("\n", "\n             "))
        sys.stdout.flush()
        if self.problems:
            self.failed += 1
        elif self.reason:
            self.passed_over += 1
        else:
            self.passed += 1


def tests_of(suite: unittest.TestSuite):
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from tests_of(part)
        else:
            yield part


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--henge", required=True, help="the program to test")
    parser.add_argument("--seed", type=int, default=None, help="repeats the load of an earlier run")
    parser.add_argument("names", nargs="*", help="parts of test names; all tests without")
    options = parser.parse_args()
    support.henge = options.henge
    support.seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {support.seed}", flush=True)
    found = unittest.TestLoader().discover(str(HERE), pattern="test_*.py", top_level_dir=str(HERE))
    result = Result()
    names = [name.replace("_", " ") for name in options.names]
    chosen = [
        test for test in tests_of(found) if not names or any(name in test.id().replace("_", " ") for name in names)
    ]
    unittest.TestSuite(chosen).run(result)
    if result.passed_over:
        print(f"{result.passed_over} skipped")
    print(f"{result.passed} passed, {result.failed} failed")
    return 0 if result.passed and not result.failed else 1


if __name__ == "__main__":
    sys.exit(main())
