"""Settings in a real etcd: one revision in force, one proposal at a time, and numbers that are not used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from mesh.registry import settings
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import BadRecord, Conflict
from mesh.registry.keys import Keys
from mesh.registry.settings import Revision, SettingsStore
from tests.support.loop import run

DRAFT = Revision(0, {"mesh": "m", "limits": {"sessions": 1}}, 12.5, "ada", "host-1", ("limits.sessions: 2 -> 1",), 60.0)


@asynccontextmanager
async def store_of(etcd: EmbeddedEtcd, mesh: str) -> AsyncIterator[SettingsStore]:
    client = etcd.client()
    try:
        yield SettingsStore(client, mesh)
    finally:
        await client.close()


def test_a_new_mesh_has_no_settings(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            assert (await store.current(), await store.history(), await store.run()) == (None, [], None)
            assert (await store.votes(1), await store.confirmed()) == ({}, {})

    run(scenario())


def test_a_proposal_is_in_force_with_its_commit_and_not_before(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            first = await store.first(DRAFT)
            assert first == replace(DRAFT, number=1)
            proposal = await store.propose(DRAFT, 1)
            assert await store.revision(2) == proposal.revision
            assert (await store.current(), await store.history()) == (first, [first])
            await store.commit(proposal)
            assert (await store.current(), await store.history()) == (proposal.revision, [proposal.revision, first])
            await store.withdraw(proposal)
            assert (await store.current(), await store.history()) == (proposal.revision, [proposal.revision, first])

    run(scenario())


def test_a_number_is_not_used_again_after_a_proposal_was_withdrawn(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            withdrawn = await store.propose(DRAFT, 0)
            await store.withdraw(withdrawn)
            assert await store.revision(withdrawn.number) is None
            assert (await store.propose(DRAFT, 0)).number == withdrawn.number + 1

    run(scenario())


def test_one_proposal_at_a_time(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store, store_of(etcd, mesh) as other:
            proposal = await store.propose(DRAFT, 0)
            with pytest.raises(Conflict, match="another command proposes"):
                await other.propose(DRAFT, 0)
            await store.withdraw(proposal)
            await other.withdraw(await other.propose(DRAFT, 0))

    run(scenario())


def test_a_mesh_that_starts_overtakes_a_proposal_that_was_left(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            left = await store.propose(DRAFT, 0)
            made = await store.first(DRAFT)
            with pytest.raises(Conflict):
                await store.commit(left)
            assert await store.current() == made

    run(scenario())


def test_of_two_writers_that_have_seen_the_same_one_loses(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store, store_of(etcd, mesh) as other:
            await store.commit(await store.propose(DRAFT, 0))
            with pytest.raises(Conflict, match="revision 1 is in force by now"):
                await other.propose(DRAFT, 0)
            drafts = [one.propose(DRAFT, 1) for one in (store, other)]
            done = await asyncio.gather(*drafts, return_exceptions=True)
            assert sorted(isinstance(one, Conflict) for one in done) == [False, True]

    run(scenario())


def test_a_killed_command_leaves_nothing_behind(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            proposal = await store.propose(DRAFT, 0, ttl=1)
            client = etcd.client()

            async def gone() -> bool:
                return await client.get(Keys(mesh).proposed) is None

            end = asyncio.get_running_loop().time() + 20.0
            while not await gone():
                assert asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.1)
            await client.close()
            assert await store.revision(proposal.number) is None
            with pytest.raises(Conflict, match="has ended"):
                await store.commit(proposal)
            assert await store.current() is None

    run(scenario())


def test_the_newest_revisions_are_kept(etcd: EmbeddedEtcd, mesh: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "KEPT", 3)

    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            for base in range(5):
                await store.commit(await store.propose(DRAFT, base))
            assert [one.number for one in await store.history()] == [5, 4, 3]

    run(scenario())


def test_only_votes_for_this_proposal_count(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        client = etcd.client()
        keys = Keys(mesh)
        await client.put(keys.votes + b"edge-1", b'{"revision": 3, "error": ""}')
        await client.put(keys.votes + b"edge-2", b'{"revision": 3, "error": "no room"}')
        await client.put(keys.votes + b"door", b'{"revision": 2, "error": "old"}')
        await client.put(keys.votes + b"foreign", b'{"other": 1}')
        await client.put(keys.confirmed + b"door", b'{"revision": 2, "error": "", "at": 4.5}')
        store = SettingsStore(client, mesh)
        assert await store.votes(3) == {"edge-1": "", "edge-2": "no room"}
        said = (await store.confirmed())["door"]
        assert (said.revision, said.error, said.at) == (2, "", 4.5)
        await client.close()

    run(scenario())


def test_a_number_that_a_node_knows_is_not_given_again(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            await asyncio.gather(*(store.raise_last(number) for number in (7, 5, 7, 7)))
            await store.raise_last(3)
            assert (await store.propose(DRAFT, 0)).number == 8

    run(scenario())


def test_the_run_is_written_and_removed(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def scenario() -> None:
        async with store_of(etcd, mesh) as store:
            await store.write_run({"mesh": mesh, "endpoints": ["a"]})
            assert await store.run() == {"mesh": mesh, "endpoints": ["a"]}
            await store.remove_run()
            assert await store.run() is None

    run(scenario())


@pytest.mark.parametrize("value", [b"", b"[]", b'{"revision": "1"}', b'{"revision": 0}'])
def test_foreign_values_are_named(etcd: EmbeddedEtcd, mesh: str, value: bytes) -> None:
    async def scenario() -> None:
        client = etcd.client()
        await client.put(Keys(mesh).current, value)
        with pytest.raises(BadRecord, match="settings/current holds"):
            await SettingsStore(client, mesh).current()
        await client.close()

    run(scenario())
