"""Leases that are kept, lost and taken again."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import Conflict
from mesh.registry.lease import Lease
from tests.support.waiting import until


class Owner:
    """Hangs one key on the lease and writes down what happens."""

    def __init__(self, client: EtcdClient, mesh: str) -> None:
        self.client = client
        self.key = f"/{mesh}/owner".encode()
        self.value = b"1"
        self.log: list[str] = []
        self.error: Exception | None = None

    async def attach(self, lease: int) -> None:
        if self.error is not None:
            raise self.error
        await self.client.put(self.key, self.value, lease=lease)
        self.log.append("attached")

    def lost(self) -> None:
        self.log.append("lost")

    async def stored(self) -> bytes | None:
        entry = await self.client.get(self.key)
        return None if entry is None else entry.value


def test_a_lease_outlives_its_time_and_goes_with_its_owner(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = EtcdClient([etcd.endpoint])
        owner = Owner(client, mesh)
        lease = Lease(client, owner.attach, owner.lost, ttl=1)
        assert await lease.start(10.0)
        assert lease.held
        first = lease.id
        await asyncio.sleep(2.5)
        assert lease.id == first
        assert await owner.stored() == b"1"
        owner.value = b"2"
        lease.refresh()
        await until(lambda: owner.log == ["attached"] * 2, "attached again")
        assert await owner.stored() == b"2"
        await lease.stop()
        assert await owner.stored() is None
        await client.close()

    asyncio.run(main())


def test_a_lease_that_etcd_ended_is_taken_again(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = EtcdClient([etcd.endpoint])
        owner = Owner(client, mesh)
        lease = Lease(client, owner.attach, owner.lost, ttl=1)
        assert await lease.start(10.0)
        first = lease.id
        await client.revoke(first)
        await until(lambda: owner.log == ["attached", "lost", "attached"], "lost, then attached again")
        assert lease.id != first
        assert await owner.stored() == b"1"
        await lease.stop()
        await client.close()

    asyncio.run(main())


def test_while_etcd_is_away_the_loss_is_told_once(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = EtcdClient([etcd.endpoint])
        owner = Owner(client, mesh)
        lease = Lease(client, owner.attach, owner.lost, ttl=1)
        assert await lease.start(10.0)
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: owner.log == ["attached", "lost"], "the loss is told")
        assert not lease.held
        await etcd.start()
        await until(lambda: owner.log == ["attached", "lost", "attached"], "attached again")
        assert await owner.stored() == b"1"
        await lease.stop()
        await client.close()

    asyncio.run(main())


def test_a_lease_without_an_owner_expires(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = EtcdClient([etcd.endpoint])
        lease, _ = await client.grant(1)
        key = f"/{mesh}/orphan".encode()
        await client.put(key, b"1", lease=lease)
        async with asyncio.timeout(20.0):
            while await client.get(key) is not None:
                await asyncio.sleep(0.1)
        assert await client.time_to_live(lease) == -1
        await client.close()

    asyncio.run(main())


def test_what_trying_again_does_not_cure_is_raised(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = EtcdClient([etcd.endpoint])
        owner = Owner(client, mesh)
        owner.error = Conflict("no")
        lease = Lease(client, owner.attach, owner.lost, ttl=1)
        with pytest.raises(Conflict):
            await lease.start(10.0)
        await lease.stop()
        await client.close()

    asyncio.run(main())
