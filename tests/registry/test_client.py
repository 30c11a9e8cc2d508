"""The client against a real etcd."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, EtcdTls, absent, get, holds, put, unchanged
from mesh.registry.embedded import EmbeddedEtcd, client_tls, free_ports
from mesh.registry.errors import Compacted, LeaseLost, RequestRejected, Unavailable
from tests.support.freezing import freeze
from tests.support.loop import run


def test_put_get_and_delete_keys(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        key = f"/{mesh}/a".encode()
        assert await client.get(key) is None
        revision = await client.put(key, b"1")
        entry = await client.get(key)
        assert entry is not None
        assert (entry.value, entry.mod_revision, entry.create_revision) == (b"1", revision, revision)
        assert await client.put(key, b"2") == revision + 1
        assert await client.delete(key) == 1
        assert await client.delete(key) == 0
        assert await client.get(key) is None
        status = await client.status()
        assert status.version.startswith("3.")
        assert status.header.revision >= revision + 2
        await client.close()

    asyncio.run(main())


def test_transaction_applies_the_branch_of_its_condition(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        key = f"/{mesh}/a".encode()
        create = pb.TxnRequest(compare=[absent(key)], success=[put(key, b"mine")], failure=[get(key)])
        first = await client.txn(create)
        assert first.succeeded
        second = await client.txn(create)
        assert not second.succeeded
        assert second.responses[0].range.kvs[0].value == b"mine"
        revision = first.header.revision
        assert (await client.txn(pb.TxnRequest(compare=[unchanged(key, revision), holds(key, b"mine")]))).succeeded
        assert not (await client.txn(pb.TxnRequest(compare=[unchanged(key, revision + 1)]))).succeeded
        assert not (await client.txn(pb.TxnRequest(compare=[holds(key, b"theirs")]))).succeeded
        with pytest.raises(RequestRejected, match="duplicate key"):
            await client.txn(pb.TxnRequest(success=[put(key, b"1"), put(key, b"2")]))
        await client.close()

    asyncio.run(main())


def test_pages_have_one_revision(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        for number in range(25):
            await client.put(prefix + b"%03d" % number, b"old")
        found: list[pb.KeyValue] = []
        revisions: set[int] = set()
        pages = client.pages(prefix, page=10)
        async for page in pages:
            revisions.add(page.header.revision)
            found.extend(page.kvs)
            await client.put(prefix + b"024", b"new")
            await client.put(prefix + b"zzz", b"new")
        assert [entry.key for entry in found] == [prefix + b"%03d" % number for number in range(25)]
        assert {entry.value for entry in found} == {b"old"}
        assert len(revisions) == 1
        empty = [page async for page in client.pages(b"/nothing/here/")]
        assert [list(page.kvs) for page in empty] == [[]]
        await client.close()

    asyncio.run(main())


def test_compacted_revision_raises_compacted(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        key = f"/{mesh}/a".encode()
        first = await client.put(key, b"1")
        last = await client.put(key, b"2")
        await client.compact(last)
        with pytest.raises(Compacted):
            await client.range(pb.RangeRequest(key=key, revision=first))
        await client.close()

    asyncio.run(main())


def test_lease_is_granted_kept_and_revoked(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        key = f"/{mesh}/a".encode()
        lease, seconds = await client.grant(30)
        assert seconds == 30
        await client.put(key, b"1", lease=lease)
        assert await client.keep_alive(lease) == 30
        assert 0 < await client.time_to_live(lease) <= 30
        await client.revoke(lease)
        assert await client.get(key) is None
        assert await client.time_to_live(lease) == -1
        with pytest.raises(LeaseLost):
            await client.keep_alive(lease)
        with pytest.raises(LeaseLost):
            await client.revoke(lease)
        with pytest.raises(LeaseLost):
            await client.put(key, b"1", lease=lease)
        await client.close()

    asyncio.run(main())


def test_call_fails_over_from_a_dead_endpoint(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        dead = [f"https://127.0.0.1:{port}" for port in free_ports(2)]
        client = EtcdClient([*dead, etcd.endpoint], tls=client_tls(etcd.log_file.parent))
        assert client.endpoints == [*dead, etcd.endpoint]
        assert await client.get(f"/{mesh}/a".encode()) is None
        # The client now tries the good endpoint first, so a call without retry succeeds too.
        await client.put(f"/{mesh}/a".encode(), b"1")
        await client.close()

    asyncio.run(main())


def test_call_fails_over_from_a_silent_endpoint(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            endpoints = [f"https://127.0.0.1:{silent.getsockname()[1]}", etcd.endpoint]
            client = EtcdClient(endpoints, tls=client_tls(etcd.log_file.parent))
            assert await client.get(f"/{mesh}/a".encode(), timeout=10.0) is None
            await client.close()

    asyncio.run(main())


def test_call_without_etcd_fails_within_the_deadline() -> None:
    async def main() -> None:
        client = EtcdClient([f"http://127.0.0.1:{port}" for port in free_ports(2)])
        for call in (client.get(b"k", timeout=0.3), client.put(b"k", b"v", timeout=0.3), client.grant(5, timeout=0.3)):
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
                await asyncio.wait_for(call, 10.0)
        await client.close()
        with pytest.raises(Unavailable, match="closed"):
            await client.get(b"k")

    asyncio.run(main())


def test_call_to_a_hung_etcd_fails_within_the_deadline(etcd: EmbeddedEtcd) -> None:
    async def main() -> None:
        client = etcd.client()
        await client.status()
        freeze(etcd.pid)
        try:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(client.get(b"k", timeout=0.3), 10.0)
        finally:
            os.kill(etcd.pid, signal.SIGCONT)
        assert await client.get(b"k", timeout=10.0) is None
        await client.close()

    asyncio.run(main())


def test_close_ends_running_calls_with_unavailable(etcd: EmbeddedEtcd) -> None:
    async def main() -> None:
        client = etcd.client()
        await client.status()
        freeze(etcd.pid)
        try:
            call = asyncio.create_task(client.get(b"k", timeout=10.0))
            await asyncio.sleep(0)  # the call waits for etcd
            await client.close()
            with pytest.raises(Unavailable, match="closed"):
                await asyncio.wait_for(call, 10.0)
        finally:
            os.kill(etcd.pid, signal.SIGCONT)

    asyncio.run(main())


def test_cancelled_call_raises_cancelled_error(etcd: EmbeddedEtcd) -> None:
    async def main() -> None:
        client = etcd.client()
        await client.status()
        freeze(etcd.pid)
        try:
            call = asyncio.create_task(client.get(b"k", timeout=10.0))
            await asyncio.sleep(0)  # the call waits for etcd
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        finally:
            os.kill(etcd.pid, signal.SIGCONT)
        await client.close()

    asyncio.run(main())


def test_client_runs_on_uvloop(etcd: EmbeddedEtcd) -> None:
    async def main() -> None:
        client = etcd.client()
        assert await asyncio.gather(*(client.get(b"k") for _ in range(50))) == [None] * 50
        await client.close()

    run(main())


@pytest.mark.parametrize("url", ["127.0.0.1:2379", "ftp://host:1", "http://", "http://host:1/path", ""])
def test_wrong_endpoint_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        EtcdClient([url])


def test_wrong_combinations_of_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        EtcdClient([])
    with pytest.raises(ValueError, match="belong together"):
        EtcdClient(["http://h:1"], user="u")
    with pytest.raises(ValueError, match="not https"):
        EtcdClient(["http://h:1"], tls=EtcdTls())
    with pytest.raises(ValueError, match="belong together"):
        EtcdClient(["https://h:1"], tls=EtcdTls(cert=tmp_path))
