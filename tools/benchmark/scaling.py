"""Makes docs/scaling.md, the needs of larger fleets, from the JSON of ``compare`` and of the experiments of ``scale``.

It multiplies the measured costs of one message, one connection and one record. What always holds: no figure of that
page is written by hand, and the page states every assumption.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from tools.benchmark.traced import COUNTS

FLEETS = (1_000_000, 10_000_000, 100_000_000)
EVERY = 60  # seconds between two messages of a vehicle, each way
BUSY = 0.5  # greatest average load of a processor
VEHICLES_OF_A_DOOR = 50_000  # vehicles of one door, so that its end does not send too many to the other doors at once
ETCD_COMFORT = 8 << 30  # recommended greatest size of etcd's data, in bytes

HEAD = """\
# Scaling

The needs of larger fleets, calculated from measurements on one core. A script makes this page from the same files as
[benchmarks.md](benchmarks.md):

```sh
./scripts/bench compare --json build/bench.json
./scripts/bench scale --json build/scale.json       # about ten minutes
./scripts/bench page build/bench.json build/scale.json
```
"""

UNITS = """\
Loaded: mean of the rows down-2000x1 and up-2000x1, one core busy. Light load: a core that is half idle syncs and wakes
up for a few messages at a time, so each message costs more; the core has the time.

A mapped vehicle takes {stored:.0f} bytes on etcd's disk and {etcd:.0f} in its memory. With one core for everything,
{claims:,.0f} new vehicles per second get an edge.
"""

TRIED = """\
## Experiments

| | fewer | more | |
|---|---|---|---|
"""

ASSUMED = """\
## What fleets need

Assumptions: every vehicle is connected, and has one message each way in {every} s; a process uses at most {busy:.0%} of
its core; a front door has at most {door:,} vehicles. Each process has one core. Links are the TCP connections within
the mesh: each door and each core has one to each edge.

| vehicles | msg/s | doors | edges | cores | doors' memory | edges' memory | etcd's disk | etcd's memory | links |
|---|---|---|---|---|---|---|---|---|---|
"""

GIVES = """
## First limits

1. **New vehicles.** At {claims:,.0f} per second, a fleet of a million new vehicles takes {minutes:.0f} minutes. Each
   front door batches its claims. Vehicles that are in the map need no claim.
2. **etcd's size.** etcd is recommended up to {comfort} GiB, which is {most:,.0f} million vehicles. A larger fleet
   needs several meshes, each with its own etcd, split by market or by the first letters of the identity.
3. **Watches.** Every door and core watches the map. A record changes only when a vehicle is claimed or moved, so the
   load is the claims and moves per second, times the nodes. The cache of each node is bounded (`map.cache`).
4. **Links.** Their number is doors times edges. An idle link sends a keep-alive every 3 s, which costs almost nothing;
   but an edge with a thousand links handles fewer messages per wake-up. Then give the doors of a region only that
   region's pools.
5. **One back end for all reports.** A filter such as `vehicles/+/status` brings all reports to one connection, which
   one core must write. `$share` spreads them over several back ends, and over several cores.
"""


@dataclass(frozen=True, slots=True)
class Unit:
    """The cost of one unit: microseconds of processor time per message, by role, loaded and with light load; the other
    figures are bytes per vehicle."""

    loaded: dict[str, float]
    light: dict[str, float]
    door_bytes: float
    edge_bytes: float
    stored_bytes: float
    etcd_bytes: float
    claims: float


def unit_of(bench: dict[str, Any], scale: dict[str, Any]) -> Unit:
    """Raises ``LookupError`` if a figure was not measured."""
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
    """The median of each process over the rounds."""
    return {name: median(one[what][name] for one in rounds) for name in rounds[0][what]}


def by_role(each: dict[str, float]) -> dict[str, float]:
    """The sums of ``door``, ``door-2`` and so on."""
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
    return f"## Cost of one unit\n\n{_table(rows)}\n{text}"


def _tried(scale: dict[str, Any]) -> str:
    rows = [*_fleets(scale["fleet"][0], scale["fleet"][-1]), *_maps(scale["map"][0], scale["map"][-1])]
    storm = [["all vehicles reconnect at once", "vehicles", "seconds"], ["---"] * 3]
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
