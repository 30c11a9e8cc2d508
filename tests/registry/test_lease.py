"""Leases are renewed, lost and taken again."""

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
    """Attaches one key to the lease and records the callbacks."""

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


def test_lease_is_renewed_until_its_owner_stops(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
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


def test_lease_revoked_by_etcd_is_taken_again(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
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


def test_loss_is_reported_once_while_etcd_is_unavailable(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        owner = Owner(client, mesh)
        lease = Lease(client, owner.attach, owner.lost, ttl=1)
        assert await lease.start(10.0)
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: owner.log == ["attached", "lost"], "the loss is reported")
        assert not lease.held
        await etcd.start()
        await until(lambda: owner.log == ["attached", "lost", "attached"], "attached again")
        assert await owner.stored() == b"1"
        await lease.stop()
        await client.close()

    asyncio.run(main())


def test_lease_without_an_owner_expires(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        lease, _ = await client.grant(1)
        key = f"/{mesh}/orphan".encode()
        await client.put(key, b"1", lease=lease)
        async with asyncio.timeout(20.0):
            while await client.get(key) is not None:
                await asyncio.sleep(0.1)
        assert await client.time_to_live(lease) == -1
        await client.close()

    asyncio.run(main())


def test_start_raises_an_error_that_a_retry_cannot_cure(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        owner = Owner(client, mesh)
        owner.error = Conflict("no")
        lease = Lease(client, owner.attach, owner.lost, ttl=1)
        with pytest.raises(Conflict):
            await lease.start(10.0)
        await lease.stop()
        await client.close()

    asyncio.run(main())
