"""The census of the vehicle map, on a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from mesh.registry import census as module
from mesh.registry import etcd_pb2 as pb
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


def anywhere(vehicle: str, edge: str) -> bool:
    """No rule: each vehicle may be on each edge."""
    return False


def test_census_counts_every_vehicle_once(etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 4)

    async def main() -> None:
        client = etcd.client()
        assert await census(client, mesh, anywhere, 5.0) == Census({}, 0, True)
        await fill(client, mesh, a=11, b=3, c=1)
        await fill(client, mesh + "-other", a=2)
        found = await census(client, mesh, anywhere, 5.0)
        assert found == Census({"a": 11, "b": 3, "c": 1}, 0, True)
        assert found.owned(["b", "d"]) == {"b": 3, "d": 0}
        await client.close()

    asyncio.run(main())


def test_census_counts_the_vehicles_that_stay_against_a_rule(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        await fill(client, mesh, a=4, b=3)
        found = await census(client, mesh, lambda vehicle, edge: edge == "a" and vehicle != "a-0", 5.0)
        assert found == Census({"a": 4, "b": 3}, 3, True)
        await client.close()

    asyncio.run(main())


def test_a_record_that_cannot_be_read_may_belong_to_any_edge(
    etcd: EmbeddedEtcd, mesh: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        client = etcd.client()
        await fill(client, mesh, a=1)
        for vehicle in ("bad-1", "bad-2"):
            await client.put(Keys(mesh).vehicle(vehicle), b"{}")
        found = await census(client, mesh, anywhere, 5.0)
        assert found == Census({"a": 1}, 0, False)
        assert found.owned(["a", "b"]) == {"a": 1}, "the number of b is not known"
        await client.close()

    asyncio.run(main())
    (message,) = caplog.messages
    assert "bad-1 holds b'{}'" in message


@pytest.mark.parametrize("stop", ["deadline", "etcd"])
def test_census_that_is_cut_short_gives_lower_bounds(
    etcd: EmbeddedEtcd, mesh: str, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    pages = EtcdClient.pages

    async def cut(self: EtcdClient, *of: Any, **options: Any) -> AsyncGenerator[pb.RangeResponse, None]:
        read = 0
        async for page in pages(self, *of, **options):
            yield page
            read += 1
            if read == 2 and stop == "etcd":
                raise Unavailable("no answer")
            if read == 2:
                await asyncio.Event().wait()

    async def main() -> None:
        client = etcd.client()
        await fill(client, mesh, a=4, b=3)
        monkeypatch.setattr(EtcdClient, "pages", cut)
        found = await census(client, mesh, anywhere, 1.0)
        assert found == Census({"a": 4}, 0, False)
        assert found.owned(["a", "b"]) == {"a": 4}, "the number of b is not known"
        await client.close()

    asyncio.run(main())


def test_census_without_etcd_raises(mesh: str) -> None:
    async def main() -> None:
        client = EtcdClient(["http://127.0.0.1:1"])
        with pytest.raises(Unavailable):
            await census(client, mesh, anywhere, 0.5)
        await client.close()

    asyncio.run(main())
