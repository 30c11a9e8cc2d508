"""The histogram of durations."""

from __future__ import annotations

import pytest

from mesh.figures.timing import Timing


def test_each_duration_is_counted_in_its_bucket() -> None:
    timing = Timing(6, 8)  # 64, 128 and 256 µs
    for seconds in (0.0, 63e-6, 65e-6, 127e-6, 200e-6, 300e-6, 1e9):
        timing.record(seconds)
    found = timing.value()
    assert found.bounds == (64e-6, 128e-6, 256e-6)
    assert found.counts == (2, 2, 1, 2)
    assert found.count == 7
    assert found.total == pytest.approx(1e9)


def test_negative_duration_counts_as_zero() -> None:
    timing = Timing(6, 8)
    timing.record(-5.0)
    assert timing.value().counts == (1, 0, 0, 0)
    assert timing.value().total == 0.0


def test_value_is_immutable() -> None:
    timing = Timing(6, 8)
    before = timing.value()
    timing.record(0.0)
    assert before.count == 0
    assert timing.value().count == 1
