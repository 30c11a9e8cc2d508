"""How the cost grows with the fleet: many connected vehicles, many mapped vehicles, all reconnecting at once, tracing.

It knows experiments and their results; it must never know how the figures are shown. What always holds: an experiment
compares itself at two sizes (or, for the storm, with the C mesh), with new processes for each, in one run.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from mesh.bench.plan import LoadPlan
from mesh.bench.run import measure, measure_connections
from mesh.bench.usage import memory_of
from mesh.cli.which import which
from mesh.cluster.run import topology_of
from mesh.node.registry import client_of
from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, put
from mesh.registry.keys import Keys
from mesh.registry.map import where
from mesh.registry.record import Record
from tools.benchmark.systems import CMesh, Ours, System
from tools.benchmark.traced import samples

FLEETS = (1_000, 100_000)
FLEET_RATE = 6_000  # messages a second, half of them each way: a vehicle of 100,000 has one each way in 33 s
SETTLE = 180.0  # seconds until all nodes know all vehicles
PER_PROCESS = 17_000  # connections: a process may have 20,000 descriptors here
MAPPED = (1_000, 1_000_000)
NEW = 5_000  # vehicles that are new to the map
ASKED = 2_000  # times `where`
STORM = 20_000
STORM_OF_C_MESH = 19_500  # its edge has a descriptor for each vehicle
BATCH = 120  # records written in one transaction

Found = dict[str, Any]


def fleets(cpus: set[int], load_cpus: set[int], seconds: float) -> list[Found]:
    """Commands and reports at one rate, for fleets of different sizes on the same mesh, which has as many doors as the
    largest fleet needs."""
    found = []
    doors = -(-max(FLEETS) // PER_PROCESS)
    for size in FLEETS:
        processes = -(-size // PER_PROCESS)
        system = Ours(doors=doors, edges=2)
        plan = LoadPlan(f"fleet-{size}", fleet=size, window=1000, rate=FLEET_RATE)
        try:
            system.start(cpus)
            result = measure(
                plan, system.vehicles, system.backends, system.watched, seconds=seconds, warm_up=5.0,
                settle=SETTLE, workers=processes, cpus=load_cpus,
            )  # fmt: skip
        finally:
            system.stop()
        found.append({"vehicles": size, **result.plain()})
    return found


def storms(cpus: set[int], load_cpus: set[int]) -> list[Found]:
    """All vehicles reconnect at once."""
    found = [_storm("ours", Ours(doors=2), STORM, cpus, load_cpus)]
    found.append(_storm("c-mesh", CMesh(fronts=3), STORM_OF_C_MESH, cpus, load_cpus))
    return found


def _storm(name: str, system: System, size: int, cpus: set[int], load_cpus: set[int]) -> Found:
    plan = LoadPlan("storm", idle=size, together=size)
    try:
        system.start(cpus)
        result = measure_connections(plan, system.vehicles, system.watched, workers=2, cpus=load_cpus)
    finally:
        system.stop()
    count = result.count
    return {"system": name, "vehicles": count, "seconds": count / result.again, "first": count / result.first}


def maps(cpus: set[int], load_cpus: set[int]) -> list[Found]:
    """The cost of looking up and claiming edges, with few and with many mapped vehicles."""
    return [_map(size, cpus, load_cpus) for size in MAPPED]


def _map(size: int, cpus: set[int], load_cpus: set[int]) -> Found:
    system = Ours()
    try:
        system.start(cpus)
        nodes = {node["name"]: node["pid"] for node in system.nodes()}
        door = nodes["door"]
        before = memory_of([door])
        asked, written = asyncio.run(_fill_and_ask(system.file, size))
        after = memory_of([door])
        (database,) = system.file.parent.glob("data/**/member/snap/db")
        stored, etcd = database.stat().st_size, sum(memory_of(_etcds(system.file)).values())
        newcomers = measure_connections(
            LoadPlan("newcomers", idle=NEW), system.vehicles, system.watched, cpus=load_cpus
        )
        status = {node["name"]: node for node in system.nodes()}
    finally:
        system.stop()
    return {
        "mapped": size, "written_per_second": written, "where_us": asked, "first_per_second": newcomers.first,
        "door_bytes": after[door] - before[door], "etcd_bytes": etcd, "stored_bytes": stored,
        "door_records": status["door"]["figures"]["mesh_map_records"],
    }  # fmt: skip


def _etcds(file: Path) -> list[int]:
    """The process number of the mesh's etcd, found by the data folder on its command line."""
    folder = str(file.parent)
    return [
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "etcd" and any(folder in word for word in process.info["cmdline"] or ())
    ]


async def _fill_and_ask(file: Path, size: int) -> tuple[float, float]:
    """Microseconds of one ``where`` (the median), and records written per second."""
    run = which(str(file))
    client = client_of(topology_of(run), run.endpoints)
    try:
        began = time.monotonic()
        await _fill(client, run.mesh, size)
        written = size / (time.monotonic() - began)
        times = []
        for _ in range(ASKED):
            vehicle = f"mapped-{random.randrange(size):07}"
            began = time.perf_counter()
            if await where(client, run.mesh, vehicle) is None:
                raise RuntimeError(f"{vehicle} is not in the map")
            times.append((time.perf_counter() - began) * 1e6)
        return statistics.median(times), written
    finally:
        await client.close()


async def _fill(client: EtcdClient, mesh: str, size: int) -> None:
    keys = Keys(mesh)
    for start in range(0, size, BATCH):
        names = [f"mapped-{number:07}" for number in range(start, min(size, start + BATCH))]
        puts = [put(keys.vehicle(name), Record(name, "edge-1", "standard", 1).value()) for name in names]
        await client.txn(pb.TxnRequest(success=puts), retry=True)


EXPERIMENTS: dict[str, Callable[[set[int], set[int], int, float], list[Found]]] = {
    "fleet": lambda cpus, load, rounds, seconds: fleets(cpus, load, 4 * seconds),
    "storm": lambda cpus, load, rounds, seconds: storms(cpus, load),
    "map": lambda cpus, load, rounds, seconds: maps(cpus, load),
    "sample": lambda cpus, load, rounds, seconds: samples(cpus, load, rounds),
}
