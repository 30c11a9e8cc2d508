"""The comparison as a picture for docs/benchmarks.md: a bar for each row, and a mark at the ratio that is required.

It knows ratios and names only. It is SVG without scripts, fonts or other files.
"""

from __future__ import annotations

import statistics
from typing import Any

WIDTH = 760
NAME = 170  # pixels for the names
ROW = 24
TOP = 34
SCALE = 80  # pixels for a ratio of 1
MOST = (WIDTH - NAME - 60) / SCALE  # the ratio at the right edge

FONT = 'font-family="sans-serif" font-size="13"'
HELD, SHORT, INK, PALE = "#2f7d4f", "#c2662d", "#222222", "#888888"


def picture(rows: list[dict[str, Any]]) -> str:
    """The picture of the rows of a comparison."""
    shown = [row for row in rows if row["ratios"]]
    height = TOP + ROW * len(shown) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" {FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{NAME}" y="18" fill="{INK}">times better than the peer; the mark is what was asked for</text>',
    ]
    for number, row in enumerate(shown):
        parts += _bar(row, TOP + ROW * number)
    one = NAME + SCALE
    parts.append(f'<line x1="{one}" y1="{TOP - 6}" x2="{one}" y2="{height - 8}" stroke="{PALE}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(row: dict[str, Any], top: int) -> list[str]:
    middle, asked = statistics.median(row["ratios"]), row["asked"]
    width = min(middle, MOST) * SCALE
    mark = NAME + asked * SCALE
    colour = HELD if middle >= asked else SHORT
    return [
        f'<text x="{NAME - 8}" y="{top + 13}" text-anchor="end" fill="{INK}">{row["name"]}</text>',
        f'<rect x="{NAME}" y="{top + 2}" width="{width:.0f}" height="{ROW - 9}" fill="{colour}"/>',
        f'<line x1="{mark:.0f}" y1="{top - 1}" x2="{mark:.0f}" y2="{top + ROW - 4}" stroke="{INK}" stroke-width="2"/>',
        f'<text x="{NAME + width + 6:.0f}" y="{top + 13}" fill="{INK}">{middle:.2f}</text>',
    ]
