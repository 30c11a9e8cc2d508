"""docs/benchmarks.md and docs/scaling.md from the JSON of the measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tools.benchmark.page import page
from tools.benchmark.picture import HELD, SHORT, picture
from tools.benchmark.report import write
from tools.benchmark.rows import rows
from tools.benchmark.scaling import scaling


def result(rate: float) -> dict[str, Any]:
    return {"rate": rate, "p99": 2.0, "cpu": {"core": 3.0, "edge-1": 4.5}}


def test_a_row_shows_medians_the_range_and_whether_it_holds() -> None:
    row = {
        "name": "down-1x100", "kind": "messages a second", "asked": 3.0, "ratios": [2.0, 4.0, 3.5],
        "systems": {"ours": [result(40_000), result(80_000), result(70_000)], "c-mesh": [result(20_000)] * 3},
    }  # fmt: skip
    short = {**row, "name": "down-200x1", "ratios": [1.0]}
    empty = {**row, "name": "up-1x100", "ratios": [], "systems": {"ours": [], "c-mesh": []}}
    about = {"version": "vehicle-mesh 1", "python": "3.11", "kernel": "6", "cpus": 2, "rounds": 3}
    text = page({"about": about, "rows": [row, short, empty]})
    assert "| down-1x100 | 70,000 msg/s | 20,000 msg/s | 3.50 (2.00 to 4.00) | 3.00 | holds |" in text
    assert "| 1.00 (1.00 to 1.00) | 3.00 | **falls short** |" in text
    assert "| down-1x100 | 7.5 (core 3.0, edge-1 4.5) | 7.5 (core 3.0, edge-1 4.5) |" in text
    assert "up-1x100" not in text


def test_the_picture_has_a_bar_and_a_mark_for_each_row_that_was_measured() -> None:
    held = {"name": "down-1x100", "asked": 3.0, "ratios": [3.0, 4.0, 3.5]}
    short = {"name": "up-200x1", "asked": 2.0, "ratios": [1.0]}
    svg = ElementTree.fromstring(picture([held, short, {"name": "none", "asked": 1.0, "ratios": []}]))
    space = "{http://www.w3.org/2000/svg}"
    bars = svg.findall(f"{space}rect")[1:]  # the first is the background
    assert [bar.get("fill") for bar in bars] == [HELD, SHORT]
    assert [float(bar.get("width", 0)) for bar in bars] == [280.0, 80.0]
    assert [text.text for text in svg.findall(f"{space}text")][1:] == ["down-1x100", "3.50", "up-200x1", "1.00"]


def test_the_needs_of_a_fleet_follow_from_the_measurements() -> None:
    def row(name: str, **figures: Any) -> dict[str, Any]:
        return {"name": name, "systems": {"ours": [figures]}}

    cpu = {"door": 10.0, "edge-1": 5.0, "core": 20.0}
    bench = {"rows": [
        row("down-2000x1", cpu=cpu), row("up-2000x1", cpu={**cpu, "core": 38.0}),
        row("memory-18000", memory={"door": 3000.0, "edge-1": 2000.0, "core": 0.0}),
    ]}  # fmt: skip
    fleet = {"vehicles": 1000, "cpu": {"door": 4.0, "door-2": 6.0, "edge-1": 50.0, "core": 30.0}, "cpu_total": 90.0,
             "rate": 6000.0, "p99": 5.0, "lost": 0}  # fmt: skip
    mapped = {"mapped": 1000, "where_us": 400.0, "first_per_second": 1000.0, "door_bytes": 0, "etcd_bytes": 0,
              "stored_bytes": 0, "door_records": 1000}  # fmt: skip
    large = {**mapped, "mapped": 1_000_000, "where_us": 500.0, "first_per_second": 800.0, "stored_bytes": 143_000_000,
             "etcd_bytes": 787_000_000}  # fmt: skip
    spans = {"recorded": 3, "exported": 1, "dropped": 2, "suppressed": 3}
    traced = {"sample": 0.01, "rates": [9.0, 12.0], "cpu": [1.0, 2.0], "lost": 0, "spans": spans}
    scale = {
        "fleet": [fleet, {**fleet, "vehicles": 100_000, "cpu_total": 99.0}], "map": [mapped, large],
        "storm": [{"system": "ours", "vehicles": 20_000, "seconds": 6.54}],
        "sample": [{**traced, "sample": 0.0, "rates": [10.0, 12.0]}, traced],
    }  # fmt: skip
    text = scaling(bench, scale)
    assert "| one message, loaded | 10.0 us | 5.0 us | 29.0 us |" in text
    assert "| one message, light load | 10.0 us | 50.0 us | 30.0 us |" in text
    assert "1.10 times the processor time (1.30 allowed)" in text
    assert "1.25 times as long (1.50 allowed)" in text
    # 33,333 msg/s of 10, 5 and 29 us at half a processor each; but 20 doors for a million vehicles.
    assert "| 1,000,000 | 33,333 | 20 | 1 | 2 | 3.0 GB | 2.0 GB | 0.1 GB | 0.8 GB | 22 |" in text
    assert "| 1% | 10 | 1.5 | 0.950 | 0 | 1 | 2 | 3 |" in text
    assert "which is 60 million vehicles" in text


def test_a_file_of_results_keeps_rows_not_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    first, second = (next(row for row in rows() if row.name == name) for name in ("down-1x100", "up-1x100"))
    write(file, [second], {second.name: {"ours": [], second.peer: []}}, 3)
    write(file, [first], {first.name: {"ours": [], first.peer: []}}, 5)
    kept = json.loads(file.read_text())
    assert [row["name"] for row in kept["rows"]] == ["down-1x100", "up-1x100"]
    assert kept["about"]["rounds"] == 5
