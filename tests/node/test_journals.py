"""The opening of a node's journal with the mark in etcd."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import cast

import pytest

from mesh.journal.errors import DamageError
from mesh.journal.manifest import Mark
from mesh.node import journals
from mesh.node.journals import JournalKeeper, UnknownJournalError
from mesh.node.marks import JournalMarks, decode
from mesh.registry.errors import BadRecord, RegistryError, Unauthorised, Unavailable
from tests.support.waiting import until


class FakeMarks:
    """etcd's mark of one node. ``away``: etcd does not answer. ``refusal``: what it answers instead."""

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.away = False
        self.refusal: RegistryError | None = None
        self.wrote = 0

    async def read(self, wait: float) -> Mark | None:
        if self.away:
            raise Unavailable("etcd does not answer")
        if self.refusal is not None:
            raise self.refusal
        return self.mark

    async def write(self, mark: Mark, wait: float) -> None:
        if self.away:
            raise Unavailable("etcd does not answer")
        if self.refusal is not None:
            raise self.refusal
        self.mark = mark
        self.wrote += 1


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> FakeMarks:
    monkeypatch.setattr(journals, "_AGAIN", 0.01)
    return FakeMarks()


async def started(folder: Path, marks: FakeMarks, items: int = 0) -> JournalKeeper:
    """Open the journal, append and close it; gives the keeper, which still keeps the mark."""
    keeper = JournalKeeper(folder, cast(JournalMarks, marks))
    journal = await keeper.open()
    for _ in range(items):
        journal.append(1, 1, b"", b"x")
    await asyncio.to_thread(journal.close)
    return keeper


def test_the_mark_is_kept_and_grows(tmp_path: Path, marks: FakeMarks) -> None:
    async def play() -> None:
        await (await started(tmp_path / "journal", marks, items=5)).stop()
        first = marks.mark
        assert first is not None
        assert first.position == 0
        await (await started(tmp_path / "journal", marks)).stop()
        assert marks.mark == Mark(first.id, 5)

    asyncio.run(play())


def test_a_deleted_folder_is_no_new_journal(tmp_path: Path, marks: FakeMarks) -> None:
    async def play() -> None:
        await (await started(tmp_path / "journal", marks, items=5)).stop()
        shutil.rmtree(tmp_path / "journal")
        with pytest.raises(DamageError, match="the journal is missing"):
            await started(tmp_path / "journal", marks)
        assert marks.wrote == 1

    asyncio.run(play())


def test_without_etcd_an_empty_folder_is_not_taken_for_a_new_journal(tmp_path: Path, marks: FakeMarks) -> None:
    async def play() -> None:
        marks.away = True
        with pytest.raises(UnknownJournalError, match="only etcd knows"):
            await started(tmp_path / "journal", marks)
        marks.away = False
        await (await started(tmp_path / "journal", marks)).stop()

    asyncio.run(play())


def test_without_etcd_a_journal_opens_and_its_mark_follows(tmp_path: Path, marks: FakeMarks) -> None:
    async def play() -> None:
        await (await started(tmp_path / "journal", marks, items=5)).stop()
        marks.away = True
        keeper = await started(tmp_path / "journal", marks)
        marks.away = False
        await until(lambda: marks.wrote == 2)
        assert marks.mark is not None
        assert marks.mark.position == 5
        assert keeper.trouble == ""
        await keeper.stop()

    asyncio.run(play())


@pytest.mark.parametrize("refusal", [Unauthorised("permission denied"), BadRecord("the key holds something else")])
def test_a_journal_opens_when_etcd_refuses_its_mark(tmp_path: Path, marks: FakeMarks, refusal: RegistryError) -> None:
    async def play() -> None:
        await (await started(tmp_path / "journal", marks, items=5)).stop()
        marks.refusal = refusal
        keeper = await started(tmp_path / "journal", marks)
        await until(lambda: keeper.trouble)
        assert str(refusal) in keeper.trouble
        assert "the next start" not in keeper.trouble
        marks.refusal = None
        await until(lambda: marks.wrote == 2)
        assert keeper.trouble == ""
        await keeper.stop()
        marks.refusal = refusal
        shutil.rmtree(tmp_path / "journal")
        with pytest.raises(UnknownJournalError, match=str(refusal)):
            await started(tmp_path / "journal", marks)

    asyncio.run(play())


def test_the_mark_of_another_journal_is_named_and_not_replaced(tmp_path: Path, marks: FakeMarks) -> None:
    async def play() -> None:
        await (await started(tmp_path / "journal", marks)).stop()
        marks.away = True
        keeper = await started(tmp_path / "journal", marks)
        other = marks.mark = Mark("0" * 32, 77)
        marks.away = False
        await until(lambda: keeper.trouble)
        assert "the node's journal is " + "0" * 32 in keeper.trouble
        assert marks.mark == other
        await keeper.stop()

    asyncio.run(play())


def test_a_mark_that_is_none_is_named() -> None:
    good = b'{"journal":"0123456789abcdef0123456789abcdef","position":5}'
    assert decode(b"key", good) == Mark("0123456789abcdef0123456789abcdef", 5)
    wrong = (b"", b"[]", b'{"journal":"x","position":5}', good.replace(b"5}", b"-5}"), good.replace(b":5", b":true"))
    for bad in wrong:
        with pytest.raises(BadRecord, match="right would be"):
            decode(b"key", bad)
