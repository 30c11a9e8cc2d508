"""The front door as a node, with a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.frontdoor import door as frontdoor
from mesh.frontdoor import node
from mesh.frontdoor.node import DoorNode
from mesh.frontdoor.status import DoorStatus
from mesh.node.config import NodeConfig
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.members import Announcement
from mesh.topology.topology import EtcdSpec
from mesh.transport.waiting import until as waited
from tests.support.configs import config
from tests.support.waiting import PATIENCE


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


def door_place(etcd: EmbeddedEtcd) -> NodeConfig:
    place = config("door")
    topology = replace(place.topology, etcd=EtcdSpec(), data=etcd.log_file.parent.parent)
    return replace(place, topology=topology, endpoints=(etcd.endpoint,))


def edges_of(door: DoorNode) -> set[str]:
    """The edges to which the door has links."""
    status = door.status()
    assert isinstance(status, DoorStatus)
    return {link.peer for link in status.door.links}


def test_door_of_a_new_mesh_waits_for_all_edges(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the first edge to start would get all the first vehicles, and keep them."""
    monkeypatch.setattr(node, "_FIRST_EDGES", PATIENCE)

    async def run() -> None:
        waiting = asyncio.Event()

        async def told(condition: Callable[[], bool], seconds: float) -> bool:
            waiting.set()
            return await waited(condition, seconds)

        monkeypatch.setattr(node, "until", told)
        client = etcd.client()
        edges = [
            Announcement(client, "demo", name=name, role="edge", host="127.0.0.1", ports={"device": 1, "tier": 2})
            for name in ("edge-1", "edge-2")
        ]
        assert await edges[0].start()
        door = DoorNode(door_place(etcd))
        starting = asyncio.create_task(door.start())
        try:
            await asyncio.wait_for(waiting.wait(), PATIENCE)
            assert edges_of(door) == {"edge-1"}
            assert await edges[1].start()
            await asyncio.wait_for(starting, PATIENCE)
            assert edges_of(door) == {"edge-1", "edge-2"}
        finally:
            starting.cancel()
            await door.stop(0.1)
            for edge in edges:
                await edge.stop()
            await client.close()

    asyncio.run(run())


def test_a_door_that_sends_its_vehicles_away_is_announced_no_longer(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be asked for its vote on a change, and does not give one. It may take many minutes."""
    monkeypatch.setattr(node, "_FIRST_EDGES", 0.0)

    async def run() -> None:
        sent_away = asyncio.Event()

        async def spread(*arguments: object) -> None:
            await sent_away.wait()

        monkeypatch.setattr(frontdoor, "spread", spread)
        client = etcd.client()
        place = door_place(etcd)
        key = Keys(place.topology.mesh).member(place.name)
        door = DoorNode(place)
        await door.start()
        assert await client.get(key) is not None
        stopping = asyncio.create_task(door.stop(60.0))
        try:
            async with asyncio.timeout(PATIENCE):
                while await client.get(key) is not None:
                    await asyncio.sleep(0.02)
            assert not stopping.done()
        finally:
            sent_away.set()
            await asyncio.wait_for(stopping, PATIENCE)
            await client.close()

    asyncio.run(run())
