"""docs/benchmarks.md is made from what a comparison has written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "scripts"), *sys.path])
    from benchmark import page  # a script of the checkout, not of the package

    return page


def result(rate: float) -> dict[str, Any]:
    return {"rate": rate, "p99": 2.0, "cpu": {"core": 3.0, "edge-1": 4.5}}


def test_a_row_shows_medians_the_range_and_whether_it_holds(page: Any) -> None:
    row = {
        "name": "down-1x100", "kind": "messages a second", "asked": 3.0, "ratios": [2.0, 4.0, 3.5],
        "systems": {"ours": [result(40_000), result(80_000), result(70_000)], "c-mesh": [result(20_000)] * 3},
    }  # fmt: skip
    short = {**row, "name": "down-200x1", "ratios": [1.0]}
    empty = {**row, "name": "up-1x100", "ratios": [], "systems": {"ours": [], "c-mesh": []}}
    about = {"version": "vehicle-mesh 1", "python": "3.11", "kernel": "6", "cpus": 2, "rounds": 3}
    text = page.page({"about": about, "rows": [row, short, empty]})
    assert "| down-1x100 | 70,000 msg/s | 20,000 msg/s | 3.50 (2.00 to 4.00) | 3.00 | holds |" in text
    assert "| 1.00 (1.00 to 1.00) | 3.00 | **falls short** |" in text
    assert "| down-1x100 | 7.5 (core 3.0, edge-1 4.5) | 7.5 (core 3.0, edge-1 4.5) |" in text
    assert "up-1x100" not in text
