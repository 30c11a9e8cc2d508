"""Recovery from the files that a crash or a failing disk leaves."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mesh.journal import DamageError, JournalLimits
from mesh.journal.frames import Frames
from mesh.journal.layout import FRAME_SIZE, HEADER_SIZE, parse_header
from tests.fakes.disk import Disk
from tests.journal.owner import READING, TINY, Owner

ROOMY = JournalLimits(segment=4096, step=512)


def batches(owner: Owner, count: int, body: bytes = b"x" * 40) -> None:
    """Append ``count`` items, each in its own frame."""
    for _ in range(count):
        owner.journal.append(1, 1, b"meta", body)
        owner.settle()


def logs(disk: Disk) -> list[Path]:
    return [path for path in disk.paths() if path.suffix == ".log"]


def written(disk: Disk, path: Path) -> bytes:
    """A segment up to the end of its last frame; only zeros follow."""
    content = disk.content(path)
    handle = disk.open(path, create=False)
    header = parse_header(content[:HEADER_SIZE])
    assert header is not None
    frames = Frames(disk, handle, header, len(content))
    while frames.next() is not None:
        pass
    disk.close(handle)
    return content[: frames.offset]


def test_torn_tail_is_cut_off_at_any_byte(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    batches(owner, 3)
    left = disk.crash(0)  # not after an orderly end, which records how far the segment was synced
    owner.journal.close()
    path = logs(disk)[-1]
    whole = written(disk, path)
    frame = (len(whole) - HEADER_SIZE) // 3
    for end in range(HEADER_SIZE + 2 * frame, len(whole)):
        for tail in (b"", bytes(30), b"\xff" * 200):
            torn = left.crash(0)
            handle = torn.open(path, create=False)
            torn.truncate(handle, end)
            torn.write(handle, [tail], end)
            torn.close(handle)
            again = Owner(tmp_path, limits=ROOMY, files=torn)
            assert again.bodies() == {1: b"x" * 40, 2: b"x" * 40}
            assert again.journal.append(1, 1, b"", b"after") == 3
            again.journal.close()
            last = Owner(tmp_path, limits=ROOMY, files=torn)
            assert last.bodies()[3] == b"after"
            last.journal.close()
            assert torn.open_handles == 0


def test_damaged_frame_in_the_last_segment_is_not_a_torn_tail(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    batches(owner, 3)
    left = disk.crash(0)
    owner.journal.close()
    path = logs(disk)[-1]
    frame = (len(written(disk, path)) - HEADER_SIZE) // 3
    for at in range(HEADER_SIZE, HEADER_SIZE + 2 * frame):
        damaged = left.crash(0)
        damaged.damage(path, at)
        with pytest.raises(DamageError) as caught:
            Owner(tmp_path, limits=ROOMY, files=damaged)
        assert caught.value.path == path
        assert caught.value.offset in (HEADER_SIZE, HEADER_SIZE + frame)
        assert str(path) in str(caught.value)
        assert damaged.open_handles == 0


def test_frame_like_payload_in_a_torn_tail_is_not_damage(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    batches(owner, 1)
    path = logs(disk)[-1]
    forged = bytearray(written(disk, path)[HEADER_SIZE:])  # a client that saw a frame of another segment
    forged[4] ^= 1
    batches(owner, 1, bytes(forged) * 3)
    torn = disk.crash(0)
    owner.journal.close()
    handle = torn.open(path, create=False)
    torn.truncate(handle, len(written(disk, path)) - 1)
    torn.close(handle)
    again = Owner(tmp_path, limits=ROOMY, files=torn)
    assert list(again.bodies()) == [1]
    again.journal.close()


def test_damage_in_a_sealed_segment_without_index_is_reported_at_open(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    batches(owner, 20)
    owner.journal.close()
    first = logs(disk)[0]
    disk.unlink(first.with_suffix(".index"))
    disk.damage(first, HEADER_SIZE + FRAME_SIZE + 30)
    with pytest.raises(DamageError, match=first.name):
        Owner(tmp_path, files=disk)


def test_damaged_body_in_an_indexed_segment_is_reported_at_read(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    batches(owner, 20)
    owner.journal.close()
    first = logs(disk)[0]
    disk.damage(first, HEADER_SIZE + FRAME_SIZE + 30)
    again = Owner(tmp_path, files=disk)
    with pytest.raises(DamageError, match="item 1 is damaged"):
        again.journal.read(1)
    assert again.journal.read(2) == b"x" * 40
    again.journal.close()


def test_missing_short_or_headless_segment_is_reported(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    batches(owner, 20)
    owner.journal.close()
    second = logs(disk)[1]
    missing = disk.crash(0)
    missing.unlink(second)
    with pytest.raises(DamageError, match="missing"):
        Owner(tmp_path, files=missing)
    short = disk.crash(0)
    handle = short.open(second, create=False)
    short.truncate(handle, HEADER_SIZE + 10)
    with pytest.raises(DamageError, match="were synced"):
        Owner(tmp_path, files=short)
    headless = disk.crash(0)
    headless.damage(second, 9)
    with pytest.raises(DamageError, match="header"):
        Owner(tmp_path, files=headless)


@pytest.mark.parametrize("size", [0, 10, HEADER_SIZE])
def test_segment_without_a_header_is_removed(tmp_path: Path, size: int) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    batches(owner, 5)
    owner.journal.close()
    last = logs(disk)[-1]
    following = last.with_name(f"{int(last.stem) + 1:08d}.log")
    handle = disk.open(following, create=True)
    disk.write(handle, [bytes(size)], 0)
    disk.close(handle)
    again = Owner(tmp_path, files=disk)
    assert len(again.bodies()) == 5
    assert following not in disk.paths()
    again.journal.close()


def test_open_reads_no_body_of_a_sealed_segment(tmp_path: Path) -> None:
    disk = Disk()
    limits = JournalLimits(segment=1 << 16)
    owner = Owner(tmp_path, limits=limits, files=disk)
    batches(owner, 100, b"x" * 10_000)
    owner.journal.close()
    disk.read_bytes.clear()
    again = Owner(tmp_path, limits=limits, files=disk)
    assert len(list(again.journal.live())) == 100
    sealed = [path.name for path in logs(disk)[:-1]]
    assert len(sealed) > 10
    assert {disk.read_bytes[name] for name in sealed} == {HEADER_SIZE}
    assert sum(size for name, size in disk.read_bytes.items() if name.endswith(".index")) < 100 * 100
    again.journal.close()


@pytest.mark.parametrize("what", ["missing", "damaged", "short", "of another segment"])
def test_invalid_index_is_built_again(tmp_path: Path, what: str) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    batches(owner, 20)
    owner.journal.drop(3)
    owner.journal.close()
    indexes = [path for path in disk.paths() if path.suffix == ".index"]
    good = disk.content(indexes[0])
    if what == "missing":
        disk.unlink(indexes[0])
    elif what == "damaged":
        disk.damage(indexes[0], len(good) - 3)
    elif what == "short":
        handle = disk.open(indexes[0], create=False)
        disk.truncate(handle, 20)
    else:
        handle = disk.open(indexes[0], create=False)
        disk.write(handle, [disk.content(indexes[1])], 0)
    again = Owner(tmp_path, files=disk)
    assert set(again.bodies()) == set(range(1, 21)) - {3}
    again.journal.close()
    assert disk.content(indexes[0])[:40] == good[:40]


def test_leftover_index_files_are_removed(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    batches(owner, 5)
    owner.journal.close()
    leftovers = [tmp_path / "00000000.index", tmp_path / "00000001.index.new"]
    for path in leftovers:
        disk.close(disk.open(path, create=True))
    Owner(tmp_path, files=disk).journal.close()
    assert not set(leftovers) & set(disk.paths())


def test_recovered_records_are_synced_before_they_are_durable(tmp_path: Path) -> None:
    """A killed process leaves bytes in the page cache that no sync has seen."""
    disk = Disk()
    owner = Owner(tmp_path, limits=TINY, files=disk)
    batches(owner, 1)
    left: list[Disk] = []

    def kill(operation: str, path: Path) -> None:
        if operation == "sync" and not left:
            left.append(disk.kill())

    disk.before = kill
    batches(owner, 1)
    owner.journal.close()
    again = Owner(tmp_path, files=left[0])
    assert again.journal.durable_position == 2
    after = left[0].crash(0)
    again.journal.close()
    last = Owner(tmp_path, files=after)
    assert list(last.bodies()) == [1, 2]
    last.journal.close()


def test_recovered_file_names_are_synced_before_the_first_commit(tmp_path: Path) -> None:
    """The process is killed after it creates a segment and before it syncs the directory."""
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    left: list[Disk] = []

    def kill(operation: str, path: Path) -> None:
        if operation == "sync_directory":
            left.append(disk.kill())

    disk.before = kill
    batches(owner, 5)
    owner.journal.close()
    for image in left:
        again = Owner(tmp_path, files=image)
        again.journal.append(1, 1, b"", b"acknowledged")
        again.settle()
        position = again.journal.durable_position
        crashed = [image.crash(seed) for seed in range(8)]
        again.journal.close()
        for after in crashed:
            last = Owner(tmp_path, files=after)
            assert last.journal.position >= position
            last.journal.close()


@pytest.mark.parametrize("limits", [TINY, READING], ids=["picked", "read"])
@pytest.mark.parametrize("operations", range(1, 40))
def test_removed_segments_do_not_return_out_of_order(tmp_path: Path, operations: int, limits: JournalLimits) -> None:
    """The power fails while several segments are cleaned in a row; the drops of a segment are in the next one."""
    for seed in range(6):
        disk = Disk()
        owner = Owner(tmp_path, limits=limits, files=disk)
        ids: list[int] = []
        for _ in range(12):
            ids.append(owner.journal.append(1, 1, b"", b"x" * 120))
            if len(ids) > 5:
                owner.journal.drop(ids.pop(0))
            owner.settle()
        last = ids.pop()
        for id in ids:
            owner.journal.drop(id)
        disk.take_image(operations, seed, lambda: None)
        owner.settle()
        owner.journal.close()
        image = disk.image or disk.crash(seed)
        again = Owner(tmp_path, files=image)
        assert list(again.bodies()) in ([last], [*ids, last])
        again.journal.close()


def churn(owner: Owner, rounds: int) -> int:
    """Append items, and drop each after the next is appended; returns the id of the last, the only live one."""
    last = owner.journal.append(1, 1, b"", b"x" * 120)
    for _ in range(rounds):
        before, last = last, owner.journal.append(1, 1, b"", b"x" * 120)
        owner.journal.drop(before)
        owner.settle()
    return last


def test_file_of_a_removed_segment_is_reused_for_the_next(tmp_path: Path) -> None:
    disk = Disk()
    made: list[Path] = []
    disk.made = made.append
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    names = [path.name for path in made]
    assert names == ["spare", "spare", "manifest.new"], "the first segment, too, is written over a file of zeros"
    made.clear()
    churn(owner, 400)
    assert int(logs(disk)[-1].stem) > 10
    assert not [path for path in made if path.suffix in (".log", "")]
    assert disk.read_bytes["00000001.log"] == 0, "a segment without live items is not read"
    owner.journal.close()


def test_restart_restores_the_spare_file(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    churn(owner, 10)
    owner.journal.close()
    for image in (disk.kill(), disk.crash(1)):
        made: list[Path] = []
        image.made = made.append
        again = Owner(tmp_path, limits=ROOMY, files=image)
        while len(logs(image)) == 1:
            churn(again, 1)
        assert not [path for path in made if path.suffix in (".log", "")]
        again.journal.close()


def test_journal_works_without_a_spare_file(tmp_path: Path) -> None:
    disk = Disk()

    def no_room(operation: str, path: Path) -> None:
        if operation == "write" and path.name == "spare":
            raise OSError(errno.ENOSPC, "injected", str(path))

    disk.before = no_room
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    assert [path.name for path in disk.paths()] == ["00000001.log", "manifest"]
    batches(owner, 2)
    owner.journal.close()
    again = Owner(tmp_path, limits=ROOMY, files=disk.crash(0))
    assert len(again.bodies()) == 2
    again.journal.close()


def test_old_content_of_a_reused_file_is_not_replayed(tmp_path: Path) -> None:
    """A power failure may lose any part of the batch that is written over an older segment."""
    disk = Disk()
    owner = Owner(tmp_path, files=disk)
    last = churn(owner, 20)
    left: list[tuple[Disk, int, int, bytes]] = []  # with the durable position, and the item that may be durable

    for length in range(1, 200, 7):
        position, body = owner.journal.position, b"y" * length
        newest = owner.journal.append(1, 1, b"", body)

        def power_off(
            operation: str, path: Path, position: int = position, newest: int = newest, body: bytes = body
        ) -> None:
            if operation == "sync":
                left.extend((disk.crash(seed), position, newest, body) for seed in range(6))

        disk.before = power_off
        owner.settle()
        disk.before = lambda operation, path: None
        owner.journal.drop(newest)
        owner.settle()
    owner.journal.close()
    assert len(left) > 100
    for image, position, newest, body in left:
        again = Owner(tmp_path, files=image)
        assert again.journal.position >= position
        bodies = again.bodies()
        assert bodies.pop(newest, body) == body
        assert bodies == {last: b"x" * 120}
        again.journal.close()


@pytest.mark.parametrize("operations", range(1, 60))
def test_power_failure_during_reuse_of_a_file_loses_nothing(tmp_path: Path, operations: int) -> None:
    for seed in range(6):
        disk = Disk()
        owner = Owner(tmp_path, files=disk)
        churn(owner, 12)
        kept = owner.journal.append(1, 1, b"", b"kept")
        owner.settle()
        durable: list[int] = []

        def note(owner: Owner = owner, durable: list[int] = durable) -> None:
            durable.append(owner.durable[-1])

        disk.take_image(operations, seed, note)
        last = churn(owner, 12)
        owner.journal.close()
        image = disk.image or disk.crash(seed)
        again = Owner(tmp_path, files=image)
        assert again.journal.position >= (durable[0] if durable else owner.journal.durable_position)
        lives = set(again.bodies())
        assert kept in lives
        assert durable or lives == {kept, last}
        again.journal.close()


def test_cleaning_reads_only_live_items_if_they_are_few(tmp_path: Path) -> None:
    disk = Disk()
    owner = Owner(tmp_path, limits=ROOMY, files=disk)
    kept = [owner.journal.append(1, 1, b"meta", b"k" * 20) for _ in range(5)]
    owner.settle()
    churn(owner, 100)
    assert (tmp_path / "00000001.log") not in disk.paths()
    assert disk.read_bytes["00000001.log"] < ROOMY.segment / 4
    assert [owner.journal.read(id) for id in kept] == [b"k" * 20] * 5
    image = disk.crash(0)
    owner.journal.close()
    again = Owner(tmp_path, limits=ROOMY, files=image)
    found = {item.id: item.meta for item in again.journal.live()}
    assert [found[id] for id in kept] == [b"meta"] * 5
    again.journal.close()
