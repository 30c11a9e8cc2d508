"""The vehicle map on a real etcd."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import BadRecord, Conflict, NoEdge, Unavailable
from mesh.registry.keys import Keys
from mesh.registry.map import VehicleMap, records, where
from mesh.registry.record import Record
from mesh.registry.rendezvous import choose
from tests.registry.gate import Gate
from tests.support.freezing import freeze
from tests.support.waiting import until

EDGES = {"edge-1": 1.0, "edge-2": 1.0, "edge-3": 1.0}

Change = tuple[Record | None, Record | None]


def listen(vehicles: VehicleMap) -> list[Change]:
    changes: list[Change] = []
    vehicles.on_change = lambda old, new: changes.append((old, new))
    return changes


async def retold(client: EtcdClient, mesh: str, vehicle: str, edge: str) -> Record:
    """A claim by another front door."""
    other = VehicleMap(client, mesh)
    record = await other.claim(vehicle, "pool", {edge: 1.0})
    await other.stop()
    return record


def test_claim_is_permanent(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        vehicles = VehicleMap(client, mesh)
        assert await vehicles.start(10.0)
        assert vehicles.cached("V") is None
        assert await vehicles.lookup("V") is None
        record = await vehicles.claim("V", "pool", EDGES)
        assert record == Record("V", choose("V", EDGES) or "", "pool", 1)
        assert vehicles.cached("V") == record
        # With other healthy edges and another pool.
        for edges in ({"edge-9": 1.0}, {}):
            assert await vehicles.claim("V", "other", edges) == record
            fresh = VehicleMap(client, mesh)
            assert await fresh.claim("V", "other", edges) == record
            await fresh.stop()
        assert await where(client, mesh, "V") == record
        assert await where(client, mesh, "W") is None
        assert await where(client, mesh + "-other", "V") is None, "another mesh in the same etcd"
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_claim_of_a_new_vehicle_needs_an_edge(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        vehicles = VehicleMap(client, mesh)
        for edges in ({}, {"drained": 0.0}):
            with pytest.raises(NoEdge, match=r"'V'.*'pool'"):
                await vehicles.claim("V", "pool", edges)
        for name in ("", "a/b"):
            with pytest.raises(ValueError, match="vehicle"):
                await vehicles.claim(name, "pool", EDGES)
            with pytest.raises(ValueError, match="vehicle"):
                await vehicles.lookup(name)
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_changes_by_other_processes_are_reported(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        vehicles = VehicleMap(client, mesh)
        changes = listen(vehicles)
        assert await vehicles.start(10.0)
        await until(lambda: vehicles.live, "the map is complete")
        other = VehicleMap(client, mesh)
        first = await other.claim("V", "pool", {"edge-1": 1.0})
        second = await other.move("V", "edge-2")
        assert second == Record("V", "edge-2", "pool", 2)
        third = await other.move("V", "edge-3", "new pool")
        await client.delete(Keys(mesh).vehicle("V"))
        await until(lambda: len(changes) == 4, "all changes")
        assert changes == [(None, first), (first, second), (second, third), (third, None)]
        assert vehicles.cached("V") is None
        # Own changes are reported too.
        own = await vehicles.claim("W", "pool", EDGES)
        await until(lambda: changes[4:] == [(None, own)], "the own claim is reported")
        await other.stop()
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_move_changes_the_owner_and_raises_the_epoch(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        maps = [VehicleMap(client, mesh) for _ in range(4)]
        with pytest.raises(Conflict, match="no record"):
            await maps[0].move("V", "edge-2")
        await maps[0].claim("V", "pool", {"edge-1": 1.0})
        assert (await maps[0].move("V", "edge-1")).epoch == 1, "edge-1 already owns it"
        moved = await asyncio.gather(
            *(vehicles.move("V", f"to-{number}") for number, vehicles in enumerate(maps)), return_exceptions=True
        )
        won = [record for record in moved if isinstance(record, Record)]
        assert all(isinstance(record, Record | Conflict) for record in moved)
        assert len({record.epoch for record in won}) == len(won) >= 1, "each epoch has one owner"
        last = max(won, key=lambda record: record.epoch)
        assert await where(client, mesh, "V") == last
        for vehicles in maps:
            await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_concurrent_claims_of_several_doors_agree(etcd: EmbeddedEtcd, mesh: str) -> None:
    """Twenty storms: four processes, which see different healthy edges, claim the same new vehicles at once."""

    async def main() -> None:
        clients = [etcd.client() for _ in range(4)]
        maps = [VehicleMap(client, mesh) for client in clients]
        views = [{f"edge-{number}": 1.0 for number in range(9) if number % 4 != hidden} for hidden in range(4)]
        for vehicles in maps[:2]:
            assert await vehicles.start(10.0)
        for storm in range(20):
            names = [f"V{storm}-{number}" for number in range(60)]
            answers = await asyncio.gather(
                *(
                    asyncio.gather(*(vehicles.claim(name, "pool", view) for name in names))
                    for vehicles, view in zip(maps, views, strict=True)
                )
            )
            assert all(answer == answers[0] for answer in answers)
            assert all(record.epoch == 1 for record in answers[0])
        found = {record.vehicle: record async for page in records(clients[0], mesh) for record in page}
        assert len(found) == 20 * 60
        for vehicles in maps:
            assert all(vehicles.cached(name) in (record, None) for name, record in found.items())
        used = {record.edge for record in found.values()}
        assert any(used.issuperset(view) for view in views)  # one process may be the first for every vehicle
        for vehicles, client in zip(maps, clients, strict=True):
            await vehicles.stop()
            await client.close()

    asyncio.run(main())


def test_concurrent_lookups_and_claims_of_one_vehicle(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        vehicles = VehicleMap(client, mesh)
        found = await asyncio.gather(
            *(vehicles.lookup("V") for _ in range(5)),
            *(vehicles.claim("V", "pool", EDGES) for _ in range(5)),
        )
        assert set(found[:5]) <= {None, found[5]}
        assert found[5:] == [found[5]] * 5
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_memory_is_bounded(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        writer = VehicleMap(client, mesh)
        names = [f"V{number:04d}" for number in range(700)]
        written = await asyncio.gather(*(writer.claim(name, "pool", EDGES) for name in names))
        small = VehicleMap(client, mesh, limit=600)
        assert await small.start(10.0)
        await until(lambda: small.live, "the map is followed")
        assert len(small) == 600
        assert await asyncio.gather(*(small.lookup(name) for name in names)) == written
        assert len(small) == 600
        assert small.evicted > 0
        # The most recently used record stays.
        small.cached(names[650])
        await asyncio.gather(*(writer.claim(f"W{number}", "pool", EDGES) for number in range(599)))
        await asyncio.gather(*(small.lookup(f"W{number}") for number in range(599)))
        assert small.cached(names[650]) == written[650]
        # A change of a vehicle that is not in memory is reported, and its record is not stored.
        changes = listen(small)
        evicted = next(name for name in names if small.cached(name) is None)
        moved = await writer.move(evicted, "edge-9")
        await until(lambda: any(new == moved for _, new in changes), "the move is reported")
        assert small.cached(evicted) is None
        assert changes[-1] == (written[names.index(evicted)], moved)
        # A record in memory is updated.
        moved = await writer.move(names[650], "edge-9")
        await until(lambda: small.cached(names[650]) == moved, "the cached record follows")
        # A large enough map has all records.
        large = VehicleMap(client, mesh)
        assert await large.start(10.0)
        await until(lambda: large.live, "all records are known")
        assert len(large) == 700 + 599
        for vehicles in (writer, small, large):
            await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_complete_map_evicts_above_its_limit(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        small = VehicleMap(client, mesh, limit=10)
        assert await small.start(10.0)
        await until(lambda: small.live, "all records are known")
        writer = VehicleMap(client, mesh)
        await asyncio.gather(*(writer.claim(f"V{number}", "pool", EDGES) for number in range(11)))
        await until(lambda: small.evicted == 1, "one record is evicted")
        assert len(small) == 10
        await writer.stop()
        await small.stop()
        await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_map_recovers_after_etcd_is_unavailable(etcd: EmbeddedEtcd, mesh: str, blow: signal.Signals) -> None:
    """etcd is dead, or silent: cached records are returned, other lookups fail in time, and the map recovers by
    itself."""

    async def main() -> None:
        client = etcd.client()
        vehicles = VehicleMap(client, mesh, deadline=0.5)
        assert await vehicles.start(10.0)
        known = await vehicles.claim("known", "pool", EDGES)
        await until(lambda: vehicles.live, "all records are known")
        os.kill(etcd.pid, blow)
        try:
            if blow == signal.SIGKILL:
                await until(lambda: not vehicles.live, "the map is not live")
            assert await vehicles.lookup("known") == known
            assert await vehicles.claim("known", "pool", {}) == known
            asked = [vehicles.lookup("unknown"), vehicles.claim("new", "pool", EDGES)]
            storm = [vehicles.lookup(f"V{number}") for number in range(3000)]
            answers = await asyncio.wait_for(asyncio.gather(*asked, *storm, return_exceptions=True), 20.0)
            assert all(isinstance(answer, Unavailable) for answer in answers)
        finally:
            if blow == signal.SIGSTOP:
                os.kill(etcd.pid, signal.SIGCONT)
        await etcd.start()
        await until(lambda: vehicles.live, "the map follows again")

        async def claimed() -> Record:
            while True:
                try:
                    return await vehicles.claim("new", "pool", EDGES)
                except Unavailable:
                    continue

        assert (await asyncio.wait_for(claimed(), 20.0)).epoch == 1
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_map_starts_without_etcd(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        await retold(client, mesh, "V", "edge-1")
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: not etcd.alive, "etcd is dead")
        vehicles = VehicleMap(client, mesh)
        changes = listen(vehicles)
        assert not await vehicles.start(0.1)
        await etcd.start()
        await until(lambda: vehicles.cached("V"), "the map is loaded")
        assert changes == [], "existing records are not reported as changes"
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_compacted_changes_are_reported_from_a_snapshot(
    etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd compacted changes that the watch missed: the new snapshot reports each of them anyway."""

    async def main() -> None:
        gate = Gate(monkeypatch)
        client = etcd.client()
        writer = VehicleMap(client, mesh)
        before = {name: await writer.claim(name, "pool", EDGES) for name in ("kept", "moved", "deleted", "read")}
        vehicles = VehicleMap(client, mesh)
        changes = listen(vehicles)
        assert await vehicles.start(10.0)
        await until(lambda: vehicles.live, "all records are known")
        gate.shut()
        await until(lambda: not vehicles.live, "the stream is broken")
        moved = await writer.move("moved", "edge-9")
        await client.delete(Keys(mesh).vehicle("deleted"))
        added = await writer.claim("added", "pool", EDGES)
        assert await vehicles.lookup("added") == added
        await client.compact(await client.put(f"/{mesh}-other".encode(), b""))
        gate.open = True
        await until(lambda: vehicles.live, "all records are known again")
        assert changes == [(None, added), (before["moved"], moved), (before["deleted"], None)]
        assert len(vehicles) == 4
        assert vehicles.cached("kept") == before["kept"]
        await writer.stop()
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_change_overtakes_the_answer_to_a_lookup(
    etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd answered before a change, and the answer arrives after the change: the change is kept."""

    async def main() -> None:
        client = etcd.client()
        writer = VehicleMap(client, mesh)
        vehicles = VehicleMap(client, mesh, limit=1)
        assert await vehicles.start(10.0)
        await until(lambda: vehicles.live, "the map is followed")
        changes = listen(vehicles)
        # The first two overflow the memory; after that, a new vehicle is not stored.
        for name in ("filler 1", "filler 2", "V", "W"):
            await writer.claim(name, "pool", {"edge-1": 1.0})
        await until(lambda: len(changes) == 4, "all changes are applied")
        original = EtcdClient.txn
        held = asyncio.Event()
        arrived = asyncio.Event()

        async def slow(*args: object, **options: object) -> object:
            answer = await original(*args, **options)  # type: ignore[arg-type]
            arrived.set()
            await held.wait()
            return answer

        assert vehicles.cached("V") is None
        assert vehicles.cached("W") is None
        monkeypatch.setattr(EtcdClient, "txn", slow)
        asked = [asyncio.create_task(vehicles.lookup(name)) for name in ("V", "W")]
        await asyncio.wait_for(arrived.wait(), 10.0)
        monkeypatch.setattr(EtcdClient, "txn", original)
        moved = await writer.move("V", "edge-2")
        await client.delete(Keys(mesh).vehicle("W"))
        await until(lambda: len(changes) == 6, "the watch has reported the change")
        held.set()
        assert await asyncio.gather(*asked) == [moved, None]
        assert vehicles.cached("V") == moved
        await writer.stop()
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_bad_record_does_not_affect_other_records(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        await client.put(Keys(mesh).vehicle("bad"), b"not a record")
        vehicles = VehicleMap(client, mesh)
        assert await vehicles.start(10.0)
        await until(lambda: vehicles.live, "the map is followed")
        answers = await asyncio.gather(
            vehicles.lookup("bad"),
            vehicles.claim("bad two", "pool", EDGES),
            vehicles.claim("good", "pool", EDGES),
            return_exceptions=True,
        )
        assert isinstance(answers[0], BadRecord)
        assert isinstance(answers[1], Record)
        assert isinstance(answers[2], Record)
        await client.put(Keys(mesh).vehicle("good"), b"{}")
        repaired = await client.put(Keys(mesh).vehicle("bad"), Record("bad", "edge-1", "pool", 1).value())
        await until(lambda: vehicles.cached("bad"), "the repaired record arrives")
        assert vehicles.cached("good") == answers[2], "the last valid record stays"
        assert repaired
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_failing_listener_does_not_stop_the_map(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        vehicles = VehicleMap(client, mesh)
        failed: list[Record | None] = []

        def fail(old: Record | None, new: Record | None) -> None:
            failed.append(new)
            if len(failed) == 1:
                raise ZeroDivisionError("a listener with a fault")

        vehicles.on_change = fail
        assert await vehicles.start(10.0)
        record = await retold(client, mesh, "V", "edge-1")
        await until(lambda: len(failed) == 2, "it is reported again")
        assert vehicles.cached("V") == record
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_stop_fails_pending_lookups(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        vehicles = VehicleMap(client, mesh)
        assert await vehicles.start(10.0)
        freeze(etcd.pid)
        try:
            asked = asyncio.create_task(vehicles.lookup("V"))
            await until(lambda: "V" in vehicles._batcher, "the question waits")
            await vehicles.stop()
            with pytest.raises(Unavailable, match="closed"):
                await asyncio.wait_for(asked, 10.0)
        finally:
            os.kill(etcd.pid, signal.SIGCONT)
        await client.close()

    asyncio.run(main())


def test_limit_below_one_record_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        VehicleMap(EtcdClient(["http://127.0.0.1:1"]), "m", limit=0)
