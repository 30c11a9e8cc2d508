"""The journal on a disk that is full, fails, hangs or recovers."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from mesh.journal import JournalLimits, UnsavedError
from tests.fakes.disk import Disk
from tests.journal.owner import READING, TINY, Owner


def failing(*operations: str, times: int = 1_000_000, code: int = errno.ENOSPC) -> Callable[[str, Path], None]:
    left = [times]

    def before(operation: str, path: Path) -> None:
        if operation in operations and path.suffix == ".log" and left[0] > 0:
            left[0] -= 1
            raise OSError(code, "injected", str(path))

    return before


def fine(operation: str, path: Path) -> None:
    return


@pytest.mark.parametrize("operations", [("write",), ("sync",), ("write", "truncate"), ("sync", "truncate"), ("open",)])
def test_failing_disk_acknowledges_nothing_until_it_recovers(
    tmp_path: Path, operations: tuple[str, ...]
) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    owner.journal.append(1, 1, b"", b"before")
    owner.settle()
    disk.before = failing(*operations)
    for number in range(10):  # more than one segment, so that opening the next one fails too
        owner.journal.append(1, 1, b"", b"%d" % number * 40)
        owner.journal.commit()
    owner.until(lambda: len(owner.failures) >= 3)
    acknowledged = owner.durable[-1]
    assert owner.journal.durable_position == acknowledged < owner.journal.position
    assert isinstance(owner.journal.failed, OSError)
    assert owner.journal.backlog_bytes > 0
    assert owner.journal.read(owner.journal.position) == b"9" * 40  # reads still work

    disk.before = fine
    owner.until(lambda: owner.journal.durable_position == owner.journal.position)
    assert owner.journal.failed is None
    assert owner.durable == sorted(set(owner.durable))
    image = disk.crash(7)  # the power goes right after the last acknowledgement
    owner.journal.close()
    again = Owner(tmp_path, files=image)
    assert list(again.bodies().values()) == [b"before", *(b"%d" % number * 40 for number in range(10))]
    again.journal.close()


def test_batch_of_a_failed_sync_goes_to_a_new_segment(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=JournalLimits(segment=4096, retry_first=0.001), files=disk)
    owner.journal.append(1, 1, b"", b"first")
    owner.settle()
    disk.before = failing("sync", times=1, code=errno.EIO)
    owner.journal.append(1, 1, b"", b"second")
    owner.settle()
    assert b"second" not in disk.content(tmp_path / "00000001.log")
    assert (tmp_path / "00000002.log") in disk.paths()
    assert owner.journal.read(2) == b"second"
    image = disk.crash(3)
    owner.journal.close()
    again = Owner(tmp_path, files=image)
    assert again.bodies() == {1: b"first", 2: b"second"}
    again.journal.close()


def test_close_on_a_failing_disk_raises_unsaved_error(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    disk.before = failing("write")
    owner.journal.append(1, 1, b"", b"never")
    with pytest.raises(UnsavedError, match="injected"):
        owner.journal.close()
    disk.before = fine
    again = Owner(tmp_path, files=disk)
    assert again.bodies() == {}
    again.journal.close()


def test_hanging_disk_does_not_block_close(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=JournalLimits(close=0.05), files=disk)
    released = Event()

    def hang(operation: str, path: Path) -> None:
        if operation == "sync":
            released.wait(10)

    disk.before = hang
    owner.journal.append(1, 1, b"", b"x")
    with pytest.raises(UnsavedError, match="in time"):
        owner.journal.close()
    released.set()


def test_unwritable_index_loses_no_item(tmp_path: Path) -> None:
    disk = Disk()

    def before(operation: str, path: Path) -> None:
        if ".index" in path.name and operation in ("open", "write", "replace"):
            raise OSError(errno.ENOSPC, "injected", str(path))

    owner = Owner(tmp_path, files=disk)
    disk.before = before
    for number in range(20):
        owner.journal.append(1, 1, b"", b"%02d" % number * 20)
        owner.settle()
    assert owner.failures == []
    owner.journal.close()
    disk.before = fine
    again = Owner(tmp_path, files=disk)
    assert list(again.bodies().values()) == [b"%02d" % number * 20 for number in range(20)]
    again.journal.close()


def churn(owner: Owner, count: int) -> int:
    """Append one item that stays live, then ``count`` that are dropped at once; returns the id of the first."""
    kept = owner.journal.append(1, 1, b"kept", b"k" * 30)
    for _ in range(count):
        owner.journal.drop(owner.journal.append(1, 1, b"", b"x" * 60))
        owner.settle()
    return kept


@pytest.mark.parametrize("limits", [TINY, READING], ids=["picked", "read"])
def test_cleaning_bounds_the_disk_and_keeps_live_items(tmp_path: Path, limits: JournalLimits) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=limits, files=disk)
    kept = churn(owner, 200)
    figures = owner.journal.status()
    assert figures.live_items == 1
    assert figures.disk_bytes <= 2 * figures.live_bytes + 3 * TINY.segment
    assert (tmp_path / "00000001.log") not in disk.paths()
    assert owner.journal.read(kept) == b"k" * 30
    owner.journal.close()
    again = Owner(tmp_path, files=disk)
    assert [(item.id, item.meta) for item in again.journal.live()] == [(kept, b"kept")]
    again.journal.close()
    assert disk.open_handles == 0


def test_failed_removal_of_a_segment_is_retried(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    disk.before = failing("unlink", times=3, code=errno.EIO)
    kept = churn(owner, 40)
    assert (tmp_path / "00000001.log") not in disk.paths()
    assert owner.journal.read(kept) == b"k" * 30
    owner.journal.close()


@pytest.mark.parametrize("limits", [TINY, READING], ids=["picked", "read"])
def test_damaged_segment_halts_cleaning_but_not_appends(tmp_path: Path, limits: JournalLimits) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=limits, files=disk)
    owner.journal.append(1, 1, b"kept", b"k" * 30)
    owner.settle()
    disk.damage(tmp_path / "00000001.log", 80)
    for _ in range(40):
        owner.journal.drop(owner.journal.append(1, 1, b"", b"x" * 60))
        owner.settle()
    assert [error.errno for error in owner.failures] == [errno.EIO]
    assert "00000001.log" in str(owner.failures[0])
    assert "00000001.log" in owner.journal.status().halted
    assert (tmp_path / "00000001.log") in disk.paths()
    assert owner.journal.durable_position == owner.journal.position
    owner.journal.close()
