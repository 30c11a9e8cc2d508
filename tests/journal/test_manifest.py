"""The manifest: what is missing from a journal is noticed and named, and a crash is never taken for damage."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mesh.journal import DamageError, JournalLimits
from mesh.journal.layout import HEADER_SIZE
from mesh.journal.manifest import NAME, Mark, load_manifest
from mesh.journal.recovery import has_journal
from tests.fakes.disk import Disk
from tests.journal.owner import READING, TINY, Owner

ROOMY = JournalLimits(segment=4096, step=512)


def fill(owner: Owner, count: int, size: int = 40) -> None:
    """Append ``count`` items that stay live, each in its own frame."""
    for _ in range(count):
        owner.journal.append(1, 1, b"meta", b"x" * size)
        owner.settle()


def logs(disk: Disk) -> list[Path]:
    return [path for path in disk.paths() if path.suffix == ".log"]


def filled(tmp_path: Path, limits: JournalLimits = TINY) -> tuple[Disk, Mark]:
    """A disk with a closed journal of several segments, and its mark."""
    disk = Disk()
    owner = Owner(tmp_path, limits=limits, files=disk)
    fill(owner, 20)
    owner.journal.close()
    again = Owner(tmp_path, limits=limits, files=disk)
    mark = again.journal.mark()
    assert mark is not None
    again.journal.close()
    return disk, mark


def cut(disk: Disk, path: Path, size: int) -> None:
    handle = disk.open(path, create=False)
    disk.truncate(handle, size)
    disk.sync(handle)
    disk.close(handle)


def test_a_deleted_newest_segment_is_named(tmp_path: Path) -> None:
    disk, _ = filled(tmp_path)
    newest = logs(disk)[-1]
    disk.unlink(newest)
    with pytest.raises(DamageError, match=f"{newest.name}: the segment is missing .records [0-9]+ to 20"):
        Owner(tmp_path, files=disk)
    assert disk.open_handles == 0


@pytest.mark.parametrize("size", [0, 10, HEADER_SIZE, HEADER_SIZE + 10])
def test_an_emptied_newest_segment_is_named(tmp_path: Path, size: int) -> None:
    disk, _ = filled(tmp_path)
    newest = logs(disk)[-1]
    cut(disk, newest, size)
    with pytest.raises(DamageError, match=f"{newest.name}: .* bytes of the segment were synced"):
        Owner(tmp_path, files=disk)
    assert newest in disk.paths()
    assert disk.open_handles == 0


def test_a_deleted_oldest_segment_is_named(tmp_path: Path) -> None:
    disk, _ = filled(tmp_path)
    oldest = logs(disk)[0]
    disk.unlink(oldest)
    with pytest.raises(DamageError, match=f"{oldest.name}: the segment is missing .records 1 to"):
        Owner(tmp_path, files=disk)


def test_a_segment_of_another_journal_is_noticed(tmp_path: Path) -> None:
    disk, _ = filled(tmp_path)
    other, _ = filled(tmp_path / "other")
    oldest = logs(disk)[0]
    handle = disk.open(oldest, create=False)
    disk.write(handle, [other.content(tmp_path / "other" / oldest.name)], 0)
    disk.close(handle)
    with pytest.raises(DamageError, match="another segment"):
        Owner(tmp_path, files=disk)


def test_damage_in_the_last_frame_is_no_torn_tail(tmp_path: Path) -> None:
    """The manifest says at an orderly end how far the last segment was synced."""
    disk, _ = filled(tmp_path, ROOMY)
    manifest = load_manifest(disk, tmp_path)
    assert manifest is not None
    disk.damage(logs(disk)[-1], manifest.segments[-1].length - 3)
    with pytest.raises(DamageError, match="were synced"):
        Owner(tmp_path, limits=ROOMY, files=disk)


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    for offset in (0, 9, 30, 50):
        disk, _ = filled(tmp_path)
        disk.damage(tmp_path / NAME, offset)
        with pytest.raises(DamageError, match="manifest is damaged"):
            Owner(tmp_path, files=disk)


def test_an_emptied_folder_is_noticed_by_the_mark(tmp_path: Path) -> None:
    _, mark = filled(tmp_path)
    assert mark.position == 20
    with pytest.raises(DamageError, match=f"missing: journal {mark.id} was here and had records up to 20"):
        Owner(tmp_path, files=Disk(), mark=mark)


def test_a_deleted_manifest_is_noticed_by_the_mark(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    disk.unlink(tmp_path / NAME)
    with pytest.raises(DamageError, match=f"the manifest of journal {mark.id} is missing"):
        Owner(tmp_path, files=disk, mark=mark)


def test_another_journal_is_noticed_by_the_mark(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    with pytest.raises(DamageError, match=f"the node's journal is {'0' * 32}"):
        Owner(tmp_path, files=disk, mark=Mark("0" * 32, 1))
    Owner(tmp_path, files=disk, mark=mark).journal.close()


def test_an_older_copy_is_noticed_by_the_mark(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    older = disk.crash(0)
    owner = Owner(tmp_path, files=disk, mark=mark)
    fill(owner, 5)
    owner.journal.close()
    again = Owner(tmp_path, files=disk, mark=mark)
    newer = again.journal.mark()
    assert newer == Mark(mark.id, 25)
    again.journal.close()
    with pytest.raises(DamageError, match="ends with record 20, but records up to 25 were durable"):
        Owner(tmp_path, files=older, mark=newer)
    assert older.open_handles == 0


def test_a_mark_that_comes_late_is_compared(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    owner = Owner(tmp_path, files=disk)
    owner.journal.check(None)
    owner.journal.check(mark)
    with pytest.raises(DamageError, match="the node's journal is"):
        owner.journal.check(Mark("0" * 32, 1))
    owner.journal.close()


def test_a_journal_without_a_manifest_gets_one(tmp_path: Path) -> None:
    """Journals of earlier versions have none, and etcd has no mark of them."""
    disk, _ = filled(tmp_path)
    disk.unlink(tmp_path / NAME)
    owner = Owner(tmp_path, files=disk)
    assert len(owner.bodies()) == 20
    mark = owner.journal.mark()
    owner.journal.close()
    manifest = load_manifest(disk, tmp_path)
    assert manifest is not None
    assert mark is not None
    assert mark == Mark(manifest.id.hex(), 20)
    assert [named.number for named in manifest.segments] == [int(path.stem) for path in logs(disk)]


def test_the_id_stays_and_the_manifest_is_not_written_for_commits(tmp_path: Path) -> None:
    disk = Disk()
    writes: list[Path] = []

    def note(operation: str, path: Path) -> None:
        if operation == "replace" and path.name == NAME:
            writes.append(path)

    disk.before = note
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    mark = owner.journal.mark()
    assert mark is not None
    writes.clear()
    fill(owner, 20)
    assert writes == []
    owner.journal.close()
    assert len(writes) == 1
    again = Owner(tmp_path, limits=ROOMY, files=disk, mark=mark)
    assert again.journal.mark() == Mark(mark.id, 20)
    again.journal.close()


def churn(owner: Owner, rounds: int) -> int:
    """Append items, and drop each after the next is appended; returns the id of the last, the only live one."""
    last = owner.journal.append(1, 1, b"", b"x" * 120)
    for _ in range(rounds):
        before, last = last, owner.journal.append(1, 1, b"", b"x" * 120)
        owner.journal.drop(before)
        owner.settle()
    return last


@pytest.mark.parametrize("limits", [TINY, READING], ids=["picked", "read"])
@pytest.mark.parametrize("operations", range(1, 90))
def test_power_failure_at_any_write_is_no_damage(tmp_path: Path, operations: int, limits: JournalLimits) -> None:
    """While segments are begun, named, removed and reused."""
    for seed in range(5):
        disk = Disk()
        owner = Owner(tmp_path, limits=limits, files=disk)
        mark = owner.journal.mark()
        durable: list[int] = []

        def note(owner: Owner = owner, durable: list[int] = durable) -> None:
            durable.append(owner.durable[-1] if owner.durable else 0)

        disk.take_image(operations, seed, note)
        churn(owner, 12)
        owner.journal.close()
        image = disk.image or disk.crash(seed)
        again = Owner(tmp_path, limits=limits, files=image, mark=mark)
        assert again.journal.position >= (durable[0] if durable else owner.journal.durable_position)
        again.journal.close()
        manifest = load_manifest(image, tmp_path)
        assert manifest is not None
        assert [named.number for named in manifest.segments] == [int(path.stem) for path in logs(image)]


@pytest.mark.parametrize("operations", range(1, 30))
def test_power_failure_at_the_first_start_is_no_damage(tmp_path: Path, operations: int) -> None:
    for seed in range(5):
        disk = Disk()
        disk.take_image(operations, seed, lambda: None)
        Owner(tmp_path, files=disk).journal.close()
        image = disk.image or disk.crash(seed)
        again = Owner(tmp_path, files=image)
        assert again.bodies() == {}
        again.journal.close()


@pytest.mark.parametrize("operation", ["open", "write", "sync", "replace", "sync_directory"])
def test_no_frame_is_written_before_its_segment_is_named(tmp_path: Path, operation: str) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    failures = [6]

    def fail(what: str, path: Path) -> None:
        if what == operation and (path.name.startswith("manifest") or path == tmp_path) and failures[0]:
            failures[0] -= 1
            raise OSError(errno.EIO, "injected", str(path))

    disk.before = fail
    fill(owner, 10)
    assert failures[0] == 0
    image = disk.crash(1)
    owner.journal.close()
    again = Owner(tmp_path, files=image)
    assert len(again.bodies()) == 10
    again.journal.close()


def test_full_disk_does_not_keep_segments_from_being_removed(tmp_path: Path) -> None:
    """A removal writes the manifest, for which there is no room: the spare file is given up."""
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    spare = tmp_path / "spare"

    def full(operation: str, path: Path) -> None:
        if operation == "write" and path.name == "manifest.new" and spare in disk.paths():
            raise OSError(errno.ENOSPC, "injected", str(path))

    fill(owner, 3)
    first = logs(disk)[0]
    ids = list(range(1, owner.journal.position + 1))
    while len(logs(disk)) < 3:
        fill(owner, 1)
        ids.append(owner.journal.position)
    disk.before = full
    for id in ids[:-1]:
        owner.journal.drop(id)
    owner.settle()
    owner.until(lambda: first not in disk.paths())
    disk.before = lambda operation, path: None
    image = disk.crash(2)
    owner.journal.close()
    again = Owner(tmp_path, files=image)
    assert list(again.bodies()) == [ids[-1]]
    again.journal.close()


def test_start_on_a_full_disk_needs_no_new_manifest(tmp_path: Path) -> None:
    disk, _ = filled(tmp_path)

    def full(operation: str, path: Path) -> None:
        if operation == "write" and path.suffix != ".log":
            raise OSError(errno.ENOSPC, "injected", str(path))

    owner = Owner(tmp_path, files=disk)
    fill(owner, 1)
    left = disk.kill()
    owner.journal.close()
    left.before = full
    again = Owner(tmp_path, files=left)
    assert len(again.bodies()) == 21
    assert again.journal.mark() is None
    left.before = lambda operation, path: None
    fill(again, 1)
    assert again.journal.mark() is not None
    again.journal.close()


def test_has_journal(tmp_path: Path) -> None:
    disk = Disk()
    assert not has_journal(disk, tmp_path)
    Owner(tmp_path, files=disk).journal.close()
    assert has_journal(disk, tmp_path)
    disk.unlink(tmp_path / NAME)
    assert has_journal(disk, tmp_path)
