"""The results of a comparison, as text and as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from mesh.bench.run import Connected
from mesh.version import describe
from tools.benchmark.rows import Figures, Row, rows

Found = dict[str, dict[str, list[Figures]]]  # by row and system: one result for each round


def show(row: Row, found: dict[str, list[Figures]]) -> None:
    """Print a line for each system, and the ratio."""
    print(f"\n{row.name}: {row.kind}")
    for system, results in found.items():
        if results:
            print(f"  {system:10} {line(row, results)}")
    ratios = ratios_of(row, found)
    if ratios:
        middle = statistics.median(ratios)
        verdict = "holds" if middle >= row.least else "FALLS SHORT"
        span = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {middle:.2f} times better ({span}); asked for {row.least:.2f}: {verdict}", flush=True)


def ratios_of(row: Row, found: dict[str, list[Figures]]) -> list[float]:
    """Ours against the peer, round by round."""
    pairs = zip(found.get("ours", []), found.get(row.peer, []), strict=False)
    return [row.ratio(mine, theirs) for mine, theirs in pairs]


def line(row: Row, results: list[Figures]) -> str:
    """The medians of one system."""
    value = statistics.median(row.value(result) for result in results)
    text = f"{value:12,.2f}" if value < 100 else f"{value:12,.0f}"
    first = results[0]
    parts = first.memory if isinstance(first, Connected) and "memory" in row.name else first.cpu
    unit = "bytes" if parts is not first.cpu else "us of CPU"
    each = {name: statistics.median(_part(row, result).get(name, 0.0) for result in results) for name in parts}
    text += f"   {sum(each.values()):,.1f} {unit} ({', '.join(f'{name} {used:,.1f}' for name, used in each.items())})"
    if isinstance(first, Connected):
        return f"{text}   first {statistics.median(one.first for one in results if isinstance(one, Connected)):,.0f}/s"
    ran = [result for result in results if not isinstance(result, Connected)]
    busy, p99 = max(one.load_cpu for one in ran), statistics.median(one.p99 for one in ran)
    return f"{text}   p99 {p99:,.2f} ms   load {busy:.0%}   lost {sum(one.lost for one in ran)}"


def _part(row: Row, result: Figures) -> dict[str, float]:
    return result.memory if isinstance(result, Connected) and "memory" in row.name else result.cpu


def write(file: Path, measured: list[Row], found: Found, rounds: int) -> None:
    """Write all results as JSON, in the order of ``rows``. Rows of an existing file that were not measured now stay."""
    plain = {
        row.name: {
            "name": row.name, "kind": row.kind, "asked": row.least, "ratios": ratios_of(row, found[row.name]),
            "systems": {name: [one.plain() for one in results] for name, results in found[row.name].items()},
        }
        for row in measured
    }  # fmt: skip
    older = json.loads(file.read_text())["rows"] if file.exists() else []
    every = {**{row["name"]: row for row in older}, **plain}
    keep(file, {"about": about(rounds), "rows": [every[row.name] for row in rows() if row.name in every]})


def about(rounds: int) -> dict[str, Any]:
    """The package and the machine of a measurement."""
    return {
        "version": describe(), "python": platform.python_version(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "cpus": os.cpu_count(), "rounds": rounds, "time": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }  # fmt: skip


def keep(file: Path, results: dict[str, Any]) -> None:
    """Put results into a JSON file. Its other names stay."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**before, **results}, indent=1) + "\n")
