"""docs/limits.md says of every limit what happens there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from mesh.topology.topology import InboxSpec, LimitsSpec

DOCS = Path(__file__).parents[2] / "docs"
COLUMNS = 4


def rows() -> dict[str, list[str]]:
    """The cells of each row of the page, by the keys that its first cell names."""
    found: dict[str, list[str]] = {}
    for line in (DOCS / "limits.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for key in re.findall(r"`([a-z_.]+)`", cells[0]) if line.startswith("| `") else []:
            assert key not in found, f"{key} has two rows"
            found[key] = cells
    return found


def test_every_limit_has_a_row() -> None:
    bounds = [f"inbox.{item.name}" for item in fields(InboxSpec) if item.name.startswith("max_")]
    wanted = {*(item.name for item in fields(LimitsSpec)), *bounds}
    assert wanted - set(rows()) == set()


def test_every_row_fills_every_column() -> None:
    for key, cells in rows().items():
        assert len(cells) == COLUMNS, key
        assert all(cells), key


def test_every_metric_of_the_page_exists() -> None:
    known = set(re.findall(r"mesh_[a-z_]+", (DOCS / "metrics.md").read_text()))
    assert set(re.findall(r"mesh_[a-z_]+", (DOCS / "limits.md").read_text())) - known == set()
