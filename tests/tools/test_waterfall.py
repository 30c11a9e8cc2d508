"""The waterfall picture of a trace."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tools.tracing.spanvalue import SpanValue
from tools.tracing.waterfall import Row, duration, rows, waterfall

MS = 1_000_000


def span(
    span_id: str, parent_id: str, start: int, end: int, node: str = "edge-1", error: str | None = None
) -> SpanValue:
    return SpanValue("t", span_id, parent_id, f"op-{span_id}", "mesh-edge", node, 1, start, end, error=error)


def shape(found: list[Row]) -> list[tuple[str, int, int, int]]:
    return [(row.span.span_id, row.depth, row.offset, row.length) for row in found]


def test_children_follow_their_parent_by_start_time() -> None:
    spans = [
        span("d", "b", 30, 40), span("c", "a", 50, 100), span("b", "a", 10, 50), span("a", "elsewhere", 0, 100)
    ]  # fmt: skip
    assert shape(rows(spans, 10)) == [("a", 0, 0, 10), ("b", 1, 1, 4), ("d", 2, 3, 1), ("c", 1, 5, 5)]


def test_a_short_span_beside_a_long_one_has_a_bar() -> None:
    hour = 3_600_000_000_000
    found = rows([span("a", "", 0, hour), span("b", "a", hour - 1, hour)], 10)
    assert shape(found) == [("a", 0, 0, 10), ("b", 1, 9, 1)]


def test_no_spans_give_no_rows() -> None:
    assert rows([]) == []


def test_a_span_without_duration_has_a_bar() -> None:
    assert shape(rows([span("a", "", 5, 5)], 10)) == [("a", 0, 0, 1)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99), st.integers(0, 99)), max_size=12))
def test_every_span_is_shown_once_within_the_width(made: list[tuple[int, int, int, int]]) -> None:
    spans = [span(str(own), str(parent), start, start + length) for own, parent, start, length in made]
    found = rows(spans, 10)
    assert sorted(row.span.span_id for row in found) == sorted({one.span_id for one in spans})
    assert all(row.length >= 1 and row.offset >= 0 and row.offset + row.length <= 10 for row in found)


def test_a_trace_5000_spans_deep_is_shown() -> None:
    found = rows([span(str(number), str(number - 1), number, number + 1) for number in range(5000)])
    assert found[-1].depth == 4999


def test_the_waterfall_shows_spans_errors_and_bars() -> None:
    spans = [span("a", "", 0, 100 * MS), span("b", "a", 50 * MS, 75 * MS, "door-1", "Quota exceeded")]
    screen = io.StringIO()
    Console(file=screen, width=100).print(waterfall(spans, 8))
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert len(lines) == 3
    assert lines[1].split() == ["op-a", "edge-1", "100", "ms", "████████"]
    assert lines[2].split() == ["op-b", "Quota", "exceeded", "door-1", "25.0", "ms", "██"]
    assert lines[2].startswith("  op-b")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 µs"), (999, "1 µs"), (999_000, "999 µs"), (1_250_000, "1.25 ms"), (15_500_000, "15.5 ms"),
        (250_000_000, "250 ms"), (2_000_000_000, "2.00 s"), (90_000_000_000, "1.50 min"), (7_200_000_000_000, "2.00 h"),
    ],
)
def test_durations_are_for_people(nanoseconds: int, text: str) -> None:
    assert duration(nanoseconds) == text
