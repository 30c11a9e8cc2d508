"""docs/scaling.md, from the JSON of a comparison and of the experiments of ``scale``: what fleets of other sizes need.

It knows what was measured for one message, one connection and one record, and multiplies. What always holds: no figure
of that page is written by hand, and what is assumed stands beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from tools.benchmark.traced import COUNTS

FLEETS = (1_000_000, 10_000_000, 100_000_000)
EVERY = 60  # seconds between two messages of a vehicle, each way
BUSY = 0.5  # of a processor, at most, on average
VEHICLES_OF_A_DOOR = 50_000  # so that its death does not send too many to the others at once
ETCD_COMFORT = 8 << 30  # bytes that etcd is recommended to store at most

HEAD = """\
# Scaling

What fleets of other sizes need, worked out from what was measured on one core. This page is made by a script from the
same files as [benchmarks.md](benchmarks.md):

```sh
./scripts/bench compare --json build/bench.json
./scripts/bench scale --json build/scale.json       # about ten minutes
./scripts/bench page build/bench.json build/scale.json
```
"""

UNITS = """\
Loaded: mean of the rows down-2000x1 and up-2000x1, one core busy. Light load: a core that is half idle syncs and wakes
up for a few messages at a time, so each costs more; it has the time.

A mapped vehicle takes {stored:.0f} bytes on etcd's disk and {etcd:.0f} in its memory; {claims:,.0f} new ones a second
get an edge, with one core for everything.
"""

TRIED = """\
## What was tried here

| | fewer | more | |
|---|---|---|---|
"""

ASSUMED = """\
## What fleets need

Assumed: every vehicle is connected, and has one message each way in {every} s; a process keeps its core {busy:.0%} busy
at most; a front door has {door:,} vehicles at most. A process is one core. Links are the TCP connections within the
mesh: each door and each core has one to each edge.

| vehicles | msg/s | doors | edges | cores | doors' memory | edges' memory | etcd's disk | etcd's memory | links |
|---|---|---|---|---|---|---|---|---|---|
"""

GIVES = """
## What gives first

1. **New vehicles.** {claims:,.0f} a second means that a fleet of a million that comes for the first time takes
   {minutes:.0f} minutes. Claims are batched, by each front door. Vehicles that are known need none.
2. **etcd's size.** etcd is recommended up to {comfort} GiB, which is {most:,.0f} million vehicles. Beyond that the
   fleet is cut into several meshes, each with its own etcd, by market or by the first letters of the identity.
3. **Watches.** Every door and core follows the map. A record changes only when a vehicle is claimed or moved, so the
   load is claims and moves a second, times nodes. What is remembered is bounded (`map.cache`).
4. **Links.** Doors times edges. A quiet link sends a sign of life every 3 s, which is nothing; but an edge with a
   thousand links shares its wake-ups less well. Then the doors of a region are given that region's pools only.
5. **One back end for everything.** A filter such as `vehicles/+/status` brings all reports to one connection, which one
   core must write. `$share` spreads them over several back ends, and over several cores.
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """What one thing costs. Processor times in microseconds for a message, by role, loaded and idling; the rest in
    bytes, for a vehicle."""

    loaded: dict[str, float]
    light: dict[str, float]
    door_bytes: float
    edge_bytes: float
    stored_bytes: float
    etcd_bytes: float
    claims: float


def unit_of(bench: dict[str, Any], scale: dict[str, Any]) -> Unit:
    """``LookupError`` if something was not measured."""
    rows = {row["name"]: row["systems"]["ours"] for row in bench["rows"] if row["systems"]["ours"]}
    down, up = medians(rows["down-2000x1"], "cpu"), medians(rows["up-2000x1"], "cpu")
    loaded = {role: (by_role(down)[role] + by_role(up)[role]) / 2 for role in ("door", "edge", "core")}
    memory = by_role(medians(rows["memory-18000"], "memory"))
    largest = scale["map"][-1]
    return Unit(
        loaded, by_role(scale["fleet"][-1]["cpu"]), memory["door"], memory["edge"],
        largest["stored_bytes"] / largest["mapped"], largest["etcd_bytes"] / largest["mapped"],
        largest["first_per_second"],
    )  # fmt: skip


def medians(rounds: list[dict[str, Any]], what: str) -> dict[str, float]:
    """Of each process, over the rounds."""
    return {name: median(one[what][name] for one in rounds) for name in rounds[0][what]}


def by_role(each: dict[str, float]) -> dict[str, float]:
    """The sums of ``door-1``, ``door-2`` and so on."""
    found: dict[str, float] = {}
    for name, value in each.items():
        role = name.split("-")[0]
        found[role] = found.get(role, 0.0) + value
    return found


def scaling(bench: dict[str, Any], scale: dict[str, Any]) -> str:
    """The page."""
    unit = unit_of(bench, scale)
    return "\n".join([HEAD, _measured(unit), _tried(scale), _needed(unit)]) + _gives(unit)


def _table(rows: list[list[str]]) -> str:
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _measured(unit: Unit) -> str:
    rows = [["", "front door", "edge", "core"], ["---"] * 4]
    for name, each in (("loaded", unit.loaded), ("light load", unit.light)):
        rows.append([f"one message, {name}", *(f"{each[role]:.1f} us" for role in unit.loaded)])
    rows.append(["one idle vehicle", f"{unit.door_bytes:,.0f} B", f"{unit.edge_bytes:,.0f} B", "none"])
    text = UNITS.format(stored=unit.stored_bytes, etcd=unit.etcd_bytes, claims=unit.claims)
    return f"## What one thing costs\n\n{_table(rows)}\n{text}"


def _tried(scale: dict[str, Any]) -> str:
    rows = [*_fleets(scale["fleet"][0], scale["fleet"][-1]), *_maps(scale["map"][0], scale["map"][-1])]
    storm = [["everybody comes back at once", "vehicles", "seconds"], ["---"] * 3]
    storm += [[one["system"], f"{one['vehicles']:,}", f"{one['seconds']:.1f}"] for one in scale["storm"]]
    traced = [["traced (down-20x20)", "msg/s", "us a message", "of the rate without", "lost", *COUNTS[1:]], ["---"] * 8]
    traced += [_sample(one, scale["sample"][0]) for one in scale["sample"]]
    return f"{TRIED}{_table(rows)}\n{_table(storm)}\n{_table(traced)}"


def _fleets(few: dict[str, Any], many: dict[str, Any]) -> list[list[str]]:
    each = [
        f"{one['vehicles']:,}: {one['cpu_total']:.0f} us a message, p99 {one['p99']:.0f} ms, lost {one['lost']}"
        for one in (few, many)
    ]
    ratio = f"{many['cpu_total'] / few['cpu_total']:.2f} times the processor time (1.30 allowed)"
    return [[f"connected, {many['rate']:,.0f} msg/s in all", *each, ratio]]


def _maps(small: dict[str, Any], large: dict[str, Any]) -> list[list[str]]:
    where = [f"{one['mapped']:,}: {one['where_us']:.0f} us" for one in (small, large)]
    new = [f"{one['mapped']:,}: {one['first_per_second']:,.0f}" for one in (small, large)]
    slower = large["where_us"] / small["where_us"], small["first_per_second"] / large["first_per_second"]
    memory = f"{large['door_bytes'] / 1e6:.0f} MB more, for {large['door_records']:,} records"
    return [
        ["mapped: `where`", *where, f"{slower[0]:.2f} times as long (1.50 allowed)"],
        ["mapped: new ones a second", *new, f"{slower[1]:.2f} times as long (1.50 allowed)"],
        ["mapped: a front door's memory", "", memory, "bounded by `map.cache`"],
    ]


def _sample(one: dict[str, Any], without: dict[str, Any]) -> list[str]:
    ratio = median(mine / other for mine, other in zip(one["rates"], without["rates"], strict=True))
    figures = [f"{one['sample']:.0%}", f"{median(one['rates']):,.0f}", f"{median(one['cpu']):.1f}", f"{ratio:.3f}"]
    return [*figures, str(one["lost"]), *(f"{one['spans'][name]:,}" for name in COUNTS[1:])]


def _needed(unit: Unit) -> str:
    rows = []
    for fleet in FLEETS:
        rate = 2 * fleet / EVERY
        count = {role: math.ceil(rate * cost / 1e6 / BUSY) for role, cost in unit.loaded.items()}
        doors = max(count["door"], math.ceil(fleet / VEHICLES_OF_A_DOOR))
        links = doors * count["edge"] + count["core"] * count["edge"]
        sizes = (unit.door_bytes, unit.edge_bytes, unit.stored_bytes, unit.etcd_bytes)
        rows.append([
            f"{fleet:,}", f"{rate:,.0f}", f"{doors:,}", f"{count['edge']:,}", f"{count['core']:,}",
            *(f"{fleet * each / 1e9:,.1f} GB" for each in sizes), f"{links:,}",
        ])  # fmt: skip
    return ASSUMED.format(every=EVERY, busy=BUSY, door=VEHICLES_OF_A_DOOR) + _table(rows)


def _gives(unit: Unit) -> str:
    return GIVES.format(
        claims=unit.claims, minutes=1e6 / unit.claims / 60, comfort=ETCD_COMFORT >> 30,
        most=ETCD_COMFORT / unit.stored_bytes / 1e6,
    )  # fmt: skip
