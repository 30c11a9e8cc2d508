"""The numbers of the settings, followed in a real etcd."""

from __future__ import annotations

import os
import signal

from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.settings import Revision, SettingsStore
from mesh.registry.settingswatch import SettingsWatch
from tests.support.loop import run
from tests.support.waiting import until

DRAFT = Revision(0, {"mesh": "m"}, 12.5, "ada", "host-1")

States = list[tuple[int, int]]


def follow(client: EtcdClient, mesh: str) -> tuple[SettingsWatch, States]:
    """A watch, and the numbers in force and proposed that its listener has seen."""
    watch, seen = SettingsWatch(client, mesh), States()
    watch.on_change = lambda: seen.append((watch.current, watch.proposed))
    return watch, seen


def test_a_commit_changes_both_numbers_at_once(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        store = SettingsStore(client, mesh)
        await store.first(DRAFT)
        watch, seen = follow(client, mesh)
        assert (watch.known, watch.current, watch.proposed) == (False, 0, 0)
        assert await watch.start(10.0)
        await until(lambda: watch.live, "the watch is live")
        assert seen == [(1, 0)]
        proposal = await store.propose(DRAFT, 1)
        await until(lambda: seen[-1] == (1, 2), "the proposal is seen")
        await store.commit(proposal)
        await until(lambda: seen[-1] == (2, 0), "the commit is seen")
        assert seen == [(1, 0), (1, 2), (2, 0)]
        await watch.stop()
        await client.close()

    run(main())


def test_a_withdrawal_is_seen_and_other_keys_are_not(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        store, keys = SettingsStore(client, mesh), Keys(mesh)
        watch, seen = follow(client, mesh)
        assert await watch.start(10.0)
        assert seen == [(0, 0)], "the first answer is told, although there is nothing"
        await client.put(keys.vote("edge-1"), b'{"revision": 9, "error": ""}')
        await client.put(keys.confirmation("edge-1"), b'{"revision": 9, "error": ""}')
        proposal = await store.propose(DRAFT, 0)
        await until(lambda: seen[-1] == (0, 1), "the proposal is seen")
        await store.withdraw(proposal)
        await until(lambda: seen[-1] == (0, 0), "the withdrawal is seen")
        assert len(seen) == 3
        await watch.stop()
        await client.close()

    run(main())


def test_numbers_stay_while_etcd_is_away_and_a_foreign_value_changes_nothing(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        store = SettingsStore(client, mesh)
        first = await store.first(DRAFT)
        watch, _ = follow(client, mesh)
        assert await watch.start(10.0)
        await until(lambda: watch.live, "the watch is live")
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: not watch.live, "etcd is away")
        assert watch.current == first.number
        await etcd.start()
        await until(lambda: watch.live, "etcd is back")
        await client.put(Keys(mesh).current, b"foreign")
        await client.put(Keys(mesh).proposed, b'{"revision": 2}')
        await until(lambda: watch.proposed == 2, "a later change is seen")
        assert watch.current == first.number
        await watch.stop()
        await client.close()

    run(main())
