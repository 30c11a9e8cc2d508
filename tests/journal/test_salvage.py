"""Survey and salvage of damaged journals: what is lost is said, what can be read is kept, a crash loses neither."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mesh.journal import DamageError, JournalLimits, LockedError
from mesh.journal.layout import FRAME_SIZE, HEADER_SIZE
from mesh.journal.manifest import DAMAGE, NAME, Mark
from mesh.journal.salvage import OLD, Salvaged, salvage
from mesh.journal.survey import DAMAGED, MISSING, WHOLE, Gap, Survey, survey
from tests.fakes.disk import Disk
from tests.journal.owner import TINY, Owner, fields

STATE = 7  # the kind of an item that is of use without its body
ROOMY = JournalLimits(segment=4096, step=512)


def body(number: int) -> bytes:
    return b"%04d" % number * 10


def filled(tmp_path: Path, limits: JournalLimits = TINY, count: int = 20) -> tuple[Disk, Mark]:
    """A disk with a closed journal: items 1 to ``count``, of which 3 is dropped, so its drop is the last record."""
    disk = Disk()
    owner = Owner(tmp_path, limits=limits, files=disk)
    for number in range(1, count + 1):
        owner.journal.append(STATE if number == 2 else 1, number, b"meta", body(number))
        owner.settle()
    owner.journal.drop(3)
    owner.settle()
    mark = owner.journal.mark()
    owner.journal.close()
    assert mark is not None
    return disk, mark


def logs(disk: Disk) -> list[Path]:
    return [path for path in disk.paths() if path.suffix == ".log"]


def content(disk: Disk, path: Path) -> bytes:
    handle = disk.open(path, create=False)
    try:
        return disk.read(handle, disk.size(handle), 0)
    finally:
        disk.close(handle)


def look(disk: Disk, tmp_path: Path, mark: Mark | None = None) -> Survey:
    found = survey(disk, tmp_path, mark)
    assert disk.open_handles == 0
    return found


def mend(disk: Disk, tmp_path: Path, mark: Mark | None = None) -> Salvaged:
    done = salvage(disk, tmp_path, mark, lambda kind: kind == STATE, TINY)
    assert disk.open_handles == 0
    assert done is not None
    return done


def kept(disk: Disk, tmp_path: Path, mark: Mark | None = None) -> dict[int, bytes]:
    """The bodies of a journal that opens, closed again, also after another crash and start."""
    owner = Owner(tmp_path, files=disk, mark=mark)
    bodies = owner.bodies()
    id = owner.journal.append(1, 1, b"", b"new")
    assert id > max(bodies, default=0)
    owner.journal.drop(id)
    owner.settle()
    image = disk.crash(1)
    owner.journal.close()
    again = Owner(tmp_path, files=image, mark=mark)
    assert again.bodies() == bodies
    again.journal.close()
    return bodies


ALL = {number: body(number) for number in range(1, 21) if number != 3}


def test_a_whole_journal_is_left_alone(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    found = look(disk, tmp_path, mark)
    assert found.whole
    assert (found.id, found.position, found.gaps, found.all_faults()) == (mark.id, 21, [], [])
    assert set(found.items) == set(ALL)
    assert [segment.state for segment in found.segments] == [WHOLE] * len(logs(disk))
    assert sum(segment.records for segment in found.segments) == 21
    before = disk.paths()
    assert salvage(disk, tmp_path, mark, lambda kind: False) is None
    assert [path for path in disk.paths() if path.name != "lock"] == before


def test_a_torn_tail_is_no_damage(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    owner.journal.append(1, 1, b"", b"kept")
    owner.settle()

    def torn(operation: str, path: Path) -> None:
        if operation == "write" and path.suffix == ".log":
            raise OSError(errno.ENOSPC, "injected", str(path))
        if operation == "truncate":
            raise OSError(errno.EIO, "injected", str(path))

    disk.before = torn
    owner.journal.append(1, 1, b"", b"never acknowledged" * 9)
    owner.journal.commit()
    owner.until(lambda: bool(owner.failures))
    image = disk.kill()
    found = look(image, tmp_path)
    assert found.whole
    assert set(found.items) == {1}
    disk.before = lambda operation, path: None
    owner.settle()
    owner.journal.close()


def test_a_flipped_bit_in_a_body_loses_one_item(tmp_path: Path) -> None:
    """With and without the index of the segment."""
    for with_index in (True, False):
        disk, mark = filled(tmp_path)
        first = logs(disk)[0]
        if not with_index:
            disk.unlink(first.with_suffix(".index"))
        disk.damage(first, HEADER_SIZE + FRAME_SIZE + 40)
        found = look(disk, tmp_path, mark)
        assert not found.whole
        assert found.segments[0].state == DAMAGED
        assert first.name in found.all_faults()[0]
        done = mend(disk, tmp_path, mark)
        if with_index:
            assert [(item.id, item.kind, item.owner, item.meta) for item in found.lost()] == [(1, 1, 1, b"meta")]
            assert (done.kept, done.lost) == (18, 1)
        else:
            assert found.gaps == [Gap(1, 1)]
        assert kept(disk, tmp_path, mark) == {id: text for id, text in ALL.items() if id != 1}
        assert first.with_name(first.name + ".damaged") in disk.paths()


def test_every_flipped_bit_of_a_sealed_segment_is_found_and_loses_at_most_its_frame(tmp_path: Path) -> None:
    size = None
    for with_index in (True, False):
        at = 0
        while size is None or at < size:
            disk, mark = filled(tmp_path)
            second = logs(disk)[1]
            if not with_index:
                disk.unlink(second.with_suffix(".index"))
            found = look(disk, tmp_path, mark)
            assert found.whole
            size = found.segments[1].length
            disk.damage(second, at)
            found = look(disk, tmp_path, mark)
            assert not found.whole, at
            if not with_index:
                with pytest.raises(DamageError):
                    Owner(tmp_path, files=disk, mark=mark)
            mend(disk, tmp_path, mark)
            rest = kept(disk, tmp_path, mark)
            assert rest.items() <= ALL.items() | {(3, body(3))}
            assert len(ALL.keys() - rest.keys()) <= 1, at
            at += 5


def test_an_item_that_needs_no_body_keeps_the_rest(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    found = look(disk, tmp_path)
    item = found.items[2]
    path = next(path for path in logs(disk) if int(path.stem) == item.segment)
    disk.damage(path, item.offset + item.size - 10)
    done = mend(disk, tmp_path, mark)
    assert (done.kept, done.stripped, done.lost) == (19, 1, 0)
    owner = Owner(tmp_path, files=disk, mark=mark)
    assert [fields(each) for each in owner.journal.live() if each.id == 2] == [(2, STATE, 2, b"meta")]
    assert owner.journal.read(2) == b""
    owner.journal.close()


@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_missing_segment_is_named_with_its_records(tmp_path: Path, which: int) -> None:
    disk, mark = filled(tmp_path)
    before = look(disk, tmp_path)
    segment = before.segments[which]
    disk.unlink(logs(disk)[which])
    found = look(disk, tmp_path, mark)
    assert [each.state for each in found.segments if each.number == segment.number] == [MISSING]
    assert found.gaps == [Gap(segment.first, segment.first + segment.records - 1)]
    mend(disk, tmp_path, mark)
    rest = {id: text for id, text in ALL.items() if before.items[id].segment != segment.number}
    if which == -1:
        rest[3] = body(3)  # its drop is lost: to deliver again is better than to lose
    assert kept(disk, tmp_path, mark) == rest


def test_a_missing_journal_starts_empty_when_told_to(tmp_path: Path) -> None:
    _, mark = filled(tmp_path)
    disk = Disk()
    found = look(disk, tmp_path, mark)
    assert not found.whole
    assert mark.id in found.all_faults()[0]
    assert found.gaps == [Gap(1, 0)]
    mend(disk, tmp_path, mark)
    owner = Owner(tmp_path, files=disk, mark=mark)
    assert owner.bodies() == {}
    new = owner.journal.mark()
    assert new is not None
    assert new.id != mark.id
    owner.journal.close()
    again = Owner(tmp_path, files=disk, mark=new)
    again.journal.close()
    with pytest.raises(DamageError):  # the loss was accepted once: the old mark does not come back
        Owner(tmp_path, files=disk, mark=mark)


def test_a_damaged_manifest_loses_nothing(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    disk.damage(tmp_path / NAME, 20)
    assert look(disk, tmp_path, mark).manifest == DAMAGED
    mend(disk, tmp_path, mark)
    assert kept(disk, tmp_path, mark) == ALL


def test_damage_found_in_use_keeps_the_journal_closed(tmp_path: Path) -> None:
    """With an index the start reads no body, so it does not see the damage."""
    disk, mark = filled(tmp_path)
    first = logs(disk)[0]
    disk.damage(first, HEADER_SIZE + FRAME_SIZE + 40)
    owner = Owner(tmp_path, files=disk, mark=mark)
    heard: list[DamageError] = []
    owner.journal.on_damage = heard.append
    with pytest.raises(DamageError):
        owner.journal.read(1)
    assert len(heard) == 1
    owner.journal.close()
    with pytest.raises(DamageError, match="item 1 is damaged"):
        Owner(tmp_path, files=disk, mark=mark)
    assert not look(disk, tmp_path, mark).whole
    mend(disk, tmp_path, mark)
    assert tmp_path / DAMAGE not in disk.paths()
    assert set(kept(disk, tmp_path, mark)) == set(ALL) - {1}


def test_a_second_salvage_keeps_the_files_of_the_first(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    contents: list[bytes] = []
    for _ in range(3):
        disk.unlink(logs(disk)[0])
        contents.append(content(disk, tmp_path / NAME))
        mend(disk, tmp_path, mark)
    old = {content(disk, path) for path in disk.paths() if path.name.startswith(NAME) and path.suffix == OLD}
    assert old == set(contents)
    assert len(old) == 3


def test_salvage_does_not_touch_a_journal_in_use(tmp_path: Path) -> None:
    disk, mark = filled(tmp_path)
    owner = Owner(tmp_path, files=disk)
    with pytest.raises(LockedError):
        salvage(disk, tmp_path, mark, lambda kind: False)
    owner.journal.close()


OPERATIONS = 80  # of the disk; more than a salvage takes


@pytest.mark.parametrize("operations", range(1, OPERATIONS + 1))
def test_power_failure_during_a_salvage(tmp_path: Path, operations: int) -> None:
    """The salvage can be repeated, and keeps what it would have kept."""
    for seed in range(4):
        disk, mark = filled(tmp_path)
        disk.unlink(logs(disk)[1])
        disk.sync_directory(tmp_path)
        expected = {item.id for item in look(disk, tmp_path, mark).items.values() if item.intact}
        disk.take_image(operations, seed, lambda: None)
        mend(disk, tmp_path, mark)
        assert operations < OPERATIONS or disk.image is None
        image = disk.image or disk.crash(seed)
        try:
            opened = Owner(tmp_path, files=image, mark=mark)
        except DamageError:
            mend(image, tmp_path, mark)
            opened = Owner(tmp_path, files=image, mark=mark)
        assert set(opened.bodies()) == expected
        opened.journal.close()


@pytest.mark.parametrize("seed", range(40))
def test_failing_disk_leaves_the_damaged_journal_or_a_salvage_to_finish(tmp_path: Path, seed: int) -> None:
    disk, mark = filled(tmp_path)
    disk.unlink(logs(disk)[1])
    expected = {item.id for item in look(disk, tmp_path, mark).items.values() if item.intact}
    count = [0]

    def fail(operation: str, path: Path) -> None:
        if operation not in ("read",):
            count[0] += 1
            if count[0] == seed:
                raise OSError(errno.EIO, "injected", str(path))

    disk.before = fail
    try:
        mend(disk, tmp_path, mark)
    except OSError:
        disk.before = lambda operation, path: None
        try:
            Owner(tmp_path, files=disk, mark=mark).journal.close()
        except DamageError:
            mend(disk, tmp_path, mark)
    disk.before = lambda operation, path: None
    assert set(kept(disk, tmp_path, mark)) == expected
