"""A follower stays complete and up to date through every fault of the watch."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mesh.registry import etcd_pb2 as pb
from mesh.registry import watch as watching
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import RegistryError
from mesh.registry.watch import Watch
from tests.registry.gate import Gate
from tests.support.freezing import freeze
from tests.support.waiting import until


class View:
    """Keeps all keys as bytes, and checks the order of changes."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.loading: dict[bytes, bytes] = {}
        self.events = 0
        self.last = 0
        self.since: list[int] = []
        self.fail = False

    def begin(self, revision: int, since: int) -> None:
        self.loading = {}
        self.since.append(since)
        self.last = revision

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        self.loading.update((entry.key, entry.value) for entry in entries)
        return True

    def end(self) -> Iterator[None]:
        self.keys = self.loading
        return iter(())

    def apply(self, events: Sequence[pb.Event]) -> None:
        if self.fail:
            self.fail = False
            raise ZeroDivisionError("a follower with a fault")
        assert events[0].kv.mod_revision > self.last, "a revision was applied twice"
        for event in events:
            assert event.kv.mod_revision >= self.last
            self.last = event.kv.mod_revision
            self.events += 1
            if event.type == pb.Event.DELETE:
                del self.keys[event.kv.key]
            else:
                self.keys[event.kv.key] = event.kv.value


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[pb.WatchResponse]:
    """All responses that watches receive from now on."""
    responses: list[pb.WatchResponse] = []
    check = Watch._check

    def recording(self: Watch, response: pb.WatchResponse, url: str) -> None:
        responses.append(response)
        check(self, response, url)

    monkeypatch.setattr(Watch, "_check", recording)
    return responses


async def content(client: EtcdClient, prefix: bytes) -> dict[bytes, bytes]:
    return {entry.key: entry.value async for page in client.pages(prefix) for entry in page.kvs}


async def insist(client: EtcdClient, key: bytes, value: bytes) -> None:
    """Put a key, and retry while etcd is unavailable."""
    while True:
        try:
            await client.put(key, value, retry=True)
        except RegistryError:
            continue
        return


async def same(client: EtcdClient, view: View, prefix: bytes) -> None:
    await insist(client, prefix + b"mark", b"%d" % random.getrandbits(60))
    expected = await content(client, prefix)
    await until(lambda: view.keys == expected, "the view equals etcd")


def test_changes_arrive_in_order(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        await client.put(prefix + b"before", b"1")
        view = View()
        watch = Watch(client, prefix, view)
        assert await watch.start(10.0)
        assert view.keys == {prefix + b"before": b"1"}
        for number in range(200):
            await client.put(prefix + b"%d" % (number % 7), b"%d" % number)
            if number % 5 == 0:
                await client.delete(prefix + b"%d" % (number % 3))
        await client.put(f"/{mesh}0".encode(), b"outside of the prefix")
        await same(client, view, prefix)
        assert watch.live
        assert watch.rebuilt == 1
        await watch.stop()
        assert not watch.live
        await client.close()

    asyncio.run(main())


def test_backlog_larger_than_a_message_is_applied_at_once(
    etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        responses = recorded(monkeypatch)
        gate = Gate(monkeypatch)
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        view = View()
        watch = Watch(client, prefix, view)
        assert await watch.start(10.0)
        await until(lambda: watch.live, "the watch is live")
        gate.shut()
        await until(lambda: not watch.live, "the stream is broken")
        large = os.urandom(1_000_000)
        for number in range(8):
            await insist(client, prefix + b"%d" % number, large)
        gate.open = True
        await same(client, view, prefix)
        assert len(view.keys) == 9
        assert any(response.fragment for response in responses), "etcd sent the backlog in fragments"
        assert watch.rebuilt == 1
        await watch.stop()
        await client.close()

    asyncio.run(main())


def test_stream_resumes_after_a_break_within_a_backlog(
    etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd sends a backlog a thousand revisions at a time, each part with its newest revision in the header."""

    async def main() -> None:
        gate = Gate(monkeypatch)
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        view = View()
        watch = Watch(client, prefix, view)
        assert await watch.start(10.0)
        await until(lambda: watch.live, "the watch is live")
        gate.shut()
        await until(lambda: not watch.live, "the stream is broken")
        await asyncio.gather(*(insist(client, prefix + b"%d" % number, b"x") for number in range(2500)))
        apply = view.apply
        parts: list[int] = []

        def breaking(events: Sequence[pb.Event]) -> None:
            apply(events)
            parts.append(len(events))
            if len(parts) == 1:
                gate.calls[-1].cancel()

        monkeypatch.setattr(view, "apply", breaking)
        gate.open = True
        await same(client, view, prefix)
        assert len(parts) > 1, "the backlog arrived in parts"
        assert watch.rebuilt == 1
        await watch.stop()
        await client.close()

    asyncio.run(main())


def test_watch_resumes_after_a_restart_of_etcd(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        view = View()
        watch = Watch(client, prefix, view)
        assert await watch.start(10.0)
        for _ in range(3):
            await insist(client, prefix + b"%d" % random.randrange(100), b"x")
            os.kill(etcd.pid, signal.SIGKILL)
            await until(lambda: not etcd.alive, "etcd is dead")
            await until(lambda: not watch.live, "the watch has detected the break")
            await etcd.start()
            await same(client, view, prefix)
        await until(lambda: watch.live, "the watch is live again")
        assert watch.rebuilt == 1, "a stream that can be resumed needs no new snapshot"
        await watch.stop()
        await client.close()

    asyncio.run(main())


def test_compaction_during_a_break_causes_a_snapshot(
    etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        gate = Gate(monkeypatch)
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        for name in (b"kept", b"changed", b"deleted"):
            await client.put(prefix + name, b"1")
        view = View()
        watch = Watch(client, prefix, view)
        assert await watch.start(10.0)
        await until(lambda: watch.live, "the watch is live")
        gate.shut()
        await until(lambda: not watch.live, "the stream is broken")
        known = watch.revision
        await client.put(prefix + b"changed", b"2")
        await client.delete(prefix + b"deleted")
        last = await client.put(prefix + b"added", b"1")
        await client.compact(last)
        gate.open = True
        await same(client, view, prefix)
        assert view.since == [0, known], "the second snapshot has the last applied revision"
        await watch.stop()
        await client.close()

    asyncio.run(main())


def test_new_etcd_at_the_same_address_causes_a_snapshot(folder: Path, mesh: str) -> None:
    """The old etcd lost its data: the history starts again, with lower revisions."""

    async def main() -> None:
        server = EmbeddedEtcd(folder)
        await server.start()
        client = server.client()
        prefix = f"/{mesh}/".encode()
        for number in range(20):
            await client.put(prefix + b"%d" % number, b"old")
        view = View()
        watch = Watch(client, prefix, view)
        assert await watch.start(10.0)
        await until(lambda: watch.live, "the watch is live")
        await server.stop()
        (folder / "data").rename(folder / "lost")
        await server.start()
        await insist(client, prefix + b"new", b"1")
        await until(lambda: view.keys == {prefix + b"new": b"1"}, "the view equals the new etcd")
        assert view.since[-1] == 0
        await same(client, view, prefix)
        await watch.stop()
        await client.close()
        await server.stop()

    asyncio.run(main())


def test_silent_watch_is_opened_again(etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(watching, "ANSWER", 0.5)
        responses = recorded(monkeypatch)
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        view = View()
        watch = Watch(client, prefix, view, quiet=0.1)
        assert await watch.start(10.0)
        await until(lambda: watch.live, "the watch is live")
        responses.clear()
        await until(lambda: len(responses) >= 3, "progress notices are requested and answered")
        assert watch.live
        assert watch.rebuilt == 1
        freeze(etcd.pid)
        try:
            await until(lambda: not watch.live, "the silence is detected")
        finally:
            os.kill(etcd.pid, signal.SIGCONT)
        await same(client, view, prefix)
        await watch.stop()
        await client.close()

    asyncio.run(main())


def test_failing_follower_gets_a_snapshot(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        prefix = f"/{mesh}/".encode()
        view = View()
        watch = Watch(client, prefix, view)
        assert await watch.start(10.0)
        view.fail = True
        await client.put(prefix + b"a", b"1")
        await until(lambda: watch.rebuilt == 2, "a second snapshot")
        await same(client, view, prefix)
        await watch.stop()
        await client.close()

    asyncio.run(main())


def test_watch_starts_before_etcd(folder: Path, mesh: str) -> None:
    async def main() -> None:
        server = EmbeddedEtcd(folder)
        await server.start()
        await server.stop()
        client = server.client()
        view = View()
        watch = Watch(client, f"/{mesh}/".encode(), view)
        assert not await watch.start(0.2)
        assert not watch.live
        await server.start()
        assert await watch.start(20.0)
        await same(client, view, f"/{mesh}/".encode())
        # Closing the client of a running watch must not leave a hanging task.
        await client.close()
        await asyncio.wait_for(watch.stop(), 10.0)
        await server.stop()

    asyncio.run(main())
