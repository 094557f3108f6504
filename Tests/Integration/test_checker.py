"""The checker itself, against stores that are broken on purpose: a checker that never finds anything is none."""

from __future__ import annotations

import time
import unittest

from harness import workload
from harness.checker import Checker, Verdict


class CheckerTest(unittest.TestCase):
    def setUp(self) -> None:
        self.checker = Checker(["k"])

    def set(self, *, good: bool = True) -> bytes:
        number = self.checker.begin_write("k")
        if good:
            self.checker.acknowledged("k", number, time.monotonic())
        else:
            self.checker.failed("k", number)
        return workload.value("k", number, 120)

    def delete(self, *, good: bool = True) -> None:
        number = self.checker.begin_delete("k")
        if good:
            self.checker.acknowledged("k", number, time.monotonic(), deleted=True)
        else:
            self.checker.failed("k", number, deleted=True)

    def read(self, data: bytes | None) -> Verdict:
        return self.checker.read("k", self.checker.before_read("k"), data, "here")

    def test_a_key_that_was_never_set_is_a_miss(self) -> None:
        self.assertEqual(self.read(None), Verdict.MISS)

    def test_an_acknowledged_value_is_a_hit(self) -> None:
        self.assertEqual(self.read(self.set()), Verdict.HIT)

    def test_an_acknowledged_value_that_is_missing_is_lost(self) -> None:
        self.set()
        self.assertEqual(self.read(None), Verdict.LOST)
        self.assertEqual(self.checker.lost, 1)

    def test_an_older_value_is_stale(self) -> None:
        old = self.set()
        self.set()
        self.assertEqual(self.read(old), Verdict.STALE)
        self.assertEqual(self.checker.stale, 1)

    def test_a_deleted_value_is_stale(self) -> None:
        old = self.set()
        self.delete()
        self.assertEqual(self.read(None), Verdict.MISS)
        self.assertEqual(self.read(old), Verdict.STALE)

    def test_a_read_that_overlaps_a_write_may_see_either(self) -> None:
        old = self.set()
        before = self.checker.before_read("k")
        new = self.set()
        self.assertEqual(self.checker.read("k", before, old, "here"), Verdict.HIT)
        self.assertEqual(self.checker.read("k", before, new, "here"), Verdict.HIT)
        self.assertEqual(self.checker.read("k", before, None, "here"), Verdict.LOST)

    def test_a_read_that_overlaps_a_delete_may_see_either(self) -> None:
        old = self.set()
        before = self.checker.before_read("k")
        self.delete()
        self.assertEqual(self.checker.read("k", before, old, "here"), Verdict.HIT)
        self.assertEqual(self.checker.read("k", before, None, "here"), Verdict.MISS)

    def test_after_an_uncertain_write_both_values_are_fine(self) -> None:
        old = self.set()
        new = self.set(good=False)
        self.assertEqual(self.read(old), Verdict.HIT)
        self.assertEqual(self.read(new), Verdict.HIT)
        self.assertEqual(self.read(None), Verdict.LOST)
        self.assertEqual(self.checker.uncertain, 1)

    def test_after_an_uncertain_delete_both_are_fine(self) -> None:
        old = self.set()
        self.delete(good=False)
        self.assertEqual(self.read(old), Verdict.HIT)
        self.assertEqual(self.read(None), Verdict.MISS)

    def test_an_acknowledged_write_long_after_an_uncertain_one_ends_the_doubt(self) -> None:
        self.set()
        doubtful = self.set(good=False)
        number = self.checker.begin_write("k")
        self.checker.acknowledged("k", number, time.monotonic() + 60)
        self.assertEqual(self.read(doubtful), Verdict.STALE)
        self.assertEqual(self.checker.uncertain, 0)

    def test_a_damaged_value_is_foreign(self) -> None:
        data = bytearray(self.set())
        data[-1] ^= 1
        self.assertEqual(self.read(bytes(data)), Verdict.FOREIGN)

    def test_a_value_of_another_key_is_foreign(self) -> None:
        self.set()
        self.assertEqual(self.read(workload.value("other", 1, 120)), Verdict.FOREIGN)

    def test_a_value_from_the_future_is_foreign(self) -> None:
        self.set()
        self.assertEqual(self.read(workload.value("k", 2, 120)), Verdict.FOREIGN)
