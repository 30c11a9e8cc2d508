"""``scripts/bench``: see ``--help``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh.bench.plan import DIRECT, LoadPlan
from mesh.bench.run import LoadFailed, Result, measure, measure_connections
from tools import ROOT
from tools.benchmark.against import ROWS, against
from tools.benchmark.handshakes import measure as handshakes
from tools.benchmark.page import page
from tools.benchmark.picture import picture
from tools.benchmark.report import Found, about, keep, show, write
from tools.benchmark.rows import CONNECTIONS, LATENCY, MEMORY, SYSTEMS, Figures, Row, rows
from tools.benchmark.scale import EXPERIMENTS
from tools.benchmark.scaling import scaling
from tools.benchmark.secured import MUTUAL
from tools.benchmark.systems import System

DOCS = ROOT / "docs"

EXAMPLES = """\
examples:
  scripts/bench compare                              every row, five rounds: about 35 minutes
  scripts/bench compare --rows down-1x100 --rounds 3
  scripts/bench compare --systems ours               without the peers
  scripts/bench against main --rounds 5              is the installed package slower than main? six minutes a round
  scripts/bench compare --json build/bench.json && scripts/bench page build/bench.json build/scale.json

Ours and the peer run in turn, with new processes for each row, on the processors of --cpus; the load runs on those of
--load-cpus. Prints the medians over the rounds, and how many times better ours is in each round.
"""


def run(row: Row, system: str, plan: LoadPlan, options: argparse.Namespace) -> Figures:
    """Measure one system under one load, with new processes."""
    running = SYSTEMS[system](tls=row.tls) if row.tls else SYSTEMS[system]()
    every = options.cpus | options.load_cpus
    cpus, load_cpus = (every, every) if row.shared else (options.cpus, options.load_cpus)
    try:
        running.start(cpus)
        plan = secured(plan, running, row.tls)
        if row.kind in (CONNECTIONS, MEMORY):
            return measure_connections(plan, running.vehicles, running.watched, cpus=load_cpus)
        vehicles = running.backends if plan.direction == DIRECT else running.vehicles
        return measure(
            plan, vehicles, running.backends, running.watched, seconds=options.seconds, warm_up=options.warm_up,
            cpus=load_cpus,
        )  # fmt: skip
    finally:
        running.stop()


def secured(plan: LoadPlan, running: System, tls: str) -> LoadPlan:
    """The plan with what its vehicles need for TLS."""
    files = running.certificates
    if files is None:
        return plan
    cert, key = (files.client_cert, files.client_key) if tls == MUTUAL else ("", "")
    return replace(plan, authority=files.authority, cert=cert, key=key)


def plan_of(row: Row, found: Found) -> LoadPlan:
    """The row's load. For a latency at a fixed rate, the rate follows from the peer's rate in this round."""
    if row.kind != LATENCY:
        return row.plan
    shown = [one for one in found[row.after][row.peer] if isinstance(one, Result)]
    if not shown:
        raise LoadFailed(f"row {row.after}, which gives the rate, was not measured")
    return replace(row.plan, rate=int(row.share * shown[-1].rate))


def compare(options: argparse.Namespace) -> int:
    """Measure all rows, round by round."""
    words = options.rows.split(",")
    chosen = [row for row in rows() if any(word in row.name for word in words)]
    wanted = set(options.systems.split(",")) if options.systems else set(SYSTEMS)
    found: Found = {row.name: {"ours": [], row.peer: []} for row in chosen}
    for number in range(options.rounds):
        for row in chosen:
            for system, results in found[row.name].items():
                if system not in wanted:
                    continue
                try:
                    results.append(run(row, system, plan_of(row, found), options))
                except (LoadFailed, RuntimeError, LookupError) as error:
                    print(f"{row.name}, {system}, round {number + 1}: {error}", file=sys.stderr)
            if number == options.rounds - 1:
                show(row, found[row.name])
        if options.json:
            write(options.json, chosen, found, number + 1)
    return 0


def scale(options: argparse.Namespace) -> int:
    """Run the experiments of ``scale``. Each result is shown and saved as soon as the experiment ends."""
    results: dict[str, Any] = {"about": about(options.rounds)}
    for name in options.experiments.split(","):
        results[name] = EXPERIMENTS[name](options.cpus, options.load_cpus, options.rounds, options.seconds)
        print(f"\n{name}")
        for one in results[name]:
            print(f"  {json.dumps(one)}", flush=True)
        if options.json:
            keep(options.json, results)
    return 0


def pages(options: argparse.Namespace) -> int:
    """Write the page of the comparison with its picture, and the page of scaling if both were measured."""
    bench = json.loads(options.bench.read_text())
    (DOCS / "benchmarks.md").write_text(page(bench))
    (DOCS / "benchmarks.svg").write_text(picture(bench["rows"]))
    if options.scale is not None:
        (DOCS / "scaling.md").write_text(scaling(bench, json.loads(options.scale.read_text())))
    return 0


def processors(text: str) -> set[int]:
    """``0`` or ``0,1``."""
    chosen = {int(number) for number in text.split(",")}
    if not chosen <= os.sched_getaffinity(0):
        raise argparse.ArgumentTypeError(f"this process may use only {sorted(os.sched_getaffinity(0))}")
    return chosen


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Our mesh and its peers under the same load.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("compare", help="ours and the peers in one run, in turn")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--seconds", type=float, default=3.0, help="seconds to measure each row")
    command.add_argument("--warm-up", type=float, default=1.0, help="seconds before that")
    command.add_argument("--rows", default="", help="only rows with one of these words in the name, as A,B")
    command.add_argument("--systems", default="", help="only these systems, as A,B")
    command.add_argument("--cpus", type=processors, default={0}, help="processors of the system under test (0)")
    command.add_argument("--load-cpus", type=processors, default={1}, help="processors of the load (1)")
    command.add_argument("--json", type=Path, help="write the results to this file; its other rows are kept")
    command.set_defaults(run=compare)
    command = commands.add_parser(
        "against", help="the installed package and a revision, in turn; exit code 1 if a row has become worse"
    )
    command.add_argument("revision", help="a revision of git: a commit, a branch or a tag")
    command.add_argument("--rounds", type=int, default=3, help="number of rounds, each with new processes (3)")
    command.add_argument("--seconds", type=float, default=5.0, help="seconds to measure each row in each round (5)")
    command.add_argument(
        "--rows", default="", help=f"only rows with one of these words in the name, as A,B, of {', '.join(ROWS)}"
    )
    command.add_argument("--cpus", type=processors, default={0}, help="processors of the meshes (0)")
    command.add_argument("--load-cpus", type=processors, default={1}, help="processors of the load (1)")
    command.add_argument("--json", type=Path, help="write all measurements to this file")
    command.set_defaults(run=against)
    command = commands.add_parser("handshakes", help="TLS connections a second of one processor, ours and the C mesh")
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--count", type=int, default=2000, help="connections of each measurement (2000)")
    command.add_argument("--cpus", type=processors, default={0}, help="processors of the systems (0)")
    command.add_argument("--load-cpus", type=processors, default={1}, help="processors of the load (1)")
    command.set_defaults(run=handshakes)
    command = commands.add_parser("scale", help="how the cost grows with the fleet: about ten minutes")
    command.add_argument("--experiments", default=",".join(EXPERIMENTS), help="only these experiments, as A,B")
    command.add_argument("--rounds", type=int, default=5, help="rounds of the tracing experiment")
    command.add_argument("--seconds", type=float, default=5.0, help="seconds to measure in each round")
    command.add_argument("--cpus", type=processors, default={0}, help="processors of the system under test (0)")
    command.add_argument("--load-cpus", type=processors, default={1}, help="processors of the load (1)")
    command.add_argument("--json", type=Path, help="write the results to this file; its other results are kept")
    command.set_defaults(run=scale)
    command = commands.add_parser("page", help="make docs/benchmarks.md and docs/scaling.md from the measurements")
    command.add_argument("bench", type=Path, help="the JSON of compare")
    command.add_argument("scale", type=Path, nargs="?", help="the JSON of scale, for docs/scaling.md")
    command.set_defaults(run=pages)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all started processes are ended
    return int(options.run(options) or 0)


if __name__ == "__main__":
    sys.exit(main())
