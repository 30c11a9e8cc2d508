"""One trace as a waterfall for a terminal: which span called which, when, and for how long.

It knows span values and nothing of their source. What always holds: every span is shown once, even if its parent is
missing or its parents form a circle; the same spans give the same picture in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from rich.table import Table
from rich.text import Text

from tools.tracing.spanvalue import SpanValue

WIDTH: Final = 40  # cells of the bars; with names, nodes and times a line fits into 120 columns

_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
_STEPS: Final = ((1_000_000_000 * 3600, "h"), (1_000_000_000 * 60, "min"), (1_000_000_000, "s"), (1_000_000, "ms"))


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A span with its ``depth`` below the root, and its bar: ``length`` cells (at least one) from cell ``offset``."""

    span: SpanValue
    depth: int
    offset: int
    length: int


def rows(spans: Sequence[SpanValue], width: int = WIDTH) -> list[Row]:
    """The spans as a tree, each followed by its children in the order of their start; the whole trace is ``width``
    cells wide.
    """
    if not spans:
        return []
    ordered = sorted({span.span_id: span for span in spans}.values(), key=lambda span: (span.start_ns, span.span_id))
    begin = ordered[0].start_ns
    total = max(1, max(span.end_ns for span in ordered) - begin)
    return [
        Row(span, depth, *_bar(span.start_ns - begin, span.duration_ns, total, width)) for span, depth in _tree(ordered)
    ]


def waterfall(spans: Sequence[SpanValue], width: int = WIDTH) -> Table:
    """The picture, to be printed with rich: a colour for each node, red for failed spans."""
    shown = rows(spans, width)
    colours = _colours(shown)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("span", no_wrap=True)
    table.add_column("node", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in shown:
        span = row.span
        colour = "red" if span.error is not None else colours[span.node]
        name = Text("  " * row.depth + span.name)
        if span.error is not None:
            name.append(f"  {span.error}", "red")
        bar = Text(" " * row.offset + "█" * row.length, colour)
        table.add_row(name, Text(span.node, colour), duration(span.duration_ns), bar)
    return table


def duration(nanoseconds: int) -> str:
    """A duration as text, such as ``1.25 ms``, with three significant digits."""
    for size, unit in _STEPS:
        if nanoseconds >= size:
            value = nanoseconds / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{nanoseconds / 1000:.0f} µs"


def _bar(start: int, length: int, total: int, width: int) -> tuple[int, int]:
    offset = min(width - 1, start * width // total)
    return offset, max(1, min(width - offset, round(length * width / total)))


def _colours(shown: list[Row]) -> dict[str, str]:
    nodes = dict.fromkeys(row.span.node for row in shown)
    return {node: _COLOURS[place % len(_COLOURS)] for place, node in enumerate(nodes)}


def _tree(ordered: list[SpanValue]) -> list[tuple[SpanValue, int]]:
    """Depth first, without recursion, because a received trace may be very deep."""
    known = {span.span_id for span in ordered}
    children: dict[str, list[SpanValue]] = {}
    for span in ordered:
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    found: list[tuple[SpanValue, int]] = []
    seen: set[str] = set()
    # After the roots all spans again: those not reached yet belong to a circle.
    pending = [(span, 0) for span in (*reversed(ordered), *reversed(children.get("", [])))]
    while pending:
        span, depth = pending.pop()
        if span.span_id not in seen:
            seen.add(span.span_id)
            found.append((span, depth))
            pending.extend((below, depth + 1) for below in reversed(children.get(span.span_id, [])))
    return found
