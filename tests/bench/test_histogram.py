"""Quantiles from the histogram's buckets, compared with those of the values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.bench.histogram import Histogram

VALUES = st.lists(st.integers(0, 1 << 39), min_size=1, max_size=200)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(VALUES, st.floats(0.0, 1.0))
def test_a_quantile_is_right_to_two_percent(values: list[int], share: float) -> None:
    histogram = filled(values)
    ranked = sorted(values)
    exact = next(value for place, value in enumerate(ranked, 1) if place >= share * len(ranked))
    assert exact <= histogram.quantile(share) <= exact * 1.02 + 1
    assert histogram.quantile(1.0) == max(values)


@given(VALUES, VALUES)
def test_histograms_of_several_processes_add_up(mine: list[int], theirs: list[int]) -> None:
    total, other = filled(mine), filled(theirs)
    total.add(other.buckets(), other.greatest)
    whole = filled(mine + theirs)
    assert (total.buckets(), total.count, total.greatest) == (whole.buckets(), whole.count, whole.greatest)


def test_values_out_of_range_are_kept_at_the_ends() -> None:
    histogram = filled([-5, 1 << 50])
    assert histogram.count == 2
    assert histogram.quantile(0.5) == 0
    histogram.clear()
    assert (histogram.count, histogram.buckets(), histogram.quantile(0.5)) == (0, [], 0)
