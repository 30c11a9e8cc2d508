"""The words of a node on the settings, in a real etcd."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

from mesh.registry import etcd_pb2 as pb
from mesh.registry.ballot import Ballot
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.settings import Confirmation, SettingsStore
from mesh.registry.watch import Watch
from tests.support.loop import run
from tests.support.waiting import until


class Seen:
    """Follows the lease of one key."""

    def __init__(self) -> None:
        self.lease = 0

    def begin(self, revision: int, since: int) -> None:
        self.lease = 0

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        for entry in entries:
            self.lease = entry.lease
        return True

    def end(self) -> Iterator[None]:
        yield from ()

    def apply(self, events: Sequence[pb.Event]) -> None:
        for event in events:
            self.lease = 0 if event.type == pb.Event.DELETE else event.kv.lease


def test_the_last_words_are_read_and_leave_with_the_node(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        store = SettingsStore(client, mesh)
        ballot = Ballot(client, mesh, "edge-1")
        ballot.confirm(1, "", 4.5)
        assert await ballot.start(10.0)
        assert await store.confirmed() == {"edge-1": Confirmation(1, "", 4.5)}
        ballot.vote(2, "")
        ballot.vote(3, "no room")
        await until(lambda: ballot.written, "the vote is written")
        assert (await store.votes(2), await store.votes(3)) == ({}, {"edge-1": "no room"})
        await ballot.stop()
        assert (await store.votes(3), await store.confirmed()) == ({}, {})
        await client.close()

    run(main())


def test_what_is_said_without_etcd_is_written_later(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        os.kill(etcd.pid, signal.SIGKILL)
        await until(lambda: not etcd.alive, "etcd is dead")
        ballot = Ballot(client, mesh, "edge-1", ttl=1)
        assert not await ballot.start(0.0)
        ballot.vote(7, "")
        await etcd.start()
        await until(lambda: ballot.written, "the vote is written")
        assert await SettingsStore(client, mesh).votes(7) == {"edge-1": ""}
        await ballot.stop()
        await client.close()

    run(main())


def test_words_are_written_again_after_the_lease_was_lost(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        ballot = Ballot(client, mesh, "edge-1", ttl=1)
        ballot.confirm(3, "", 1.0)
        assert await ballot.start(10.0)
        entry = await client.get(Keys(mesh).confirmation("edge-1"))
        assert entry is not None
        lost = entry.lease
        await client.revoke(lost)

        watch = Watch(client, Keys(mesh).confirmed, seen := Seen())
        assert await watch.start(10.0)
        await until(lambda: seen.lease not in (0, lost), "the words have another lease")
        await watch.stop()
        assert (await SettingsStore(client, mesh).confirmed())["edge-1"].revision == 3
        await ballot.stop()
        await client.close()

    run(main())


def test_a_newer_process_of_a_node_keeps_its_words_when_the_older_ends(etcd: EmbeddedEtcd, mesh: str) -> None:
    async def main() -> None:
        client = etcd.client()
        store = SettingsStore(client, mesh)
        old, new = Ballot(client, mesh, "core"), Ballot(client, mesh, "core")
        old.confirm(1, "", 1.0)
        assert await old.start(10.0)
        new.confirm(2, "", 2.0)
        assert await new.start(10.0)
        await old.stop()
        assert (await store.confirmed())["core"].revision == 2
        await new.stop()
        await client.close()

    run(main())
