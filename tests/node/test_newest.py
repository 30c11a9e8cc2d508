"""The settings with which nodes start and that they follow, with a real etcd."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from mesh.core import node as core_room
from mesh.core.node import CoreNode
from mesh.edge.node import EdgeNode
from mesh.figures.node import NodeStatus
from mesh.frontdoor import node as door_room
from mesh.frontdoor.node import DoorNode
from mesh.node import newest as room
from mesh.node.config import NodeConfig
from mesh.node.kept import keep, read_kept
from mesh.node.newest import newest
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.settings import Revision, SettingsStore, number_in
from mesh.topology.topology import EtcdSpec, Topology, as_dict
from tests.support.configs import config
from tests.support.loop import run
from tests.support.waiting import PATIENCE, until


class Node(Protocol):
    async def start(self) -> None: ...
    async def stop(self, grace: float) -> None: ...
    def status(self) -> NodeStatus: ...


ROLES: dict[str, Callable[[NodeConfig], Node]] = {"edge-1": EdgeNode, "core": CoreNode, "door": DoorNode}


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes do not wait for the others of the mesh."""
    monkeypatch.setattr(core_room, "_FIRST_LINKS", 0.0)
    monkeypatch.setattr(door_room, "_FIRST_EDGES", 0.0)


def place_of(etcd: EmbeddedEtcd, name: str = "edge-1", revision: int = 1) -> NodeConfig:
    place = config(name)
    data = etcd.log_file.parent.parent
    folder = data / name
    folder.mkdir(mode=0o700, exist_ok=True)
    topology = replace(place.topology, etcd=EtcdSpec(), data=data)
    return replace(place, topology=topology, endpoints=(etcd.endpoint,), folder=folder, revision=revision)


def draft(topology: Topology, number: int = 0, **limits: int) -> Revision:
    changed = replace(topology, limits=replace(topology.limits, **limits))
    return Revision(number, as_dict(changed), 12.5, "ada", "host-1")


async def said(store: SettingsStore, name: str, number: int) -> None:
    """Return when the node has confirmed the revision."""
    async with asyncio.timeout(PATIENCE):
        while (one := (await store.confirmed()).get(name)) is None or (one.revision, one.error) != (number, ""):
            await asyncio.sleep(0.02)


async def voted(store: SettingsStore, name: str, number: int) -> dict[str, str]:
    """The votes, when the node has given its own."""
    async with asyncio.timeout(PATIENCE):
        while name not in (votes := await store.votes(number)):
            await asyncio.sleep(0.02)
    return votes


async def last_is(client: EtcdClient, place: NodeConfig, number: int) -> None:
    """Return when the last number that counts as given is this one."""
    async with asyncio.timeout(PATIENCE):
        while (found := await client.get(Keys(place.topology.mesh).last)) is None or number_in(found) != number:
            await asyncio.sleep(0.02)


def test_the_newest_of_etcd_folder_and_assignment_is_taken(etcd: EmbeddedEtcd) -> None:
    async def main() -> None:
        client = etcd.client()
        place = place_of(etcd)
        assert await newest(place) == place, "there is no other"
        keep(place.folder, draft(place.topology, 2, sessions=22), 0.0)
        assert (await newest(place)).topology.limits.sessions == 22
        made = await SettingsStore(client, place.topology.mesh).first(draft(place.topology, 2, sessions=33))
        taken = await newest(place)
        assert (taken.revision, taken.topology.limits.sessions) == (3, 33)
        assert read_kept(place.folder, 0.0) == made, "the next start may be without etcd"
        assert await newest(replace(place, revision=4)) == replace(place, revision=4)
        await client.close()

    run(main())


def test_a_start_without_etcd_takes_the_settings_of_the_folder(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_WAIT", 0.2)

    async def main() -> None:
        place = place_of(etcd)
        keep(place.folder, draft(place.topology, 2, sessions=22), 0.0)
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: not etcd.alive, "etcd is dead")
        taken = await newest(place)
        assert (taken.revision, taken.topology.limits.sessions) == (2, 22)

    run(main())


def test_settings_that_cannot_be_used_are_passed_over(etcd: EmbeddedEtcd) -> None:
    async def main() -> None:
        client = etcd.client()
        place = place_of(etcd)
        store = SettingsStore(client, place.topology.mesh)
        keep(place.folder, draft(place.topology, 2, sessions=22), 0.0)
        await store.first(Revision(2, {"mesh": "demo"}, 12.5, "ada", "host-1"))
        assert (await newest(place)).revision == 2, "etcd's revision 3 is of another version"
        await client.put(Keys(place.topology.mesh).current, b"foreign")
        assert (await newest(place)).revision == 2
        without = replace(place.topology, pools=())
        keep(place.folder, draft(without, 5), 0.0)
        assert await newest(place) == place, "the folder's revision does not have this edge"
        await client.close()

    run(main())


@pytest.mark.parametrize("name", ROLES)
def test_a_node_votes_confirms_and_shows_its_revision(etcd: EmbeddedEtcd, name: str) -> None:
    async def main() -> None:
        client = etcd.client()
        place = place_of(etcd, name, revision=0)
        store = SettingsStore(client, place.topology.mesh)
        await store.first(draft(place.topology, sessions=500))
        node = ROLES[name](place)
        await node.start()
        try:
            assert node.status().revision == 1, "it was started with the revision in force"
            await said(store, name, 1)
            withdrawn = await store.propose(draft(place.topology, sessions=600), 1)
            assert await voted(store, name, withdrawn.number) == {name: ""}
            await store.withdraw(withdrawn)
            changed = await store.propose(draft(place.topology, sessions=700), 1)
            assert await voted(store, name, changed.number) == {name: ""}
            assert node.status().revision == 1
            await store.commit(changed)
            await said(store, name, changed.number)
            assert node.status().revision == changed.number
            assert "revision" not in node.status().detail
            kept = read_kept(place.folder, 0.0)
            assert kept is not None
            assert kept.number == changed.number
        finally:
            await node.stop(1.0)
        assert await store.confirmed() == {}, "a node that has stopped says nothing"
        await client.close()

    run(main())


def test_a_node_goes_on_while_etcd_is_away_and_takes_what_is_in_force_afterwards(etcd: EmbeddedEtcd) -> None:
    async def main() -> None:
        client = etcd.client()
        place = place_of(etcd, revision=0)
        store = SettingsStore(client, place.topology.mesh)
        first = await store.first(draft(place.topology))
        node = EdgeNode(place)
        await node.start()
        try:
            await said(store, "edge-1", 1)
            os.kill(etcd.pid, signal.SIGKILL)
            await until(lambda: not etcd.alive, "etcd is dead")
            assert (node.status().revision, node.status().detail) == (1, "")
            await etcd.start()
            second = await store.first(replace(first, number=0))
            await said(store, "edge-1", second.number)
            assert node.status().revision == second.number
            await client.delete(Keys(place.topology.mesh).last)  # not followed, so it has to be gone first
            await client.delete(Keys(place.topology.mesh).current)
            await last_is(client, place, second.number)
            assert node.status().revision == second.number
        finally:
            await node.stop(1.0)
        await client.close()

    run(main())
