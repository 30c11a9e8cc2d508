"""The census of the vehicle map, on a real etcd."""

from __future__ import annotations

import asyncio

import pytest

from mesh.registry import census as module
from mesh.registry.census import Census, census
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import Unavailable
from mesh.registry.keys import Keys
from mesh.registry.record import Record


async def fill(client: EtcdClient, mesh: str, **edges: int) -> None:
    """So many records for each edge; the vehicles are named after it."""
    keys = Keys(mesh)
    for edge, count in edges.items():
        for number in range(count):
            vehicle = f"{edge}-{number}"
            await client.put(keys.vehicle(vehicle), Record(vehicle, edge, "pool", 1).value())


def test_census_counts_every_vehicle_once(etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 4)

    async def main() -> None:
        client = etcd.client()
        assert await census(client, mesh) == Census(complete=True)
        await fill(client, mesh, a=11, b=3, c=1)
        await fill(client, mesh + "-other", a=2)
        found = await census(client, mesh)
        assert (found.edges, found.complete) == ({"a": 11, "b": 3, "c": 1}, True)
        assert found.vehicles == 15
        assert found.owned(["b", "d"]) == {"b": 3, "d": 0}
        assert found.number(11) == "11"
        await client.close()

    asyncio.run(main())


def test_census_counts_the_vehicles_that_stay_against_a_rule(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        await fill(client, mesh, a=4, b=3)
        found = await census(client, mesh, lambda vehicle, edge: edge == "a" and vehicle != "a-0")
        assert (found.strays, found.edges) == (3, {"a": 4, "b": 3})
        await client.close()

    asyncio.run(main())


def test_census_names_records_of_another_form(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        await fill(client, mesh, a=1)
        await client.put(Keys(mesh).vehicle("bad"), b"{}")
        found = await census(client, mesh)
        assert (found.edges, found.unreadable, found.complete) == ({"a": 1}, 1, True)
        await client.close()

    asyncio.run(main())


@pytest.mark.parametrize("stop", ["deadline", "etcd"])
def test_census_that_is_cut_short_gives_lower_bounds(
    etcd: EmbeddedEtcd, mesh: str, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)

    async def main() -> None:
        client = etcd.client()
        await fill(client, mesh, a=4, b=3)
        pages, read = client.pages, 0

        async def cut(prefix, *, page, timeout):  # type: ignore[no-untyped-def]
            nonlocal read
            async for one in pages(prefix, page=page, timeout=timeout):
                yield one
                read += 1
                if read == 2:
                    if stop == "etcd":
                        raise Unavailable("no answer")
                    await asyncio.Event().wait()

        monkeypatch.setattr(EtcdClient, "pages", lambda self, *args, **options: cut(*args, **options))
        found = await census(client, mesh, seconds=1.0)
        assert (found.edges, found.complete) == ({"a": 4}, False)
        assert found.owned(["a", "b"]) == {"a": 4}, "nothing is known of b"
        assert found.number(4) == "at least 4"
        await client.close()

    asyncio.run(main())


def test_census_without_etcd_raises_in_time(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = EtcdClient(["http://127.0.0.1:1"])
        with pytest.raises(Unavailable):
            await census(client, mesh, seconds=0.5)
        await client.close()

    asyncio.run(main())
