"""Bans, kicks and the audit log in a real etcd."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import pytest

from mesh.registry import audit, bans
from mesh.registry.audit import Act, AuditLog, act
from mesh.registry.bans import Ban, BanStore, BanWatch, Kick, normal
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import TooMany
from mesh.registry.keys import Keys
from tests.support.waiting import until


class View:
    """What a node knows."""

    def __init__(self, watch: BanWatch) -> None:
        self.values: set[tuple[str, str]] = set()
        self.kicks: list[str] = []
        self.watch = watch
        watch.on_bans = self._changed
        watch.on_kick = lambda kick: self.kicks.append(kick.value)

    def _changed(self, fresh: Sequence[Ban], gone: Sequence[Ban]) -> None:
        self.values -= {(ban.kind, ban.value) for ban in gone}
        self.values |= {(ban.kind, ban.value) for ban in fresh}


def ban(kind: str, value: str, seconds: float = 0.0) -> Ban:
    now = time.time()
    return Ban(kind, normal(kind, value), "why", "me@here", now, now + seconds if seconds else 0.0)


def test_bans_of_all_kinds_are_followed_listed_and_removed(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def run() -> None:
        client = etcd.client()
        store, view = BanStore(client, mesh), View(BanWatch(client, mesh))
        made = [
            ban("vehicle", "CAR 7/ü%2F"), ban("client_id", "a/b"), ban("address", "10.0.0.0/8"), ban("serial", "0a"),
            ban("fingerprint", "ab" * 32), ban("user", "app"),
        ]  # fmt: skip
        await store.add(made[0], act("test", "x"))
        assert await view.watch.start(5.0)
        for one in made[1:]:
            await store.add(one, act("test", "x"))
        everything = {(one.kind, one.value) for one in made}
        await until(lambda: view.values == everything)
        assert {(one.kind, one.value) for one in await store.bans()} == everything
        for one in made:
            assert await store.remove(one.kind, one.value, act("test", "x"))
            assert not await store.remove(one.kind, one.value, act("test", "x"))
        await until(lambda: not view.values)
        await view.watch.stop()
        await client.close()

    asyncio.run(run())


def test_etcd_removes_a_ban_that_has_ended(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def run() -> None:
        client = etcd.client()
        store, view = BanStore(client, mesh), View(BanWatch(client, mesh))
        await view.watch.start(5.0)
        await store.add(ban("vehicle", "CAR", 1.0), act("test", "x"))
        await store.add(ban("vehicle", "STAYS", 1.0), act("test", "x"))
        await store.add(ban("vehicle", "STAYS"), act("test", "x"))  # without an end now
        await until(lambda: ("vehicle", "CAR") in view.values)
        await until(lambda: ("vehicle", "CAR") not in view.values)
        assert [one.value for one in await store.bans()] == ["STAYS"]
        await view.watch.stop()
        await client.close()

    asyncio.run(run())


def test_bans_stay_while_etcd_is_away_and_change_with_its_next_answer(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def run() -> None:
        client = etcd.client()
        store, view = BanStore(client, mesh), View(BanWatch(client, mesh))
        view.watch.assume([ban("vehicle", "OLD"), ban("vehicle", "KEPT")])
        assert view.values == {("vehicle", "OLD"), ("vehicle", "KEPT")}
        await store.add(ban("vehicle", "KEPT"), act("test", "x"))
        assert await view.watch.start(5.0)
        assert view.values == {("vehicle", "KEPT")}
        await etcd.stop()
        await until(lambda: not view.watch.live)
        assert view.values == {("vehicle", "KEPT")}
        await etcd.start()
        await store.add(ban("vehicle", "NEW"), act("test", "x"))
        await until(lambda: view.values == {("vehicle", "KEPT"), ("vehicle", "NEW")})
        await view.watch.stop()
        await client.close()

    asyncio.run(run())


def test_a_kick_is_seen_once_and_by_no_node_that_starts_later(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def run() -> None:
        client = etcd.client()
        store, view = BanStore(client, mesh), View(BanWatch(client, mesh))
        await view.watch.start(5.0)
        first = Kick("vehicle", "ONE", "me@here", "1")
        await store.kick(first, act("test", "x"))
        await until(lambda: view.kicks == ["ONE"])
        late = View(BanWatch(client, mesh))
        await late.watch.start(5.0)
        # A snapshot after a break has the kick that was handled, and one that came meanwhile.
        watch = view.watch
        watch.begin(1, 1)
        async for page in client.pages(Keys(mesh).revoked):
            watch.page(page.kvs)
        for _ in watch.end():
            pass
        await store.kick(Kick("vehicle", "TWO", "me@here", "2"), act("test", "x"))
        await until(lambda: late.kicks == ["TWO"] and view.kicks == ["ONE", "TWO"])
        await store.answer(first, "door", 3)
        assert await store.answers(first) == {"door": 3}
        for one in (view, late):
            await one.watch.stop()
        await client.close()

    asyncio.run(run())


def test_no_more_than_the_most_bans_are_made_or_followed(
    etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bans, "MOST", 2)

    async def run() -> None:
        client = etcd.client()
        store, view = BanStore(client, mesh), View(BanWatch(client, mesh))
        await store.add(ban("vehicle", "A"), act("test", "x"))
        await store.add(ban("vehicle", "B"), act("test", "x"))
        with pytest.raises(TooMany, match="there are 2 bans"):
            await store.add(ban("vehicle", "C"), act("test", "x"))
        await store.add(ban("vehicle", "B", 100.0), act("test", "x"))  # it is there already
        foreign = json.dumps({"kind": "vehicle", "value": "D", "reason": "", "by": "", "since": 0, "expires": 0})
        await client.put(Keys(mesh).ban("vehicle", "D"), foreign.encode())
        await client.put(Keys(mesh).ban("vehicle", "E"), b"no ban")
        assert await view.watch.start(5.0)
        assert view.values == {("vehicle", "A"), ("vehicle", "B")}
        await view.watch.stop()
        await client.close()

    asyncio.run(run())


def test_the_audit_log_has_each_change_and_the_newest_acts_only(
    etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "KEPT", 4)

    async def run() -> None:
        client = etcd.client()
        store, log = BanStore(client, mesh), AuditLog(client, mesh)
        await store.add(ban("vehicle", "A"), act("mesh ban add", "vehicle A"))
        await store.remove("vehicle", "A", act("mesh ban remove", "vehicle A"))
        await store.remove("vehicle", "A", act("mesh ban remove", "vehicle A"))  # changes nothing
        await store.kick(Kick("vehicle", "A", "me@here", "1"), act("mesh kick", "vehicle A"))
        assert [one.command for one in await log.acts()] == ["mesh kick", "mesh ban remove", "mesh ban add"]
        first = (await log.acts())[0]
        assert first.by
        assert first.host
        assert abs(first.at - time.time()) < 600
        for number in range(6):
            await log.note(Act(first.at + 1 + number, "me", "here", "test", str(number)))
        assert [one.what for one in await log.acts()] == ["5", "4", "3", "2"]
        await client.close()

    asyncio.run(run())
