"""The table of docs/security.md: every attack has a row without an empty cell, and a run replaces its own rows only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.catalogue import ATTACKS
from tests.attacks.cost import Cost
from tests.attacks.page import BEGIN, END, problems, write
from tests.attacks.runner import Result

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
TRIPS = {"sent": 100.0, "answered": 100.0, "lost": 0.0, "closes": 0.0, "p50": 3.0, "p99": 8.0, "worst": 9.5}


def result(name: str, **trips: float) -> Result:
    costs = {"edge-1": Cost(100 << 20, 130 << 20, 110 << 20, 1.5, 20, 25), "core": Cost()}
    return Result(name, "about it", 1.0, 2.0, {"closed": 1200}, TRIPS, {**TRIPS, **trips}, costs)


def test_every_attack_has_a_row() -> None:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(ATTACKS)
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4, row
        assert all(cells), row


def test_run_replaces_its_own_rows(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    write(page, [result("b"), result("a")], ["a", "b"])
    write(page, [result("b", p99=80.0)], ["a", "b"])
    second = page.read_text()
    assert [line.split("`")[1] for line in second.splitlines() if line.startswith("| `")] == ["a", "b"]
    assert second.count("→ 3 / 80 / 9.5 ms") == 1
    assert second.startswith("before\n")
    assert second.endswith("after\n")
    assert "edge-1: 1.5 s, +30 MB (+10 after), +5 descriptors |" in second


def test_page_without_a_place_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no lines"):
        write(page, [], [])


def test_problems_are_named() -> None:
    assert problems(result("a")) == []
    assert len(problems(result("a", lost=1, closes=2, p99=250))) == 3
    restarted = result("a")
    restarted.costs["edge-1"].restarts = 1
    restarted.failed = "a session is gone"
    assert problems(restarted) == ["a session is gone", "edge-1 was restarted 1 times"]
