"""The journal as its owner sees it, on the real file system."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.journal import BacklogError, Journal, JournalError, JournalLimits, LockedError
from tests.journal.owner import Owner, fields


def test_reopened_journal_returns_items_in_order_with_all_fields(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "new" / "journal")
    first = owner.journal.append(7, 1 << 63, b"meta", b"body")
    second = owner.journal.append(0, 0, b"", b"")
    third = owner.journal.append(255, 5, b"m" * 200_000, b"b" * 100_000)
    owner.journal.close()
    assert (first, second, third) == (1, 2, 3)

    again = Owner(tmp_path / "new" / "journal")
    assert [fields(item) for item in again.journal.live()] == [
        (1, 7, 1 << 63, b"meta"), (2, 0, 0, b""), (3, 255, 5, b"m" * 200_000),
    ]
    assert [again.journal.read(id) for id in (1, 2, 3)] == [b"body", b"", b"b" * 100_000]
    again.journal.close()


def test_drop_is_a_record_and_ids_are_not_reused(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    dropped = owner.journal.append(1, 1, b"", b"gone")
    owner.journal.drop(dropped)
    assert owner.journal.position == 2
    owner.journal.close()
    again = Owner(tmp_path)
    assert list(again.journal.live()) == []
    assert again.journal.position == again.journal.durable_position == 2
    assert again.journal.append(1, 1, b"", b"next") == 3
    again.journal.close()


def test_unknown_id_raises_key_error(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    id = owner.journal.append(1, 1, b"", b"")
    owner.journal.drop(id)
    for call in (owner.journal.drop, owner.journal.read):
        with pytest.raises(KeyError):
            call(id)
    assert owner.journal.position == 2
    owner.journal.close()


def test_body_is_readable_before_and_after_the_write(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    id = owner.journal.append(1, 1, b"meta", b"body")
    assert owner.journal.read(id) == b"body"
    owner.journal.commit()
    assert owner.journal.read(id) == b"body"
    owner.settle()
    assert owner.journal.read(id) == b"body"
    owner.journal.close()


def test_the_size_of_an_item_is_the_same_before_and_after_the_write_and_a_restart(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    small, large = owner.journal.append(1, 2, b"m", b"b"), owner.journal.append(1, 2, b"meta", b"x" * 5000)
    sizes = [owner.journal.size(id) for id in (small, large)]
    assert sizes[1] - sizes[0] == 3 + 4999
    owner.settle()
    assert [owner.journal.size(id) for id in (small, large)] == sizes
    assert owner.journal.disk_bytes == owner.journal.status().disk_bytes > 5000
    owner.journal.close()
    again = Owner(tmp_path)
    assert [again.journal.size(id) for id in (small, large)] == sizes
    with pytest.raises(KeyError):
        again.journal.size(99)
    again.journal.close()


def test_positions_become_durable_in_order_and_an_empty_commit_does_nothing(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    owner.journal.commit()
    for _ in range(50):
        owner.journal.append(1, 1, b"", b"x" * 50)
        owner.journal.commit()
    owner.until(lambda: owner.journal.durable_position == 50)
    assert owner.durable == sorted(set(owner.durable))
    figures = owner.journal.status()
    assert figures.commits == 50
    assert 1 <= figures.synced_batches <= 50
    assert figures.live_items == 50
    assert figures.segments > 1
    assert owner.journal.backlog_bytes == 0
    owner.journal.close()


def test_uncommitted_item_is_not_durable(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    owner.journal.append(1, 1, b"", b"x")
    owner.journal.commit()
    owner.until(lambda: owner.journal.durable_position == 1)
    owner.journal.append(1, 1, b"", b"x")
    assert owner.journal.position == 2
    assert owner.journal.durable_position == 1
    assert owner.journal.backlog_bytes > 0
    owner.journal.close()
    assert owner.durable == [1, 2]  # close commits and reports it


@pytest.mark.parametrize(
    ("kind", "owner_number", "meta"), [(256, 0, b""), (-1, 0, b""), (0, 1 << 64, b""), (0, -1, b"")]
)
def test_item_out_of_range_is_refused_and_changes_nothing(
    tmp_path: Path, kind: int, owner_number: int, meta: bytes
) -> None:
    owner = Owner(tmp_path)
    with pytest.raises(ValueError, match="cannot be stored"):
        owner.journal.append(kind, owner_number, meta, b"")
    assert owner.journal.position == 0
    assert owner.journal.append(1, 1, b"", b"good") == 1
    owner.journal.close()
    assert Owner(tmp_path).bodies() == {1: b"good"}


def test_second_open_reports_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    with pytest.raises(LockedError, match=r"process \d+"):
        Owner(tmp_path)
    owner.journal.close()
    owner.journal.close()
    Owner(tmp_path).journal.close()


def test_live_works_once_and_omits_items_dropped_since_open(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    for _ in range(3):
        owner.journal.append(1, 1, b"", b"")
    owner.journal.close()
    again = Owner(tmp_path)
    items = again.journal.live()
    assert next(items).id == 1
    again.journal.drop(3)
    assert [item.id for item in items] == [2]
    with pytest.raises(JournalError, match="once"):
        again.journal.live()
    again.journal.close()


def test_append_beyond_the_backlog_limit_is_refused(tmp_path: Path) -> None:
    owner = Owner(tmp_path, limits=JournalLimits(backlog=1000))
    id = owner.journal.append(1, 1, b"", b"x" * 900)
    with pytest.raises(BacklogError, match="1000"):
        owner.journal.append(1, 1, b"", b"x" * 100)
    assert owner.journal.position == id
    owner.journal.drop(id)  # a drop is never refused
    owner.settle()
    owner.journal.append(1, 1, b"", b"x" * 900)
    owner.journal.close()


def test_closed_owner_loop_does_not_stop_the_commit_thread(tmp_path: Path) -> None:
    def closed(_call: object) -> None:
        raise RuntimeError("Event loop is closed")

    journal = Journal.open(tmp_path, notify=closed)
    journal.append(1, 1, b"", b"kept")
    journal.commit()
    journal.close()
    assert journal.durable_position == 1
    journal.append(1, 1, b"", b"")
    with pytest.raises(JournalError, match="closed"):
        journal.commit()
    assert Owner(tmp_path).bodies() == {1: b"kept"}


@pytest.mark.parametrize("wrong", [{"segment": 10}, {"step": 0}, {"backlog": 1 << 31}, {"readers": -1}])
def test_invalid_limit_is_named_in_the_error(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        JournalLimits(**wrong)
