"""Membership on a real etcd."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import BadRecord
from mesh.registry.keys import Keys
from mesh.registry.members import Announcement, Member, Members, decode, members
from tests.support.waiting import until

Change = tuple[Member | None, Member | None]


def announce(
    client: EtcdClient, mesh: str, name: str = "edge-1", *, role: str = "edge", port: int = 7000
) -> Announcement:
    ports = {"device": port, "tier": port + 1}
    return Announcement(client, mesh, name=name, role=role, host="127.0.0.1", ports=ports, pool="standard", ttl=1)


def listen(view: Members) -> list[Change]:
    changes: list[Change] = []
    view.on_change = lambda old, new: changes.append((old, new))
    return changes


def test_members_are_added_changed_and_removed(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        edge = announce(client, mesh)
        core = announce(client, mesh, "core-1", role="core", port=8000)
        assert await core.start(10.0)
        view = Members(client, mesh)
        changes = listen(view)
        assert await view.start(10.0)
        assert changes == [(None, core.member)], "existing members are reported too"
        assert await edge.start(10.0)
        assert edge.announced
        await until(lambda: view.get("edge-1"), "the edge is seen")
        assert view.get("edge-1") == Member(
            "edge-1", "edge", "127.0.0.1", {"device": 7000, "tier": 7001}, os.getpid(), 1, "standard"
        )
        assert [member.name for member in view.all()] == ["core-1", "edge-1"]
        assert view.all("edge") == [edge.member]
        assert view.all("door") == []
        assert await members(client, mesh) == view.all()
        assert await members(client, mesh + "-other") == []
        before = edge.member
        edge.update(ports={"device": 7100, "tier": 7101})
        await until(lambda: changes[-1] == (before, edge.member), "the new address is seen")
        after = edge.member
        assert after.epoch == 1
        await edge.stop()
        await until(lambda: changes[-1] == (after, None), "it is removed")
        assert view.get("edge-1") is None
        await core.stop()
        await view.stop()
        await client.close()

    asyncio.run(main())


def test_each_start_gets_a_higher_epoch(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        epochs = []
        for _ in range(3):
            edge = announce(client, mesh)
            assert await edge.start(10.0)
            epochs.append(edge.epoch)
            await edge.stop()
        assert epochs == [1, 2, 3]
        # Many concurrent starts: all epochs differ.
        several = [announce(client, mesh, "busy") for _ in range(5)]
        await asyncio.gather(*(edge.start(10.0) for edge in several), return_exceptions=True)
        taken = [edge.epoch for edge in several]
        assert len(set(taken)) == 5
        await asyncio.gather(*(edge.stop() for edge in several))
        await client.close()

    asyncio.run(main())


def test_newer_process_of_a_name_supersedes_the_older(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        old, new = announce(client, mesh, port=7000), announce(client, mesh, port=9000)
        superseded: list[bool] = []
        old.on_superseded = lambda: superseded.append(True)
        assert await old.start(10.0)
        assert await new.start(10.0)
        assert new.epoch > old.epoch
        old.update(host="stale")
        await until(lambda: superseded, "the older one is superseded")
        assert await members(client, mesh) == [new.member]
        await old.stop()
        assert await members(client, mesh) == [new.member], "the older one leaves the newer entry"
        await new.stop()
        await client.close()

    asyncio.run(main())


def test_members_stay_while_etcd_is_unavailable(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        edge = announce(client, mesh)
        lost: list[bool] = []
        edge.on_lost = lambda: lost.append(True)
        assert await edge.start(10.0)
        view = Members(client, mesh)
        assert await view.start(10.0)
        await until(lambda: view.live, "members are followed")
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: lost, "the lease is lost")
        assert view.get("edge-1") == edge.member
        assert not view.live
        edge.update(host="moved")
        await etcd.start()
        await until(lambda: view.get("edge-1") == edge.member and view.live, "the new address is seen")
        assert edge.member.host == "moved"
        assert edge.epoch == 1, "the process is the same"
        await edge.stop()
        await view.stop()
        await client.close()

    asyncio.run(main())


def test_member_is_announced_when_etcd_starts_later(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: not etcd.alive, "etcd is dead")
        edge = announce(client, mesh)
        view = Members(client, mesh)
        assert not await edge.start(0.1)
        assert not await view.start(0.1)
        assert edge.epoch == 0
        await etcd.start()
        await until(lambda: view.get("edge-1"), "the edge is seen")
        assert edge.epoch == 1
        await edge.stop()
        await view.stop()
        await client.close()

    asyncio.run(main())


def test_member_is_announced_again_after_etcd_lost_its_state(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        keys = Keys(mesh)
        for _ in range(2):
            edge = announce(client, mesh)
            assert await edge.start(10.0)
            if edge.epoch == 1:
                await edge.stop()
        await client.delete(keys.epoch("edge-1"))
        await client.delete(keys.member("edge-1"))
        edge.update()
        view = Members(client, mesh)
        assert await view.start(10.0)
        await until(lambda: view.get("edge-1"), "the edge is seen again")
        counter = await client.get(keys.epoch("edge-1"))
        assert counter is not None
        assert counter.value == b"2", "the counter does not go back"
        await edge.stop()
        await view.stop()
        await client.close()

    asyncio.run(main())


def test_bad_member_is_ignored(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        await client.put(Keys(mesh).member("bad"), b"{}")
        view = Members(client, mesh)
        assert await view.start(10.0)
        await client.put(Keys(mesh).member("worse"), b"\xff")
        good = Member("good", "core", "h", {"tier": 1})
        await client.put(Keys(mesh).member("good"), good.value())
        await until(lambda: view.get("good"), "the valid one is seen")
        assert view.all() == [good]
        await view.stop()
        await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", Member("n", "edge", "h", {"device": "x"}).value(), Member("n", "edge", "h", {}, 1.5).value()],  # type: ignore[dict-item,arg-type]
)
def test_member_with_wrong_types_is_refused(value: bytes) -> None:
    with pytest.raises(BadRecord, match="not a member"):
        decode(pb.KeyValue(key=b"/mesh/m/members/n", value=value))
