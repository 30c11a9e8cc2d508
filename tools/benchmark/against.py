"""The installed package against the package of a revision: the cost of a message, a connection and an idle vehicle.

It knows three sides (the installed package, the revision, and the revision again, which shows the noise), their turns
and their ratios; it must never know what a load is. What always holds: the three sides run at the same time, with new
processes in each round, on the same processors; they get the same load from the same generator in turn; a ratio
compares consecutive turns; the order of the turns changes, so that no side is always the first.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from mesh.bench.plan import DIRECT
from mesh.bench.run import Connected, LoadFailed, Workers, measure_connections, turn
from mesh.bench.usage import memory_of
from mesh.version import compiled, describe
from tools.benchmark.report import about, keep, line
from tools.benchmark.revisions import NotBuilt, commit_of, package_of
from tools.benchmark.rows import CONNECTIONS, MEMORY, THROUGHPUT, Figures, Row, rows
from tools.benchmark.systems import Ours

NEW: Final = "new"
OLD: Final = "old"
AGAIN: Final = "old again"
SIDES: Final = (NEW, OLD, AGAIN)

ROWS: Final = (
    "down-1x100", "down-20x20", "up-20x20", "down-200x1", "up-200x1", "alone-1x100-qos1", "alone-200x1-qos1",
    "connect-9000", "memory-18000",
)  # fmt: skip
TURN: Final = 1.0  # seconds of one turn, about: short, so that all sides share the drift of the machine's speed
WARM_UP: Final = 0.4  # seconds of warm-up before each turn
CONNECTING: Final = 2  # turns of a row of connections
ALLOWED: Final = 1.03  # allowed ratio of the new cost to the old cost, without the noise

WORSE: Final = "WORSE"
MISSING: Final = "NOT MEASURED"

UNITS: Final = {THROUGHPUT: "us/message", CONNECTIONS: "us/connection", MEMORY: "bytes/vehicle"}
RATES: Final = {THROUGHPUT: "msg/s", CONNECTIONS: "conn/s"}

Order = Iterator[tuple[str, ...]]


@final
@dataclass(slots=True)
class Turn:
    """The result of each side in one turn; ``memory``: bytes of all its nodes afterwards."""

    figures: dict[str, Figures]
    memory: dict[str, int]


@final
@dataclass(slots=True)
class Judged:
    """A row and the turns of each round."""

    row: Row
    rounds: list[list[Turn]]

    def ratios(self, side: str) -> list[float]:
        """The ratios of a side's cost to the old side's cost: for each round the median over its turns."""
        return [statistics.median(self._ratio(one, side) for one in turns) for turns in self.rounds if turns]

    def _ratio(self, one: Turn, side: str) -> float:
        return cost(self.row, one.figures[side]) / cost(self.row, one.figures[OLD])

    @property
    def noise(self) -> float:
        """The relative error of a ratio: two standard errors of the median, from the ratios of old again to old.

        It is the greater of two errors: from round to round (new processes) and from turn to turn. The standard error
        of a median of n values is 1.25 / sqrt(n) standard deviations; among turns, a few outliers do not count.
        """
        rounds = [math.log(ratio) for ratio in self.ratios(AGAIN)]
        turns = [abs(math.log(self._ratio(one, AGAIN))) for one in itertools.chain(*self.rounds)]
        among_rounds = math.sqrt(statistics.fmean(one * one for one in rounds) / len(rounds))
        among_turns = 1.48 * statistics.median(turns) / math.sqrt(len(turns))
        return math.exp(2 * 1.25 * max(among_rounds, among_turns))

    @property
    def limit(self) -> float:
        """The greatest ratio that does not count as worse."""
        return ALLOWED * self.noise

    @property
    def verdict(self) -> str:
        """``WORSE`` only if the ratio is beyond the limit."""
        if not any(self.rounds):
            return MISSING
        ratio = statistics.median(self.ratios(NEW))
        return "holds" if ratio <= ALLOWED else "within noise" if ratio <= self.limit else WORSE

    def medians(self, side: str) -> tuple[float, float, float]:
        """The medians over all turns of a side: cost, rate, bytes of memory."""
        turns = list(itertools.chain(*self.rounds))
        costs = [cost(self.row, one.figures[side]) for one in turns]
        rates = [rate(one.figures[side]) for one in turns]
        return statistics.median(costs), statistics.median(rates), statistics.median(one.memory[side] for one in turns)


def cost(row: Row, found: Figures) -> float:
    """Microseconds of processor time for a message or a connection, or bytes for a vehicle."""
    if isinstance(found, Connected):
        return sum((found.memory if row.kind == MEMORY else found.cpu).values())
    return found.cpu_total


def rate(found: Figures) -> float:
    """Messages or connections per second."""
    return found.again if isinstance(found, Connected) else found.rate


def chosen(words: str) -> list[Row]:
    """The rows that have one of the words (``A,B``) in their name."""
    every = {row.name: row for row in rows()}
    return [every[name] for name in ROWS if any(word in name for word in words.split(","))]


def against(options: argparse.Namespace) -> int:
    """Measure and show all rows; returns 1 if a row is worse."""
    if not compiled():
        raise SystemExit(f"the installed package is {describe()}: only compiled packages can be compared")
    picked = chosen(options.rows)
    if not picked:
        raise SystemExit(f"no row has one of these words: {options.rows}; there are {', '.join(ROWS)}")
    try:
        commit = commit_of(options.revision)
        old = package_of(commit)
    except NotBuilt as error:
        raise SystemExit(str(error)) from None
    print(f"new: {describe()} as installed; old: {options.revision} ({commit[:12]})", flush=True)
    judged = {row.name: Judged(row, []) for row in picked}
    order: Order = itertools.cycle(itertools.permutations(SIDES))
    for number in range(options.rounds):
        for group in groups(picked):
            for row, turns in one_round(group, old, order, options).items():
                judged[row].rounds.append(turns)
        if options.json:
            found = {"about": about(number + 1), "against": commit, "rows": [plain(one) for one in judged.values()]}
            keep(options.json, found)
    print("\n" + table(list(judged.values())))
    return int(any(one.verdict in (WORSE, MISSING) for one in judged.values()))


def groups(picked: list[Row]) -> list[list[Row]]:
    """The groups of rows that share processes: all rows of messages together, each row of connections alone."""
    messages = [row for row in picked if row.kind == THROUGHPUT]
    return [group for group in (messages, *([row] for row in picked if row.kind != THROUGHPUT)) if group]


def one_round(group: list[Row], old: Path, order: Order, options: argparse.Namespace) -> dict[str, list[Turn]]:
    """One round of some rows, with new meshes for all sides."""
    found: dict[str, list[Turn]] = {row.name: [] for row in group}
    try:
        with ExitStack() as ended:
            meshes: dict[str, Ours] = {}
            for side in next(order):
                meshes[side] = Ours(package=None if side == NEW else old)
                ended.callback(meshes[side].stop)
                meshes[side].start(options.cpus)
            for row in group:
                measure_row = messages if row.kind == THROUGHPUT else connections
                try:
                    measure_row(row, meshes, order, options, found[row.name])
                except LoadFailed as error:
                    print(f"{row.name}: {error}", file=sys.stderr)
                show(row, found[row.name])
    except (RuntimeError, LookupError, subprocess.SubprocessError) as error:
        print(f"{', '.join(found)}: {error}", file=sys.stderr)
    return found


def messages(row: Row, meshes: dict[str, Ours], order: Order, options: argparse.Namespace, turns: list[Turn]) -> None:
    """The turns of a row of messages. Its clients stay connected. Raises ``LoadFailed``."""
    with ExitStack() as ended:
        loads: dict[str, Workers] = {}
        for side in next(order):
            mesh = meshes[side]
            loads[side] = ended.enter_context(Workers(1, options.load_cpus))
            vehicles = mesh.backends if row.plan.direction == DIRECT else mesh.vehicles
            loads[side].connect(row.plan, vehicles, mesh.backends)
        count = max(1, round(options.seconds / TURN))
        for _ in range(count):
            one = Turn({}, {})
            for side in next(order):
                watched = meshes[side].watched
                result = turn(loads[side], row.plan, watched, seconds=options.seconds / count, warm_up=WARM_UP)
                if not result.rate or result.lost or len(result.cpu) < len(watched):
                    raise LoadFailed(f"{side}: {result.rate:.0f} messages per second, {result.lost} lost")
                one.figures[side] = result
                one.memory[side] = memory(meshes[side])
            turns.append(one)


def connections(
    row: Row, meshes: dict[str, Ours], order: Order, options: argparse.Namespace, turns: list[Turn]
) -> None:
    """The turns of a row of connections; only one if the row measures memory, because only the first turn shows it.
    Raises ``LoadFailed``."""
    for _ in range(1 if row.kind == MEMORY else CONNECTING):
        one = Turn({}, {})
        for side in next(order):
            mesh = meshes[side]
            one.figures[side] = measure_connections(row.plan, mesh.vehicles, mesh.watched, cpus=options.load_cpus)
            one.memory[side] = memory(mesh)
        turns.append(one)


def memory(mesh: Ours) -> int:
    """Bytes of all nodes of a mesh."""
    return sum(memory_of(mesh.watched.values()).values())


def show(row: Row, turns: list[Turn]) -> None:
    """Print the results of one round."""
    print(f"\n{row.name}")
    for side in SIDES:
        if turns:
            print(f"  {side:10} {line(row, [turn.figures[side] for turn in turns])}", flush=True)


def span(ratios: list[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


HEADINGS: Final = ("row", *SIDES, "", "new/old", "old again/old", "limit", "rate: new", "old", "memory: new", "old", "")


def table(judged: list[Judged]) -> str:
    """A line for each row: the median cost of each side, the ratios, the verdict, rates and memory."""
    lines = [list(HEADINGS)] + [_cells(one) for one in judged]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(each, widths, strict=True)) for each in lines)


def _cells(one: Judged) -> list[str]:
    if one.verdict == MISSING:
        return [one.row.name, *[""] * (len(HEADINGS) - 2), MISSING]
    sides = [one.medians(side) for side in SIDES]
    costs = [f"{side[0]:,.2f}" for side in sides]
    ratios = [span(one.ratios(NEW)), span(one.ratios(AGAIN)), f"{one.limit:.3f}"]
    unit = RATES.get(one.row.kind)
    rates = [f"{side[1]:,.0f} {unit}" if unit else "" for side in sides[:2]]
    memories = [f"{side[2] / 1e6:,.0f} MB" for side in sides[:2]]
    return [one.row.name, *costs, UNITS[one.row.kind], *ratios, *rates, *memories, one.verdict]


def plain(one: Judged) -> dict[str, Any]:
    """The values for JSON."""
    missing = one.verdict == MISSING
    return {
        "name": one.row.name, "unit": UNITS[one.row.kind], "verdict": one.verdict,
        "limit": None if missing else one.limit, "ratios": one.ratios(NEW), "noises": one.ratios(AGAIN),
        "rounds": [[_plain_turn(each) for each in turns] for turns in one.rounds],
    }  # fmt: skip


def _plain_turn(one: Turn) -> dict[str, Any]:
    return {side: {**one.figures[side].plain(), "nodes_bytes": one.memory[side]} for side in SIDES}
