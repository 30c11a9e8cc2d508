"""``scripts/bench``: see ``--help``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.systems import CMesh, Mosquitto, Ours, System
from mesh.bench.plan import DIRECT, SCENARIOS, Plan
from mesh.bench.run import LoadFailed, Result, measure
from mesh.version import describe

SYSTEMS: dict[str, Callable[[], System]] = {
    "ours": Ours,
    "c-mesh": CMesh,
    "mosquitto": Mosquitto,
    "core": Ours,
}


@dataclass(frozen=True, slots=True)
class Row:
    """A load, and the systems that carry it in turn: the first one is ours."""

    plan: Plan
    systems: tuple[str, ...]
    least: float  # the ratio to the second that is asked for


MESHES = ("ours", "c-mesh")
BROKERS = ("core", "mosquitto")


def rows() -> list[Row]:
    """Every comparison, in the order of the documentation."""
    found = [
        Row(SCENARIOS["down-1x100"], MESHES, 3.0),
        Row(SCENARIOS["down-20x20"], MESHES, 3.0),
        Row(SCENARIOS["down-200x1"], MESHES, 2.0),
        Row(SCENARIOS["down-2000x1"], MESHES, 2.0),
        *(Row(SCENARIOS[f"up-{name}"], MESHES, 2.0) for name in ("1x100", "20x20", "200x1", "2000x1")),
    ]
    alone = [("1x100", 0, 2.0), ("1x100", 1, 5.0), ("200x1", 1, 1.2), ("2000x1", 1, 1.2)]
    for name, qos, least in alone:
        plan = replace(SCENARIOS[f"down-{name}"], name=f"alone-{name}-qos{qos}", direction=DIRECT, qos=qos)
        found.append(Row(plan, BROKERS, least))
    return found


def run(row: Row, system: str, options: argparse.Namespace) -> Result:
    """One system under one load, with fresh processes."""
    under_test, load = {int(cpu) for cpu in options.cpus.split(",")}, {int(cpu) for cpu in options.load_cpus.split(",")}
    running = SYSTEMS[system]()
    try:
        running.start(under_test)
        vehicles = running.backends if row.plan.direction == DIRECT else running.vehicles
        return measure(
            row.plan, vehicles, running.backends, running.watched, seconds=options.seconds, warm_up=options.warm_up,
            cpus=load,
        )  # fmt: skip
    finally:
        running.stop()


def show(row: Row, found: dict[str, list[Result]]) -> None:
    """A line for each system, and the ratio of the rates."""
    print(f"\n{row.plan.name}")
    for system, results in found.items():
        if not results:
            continue
        rate = statistics.median(result.rate for result in results)
        cpu = statistics.median(result.cpu_total for result in results)
        p99 = statistics.median(result.p99 for result in results)
        busy = max(result.load_cpu for result in results)
        each = {name: statistics.median(result.cpu.get(name, 0.0) for result in results) for name in results[0].cpu}
        parts = ", ".join(f"{name} {used:.1f}" for name, used in each.items())
        lost = sum(result.lost for result in results)
        line = f"  {system:10} {rate:9,.0f} msg/s  {cpu:6.1f} us ({parts})"
        print(f"{line}  p99 {p99:8.2f} ms  load {busy:4.0%}  lost {lost}")
    mine, theirs = (found[name] for name in row.systems)
    ratios = [a.rate / b.rate for a, b in zip(mine, theirs, strict=False) if b.rate]
    if ratios:
        middle = statistics.median(ratios)
        print(f"  ratio {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); asked for: {row.least:g}", flush=True)


def compare(options: argparse.Namespace) -> int:
    """All rows, round by round."""
    words = options.rows.split(",")
    chosen = [row for row in rows() if any(word in row.plan.name for word in words)]
    found: dict[str, dict[str, list[Result]]] = {row.plan.name: {name: [] for name in row.systems} for row in chosen}
    wanted = set(options.systems.split(",")) if options.systems else set(SYSTEMS)
    for number in range(options.rounds):
        for row in chosen:
            for system in row.systems:
                if system not in wanted:
                    continue
                try:
                    found[row.plan.name][system].append(run(row, system, options))
                except (LoadFailed, RuntimeError) as error:
                    print(f"{row.plan.name}, {system}, round {number + 1}: {error}", file=sys.stderr)
            if number == options.rounds - 1 or options.verbose:
                show(row, found[row.plan.name])
    if options.json:
        about = {"version": describe(), "machine": platform.machine(), "cpus": os.cpu_count(), "time": time.time()}
        plain = {
            name: {system: [result.plain() for result in results] for system, results in row.items()}
            for name, row in found.items()
        }
        Path(options.json).write_text(json.dumps({"about": about, "rows": plain}, indent=1))
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Our mesh and its peers under the same load.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("compare", help="ours and the peers in one run, interleaved")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--seconds", type=float, default=5.0)
    command.add_argument("--warm-up", type=float, default=2.0)
    command.add_argument("--rows", default="", help="only rows with one of these words in their name")
    command.add_argument("--systems", default="", help="only these systems")
    command.add_argument("--cpus", default="0", help="processors of the system under test")
    command.add_argument("--load-cpus", default="1", help="processors of the load")
    command.add_argument("--json", default="", help="write all results to this file")
    command.add_argument("--verbose", action="store_true", help="show each round")
    options = parser.parse_args()
    return compare(options)


if __name__ == "__main__":
    sys.exit(main())
