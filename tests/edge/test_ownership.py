"""An edge compares its vehicles with the map."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mesh.broker.principal import BACKEND, VEHICLE
from mesh.edge import ownership as module
from mesh.edge.ownership import Ownership
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.map import VehicleMap, kept_by
from tests.support.waiting import until

_numbers = count(1)


class Holdings:
    """What an edge holds."""

    def __init__(self, vehicles: list[str]) -> None:
        self.vehicles = dict.fromkeys(vehicles)

    def identities(self) -> list[tuple[int, str]]:
        return [(BACKEND, "app"), *((VEHICLE, name) for name in self.vehicles)]

    def holds(self, kind: int, name: str) -> bool:
        return kind == VEHICLE and name in self.vehicles


class Connections:
    """Records whose connections were ended. ``faults``: how often that fails."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.faults = 0

    def expel(self, vehicles: set[str]) -> Iterator[None]:
        for vehicle in sorted(vehicles):
            if self.faults:
                self.faults -= 1
                raise OSError("the journal takes no more")
            self.ended.append(vehicle)
            yield


class Edge:
    """The ownership of one edge, and the map that it follows."""

    def __init__(self, etcd: EmbeddedEtcd, vehicles: list[str]) -> None:
        self.mesh = f"test-{os.getpid()}-{next(_numbers)}"
        self.client = etcd.client()
        self.map = VehicleMap(self.client, self.mesh)
        self.holdings = Holdings(vehicles)
        self.connections = Connections()
        self.own = Ownership(
            "edge-1", "standard", self.map, self.client, self.mesh, self.holdings, self.connections
        )

    async def claim(self, vehicle: str, edge: str) -> None:
        await self.map.claim(vehicle, "standard", {edge: 1.0})

    async def owner(self, vehicle: str) -> str:
        record = await self.map.lookup(vehicle)
        return "" if record is None else record.edge

    async def close(self) -> None:
        await self.own.stop()
        await self.map.stop()
        await self.client.close()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path_factory.mktemp("etcd"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


def with_edge(etcd: EmbeddedEtcd, vehicles: list[str], test: Callable[[Edge], Awaitable[None]]) -> None:
    async def main() -> None:
        edge = Edge(etcd, vehicles)
        try:
            await test(edge)
        finally:
            await edge.close()

    asyncio.run(main())


def test_unclaimed_vehicles_are_claimed_and_those_of_other_edges_are_foreign(
    etcd: EmbeddedEtcd, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(edge: Edge) -> None:
        await edge.claim("CAR-1", "edge-1")
        await edge.claim("CAR-2", "edge-2")
        await edge.map.start()
        edge.own.start()
        edge.own.compare()
        await until(lambda: edge.own.reclaimed == 1 and edge.connections.ended == ["CAR-2"], "the comparison")
        assert [await edge.owner(f"CAR-{number}") for number in (1, 2, 3)] == ["edge-1", "edge-2", "edge-1"]
        assert edge.own.foreign == {"CAR-2": "edge-2"}
        assert edge.own.detail == "keeps messages of vehicles that belong to other edges now: CAR-2 (edge-2)"
        assert "CAR-2 belongs to edge-2 now" in caplog.text
        while await kept_by(edge.client, edge.mesh, "CAR-2") != ["edge-1"]:
            await asyncio.sleep(0.01)
        assert await kept_by(edge.client, edge.mesh, "CAR-1") == []

    with_edge(etcd, ["CAR-1", "CAR-2", "CAR-3"], test)


def test_comparison_that_failed_is_repeated(etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """No foreign vehicle is served on, and none is left unclaimed."""
    monkeypatch.setattr(module, "AGAIN", 0.01)
    monkeypatch.setattr(module, "SLICE", 1)

    async def test(edge: Edge) -> None:
        await edge.claim("CAR-1", "edge-2")
        await edge.map.start()
        edge.connections.faults = 2
        edge.own.start()
        edge.own.compare()
        await until(lambda: edge.own.reclaimed == 1 and edge.connections.ended == ["CAR-1"], "the comparison")

    with_edge(etcd, ["CAR-1", "CAR-2"], test)


def test_change_of_a_record_makes_a_vehicle_foreign_and_back(etcd: EmbeddedEtcd) -> None:
    async def test(edge: Edge) -> None:
        await edge.claim("CAR-1", "edge-1")
        await edge.claim("CAR-9", "edge-1")  # it has nothing here
        await edge.map.start()
        edge.own.start()
        await edge.map.move("CAR-9", "edge-2")
        await edge.map.move("CAR-1", "edge-2")
        await until(lambda: edge.connections.ended == ["CAR-1"], "the vehicle is foreign")
        assert edge.own.foreign == {"CAR-1": "edge-2"}
        while await kept_by(edge.client, edge.mesh, "CAR-1") != ["edge-1"]:
            await asyncio.sleep(0.01)
        await edge.map.move("CAR-1", "edge-1")
        await until(lambda: not edge.own.foreign, "the vehicle is owned again")
        while await kept_by(edge.client, edge.mesh, "CAR-1"):
            await asyncio.sleep(0.01)

    with_edge(etcd, ["CAR-1"], test)


def test_foreign_vehicle_is_not_claimed_when_the_map_is_lost(etcd: EmbeddedEtcd) -> None:
    """Its edge has the newer state, and may be away."""

    async def test(edge: Edge) -> None:
        await edge.claim("CAR-1", "edge-2")
        await edge.map.start()
        edge.own.start()
        edge.own.compare()
        await until(lambda: "CAR-1" in edge.own.foreign and edge.own.reclaimed == 1, "the first comparison")
        for vehicle in ("CAR-1", "CAR-2"):
            await edge.client.delete(Keys(edge.mesh).vehicle(vehicle))
        await until(lambda: len(edge.map) == 0, "the map is lost")
        edge.own.compare()
        await until(lambda: edge.own.reclaimed == 2, "the second comparison")
        assert await edge.owner("CAR-1") == ""
        assert await edge.owner("CAR-2") == "edge-1"
        assert "CAR-1" in edge.own.foreign

    with_edge(etcd, ["CAR-1", "CAR-2"], test)


def test_foreign_vehicle_of_which_nothing_is_left_is_forgotten(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP", 0.2)

    async def test(edge: Edge) -> None:
        await edge.claim("CAR-1", "edge-2")
        await edge.map.start()
        edge.own.start()
        edge.own.compare()
        await until(lambda: "CAR-1" in edge.own.foreign, "the vehicle is foreign")
        edge.holdings.vehicles.clear()
        await until(lambda: not edge.own.foreign, "it is forgotten")
        while await kept_by(edge.client, edge.mesh, "CAR-1"):
            await asyncio.sleep(0.01)

    with_edge(etcd, ["CAR-1"], test)


def test_comparison_waits_for_etcd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.05)

    async def main() -> None:
        server = EmbeddedEtcd(tmp_path / "etcd")
        await server.start()
        edge = Edge(server, ["CAR-1"])
        await edge.map.start()
        await server.stop()
        edge.own.start()
        edge.own.compare()
        await until(lambda: not edge.own._compare, "the comparison has begun")
        assert edge.own.reclaimed == 0
        await server.start()
        await until(lambda: edge.own.reclaimed == 1, "the vehicle is claimed")
        await edge.close()
        await server.stop()

    asyncio.run(main())


def test_many_vehicles_are_compared_in_slices(etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop turns between two slices, and vehicles whose record is in memory cost no question."""
    monkeypatch.setattr(module, "SLICE", 100)
    vehicles = [f"CAR-{number}" for number in range(2000)]

    async def test(edge: Edge) -> None:
        await edge.map.start()
        edge.own.start()
        edge.own.compare()
        await until(lambda: edge.own.reclaimed == len(vehicles), "all are claimed")
        assert len(edge.map) == len(vehicles)
        await until(lambda: not edge.own._wake.is_set(), "the comparison has ended")
        looked = most = 0
        is_known = edge.own._is_known

        def counted(vehicle: str) -> bool:
            nonlocal looked
            looked += 1
            assert is_known(vehicle), "it would be asked for"
            return True

        monkeypatch.setattr(edge.own, "_is_known", counted)
        edge.own.compare()
        while looked < len(vehicles):
            before = looked
            await asyncio.sleep(0)
            most = max(most, looked - before)
        assert most == 100

    with_edge(etcd, vehicles, test)
