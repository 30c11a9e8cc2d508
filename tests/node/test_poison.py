"""Messages in whose handling a node has ended: which are suspected, which are put aside, and how long."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh.node.block import lay_block, read_block, remove_block
from mesh.node.ending import CRASH, KILLED, Ended
from mesh.node.poison import ACCIDENT, CONDEMNED, MOST, Poison, begin_trail, end_trail
from mesh.transport.trail import BLOCK, Footprint, Trail, read_trail
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Publish
from tests.fakes.clock import FakeClock

LEFT = Footprint("1-a", "core-1, client core-1", "PUBLISH on 'vehicles/V1/cmd'", "f1")


def ended(how: str = CRASH, token: str = "1-a") -> Ended:
    return Ended(token, how, how != KILLED, "it crashed", "")


def die(folder: Path, process: int, left: Footprint | None = LEFT, clock: Callable[[], float] = time.time) -> Poison:
    """The process with this number has died."""
    poison = Poison(folder, clock)
    token = f"{process}-a"
    known = None if left is None else Footprint(token, left.source, left.packet, left.fingerprint)
    poison.blame(ended(token=token), known)
    return poison


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_trail(tmp_path)


def test_the_second_death_condemns_a_message(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not die(folder, 1).condemned
    assert die(folder, 2).condemned == {"f1"}
    assert Poison(folder).condemned == {"f1"}
    about = "the last process: it crashed; it handled a PUBLISH on 'vehicles/V1/cmd' of core-1, client core-1"
    assert [record.getMessage() for record in caplog.records] == [
        f"{about} (death 1 of 2)",
        f"{about} (death 2 of 2): it is not handled again",
    ]


def test_a_message_is_condemned_at_the_second_death_if_the_first_is_not_explained(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = die(folder, 1, None)
    assert first
    assert not first.condemned
    assert "the message that it handled is not known; this process notes each one" in caplog.text
    assert die(folder, 2).condemned == {"f1"}
    assert not die(folder, 3, Footprint("", "core-1", "PUBLISH on 't'", "f2")).condemned - {"f1"}


def test_each_process_counts_once(folder: Path) -> None:
    for _ in range(5):  # attempts to start
        assert not die(folder, 1).condemned
    for _ in range(5):
        assert not die(folder, 1, None).condemned


def test_a_message_of_another_publisher_is_the_same_message(folder: Path) -> None:
    die(folder, 1)
    second = die(folder, 2, Footprint("", "core-2, client core-2", LEFT.packet, LEFT.fingerprint))
    assert second.condemned == {"f1"}


@pytest.mark.parametrize("how", [None, ended(KILLED)])
def test_a_kill_from_outside_counts_for_nothing(folder: Path, how: Ended | None) -> None:
    for _ in range(3):
        Poison(folder).blame(how, LEFT)
    assert not Poison(folder)


@pytest.mark.parametrize("left", [None, Footprint("9-a", "core-1", "t", "f1"), Footprint("1-a", "core-1", "", "")])
def test_deaths_without_a_known_message_condemn_none(folder: Path, left: Footprint | None) -> None:
    for process in range(3):
        Poison(folder).blame(ended(token=f"{process}-a"), left)
    assert Poison(folder)
    assert not Poison(folder).condemned


def test_an_accident_is_forgotten_and_a_condemned_message_too(folder: Path) -> None:
    clock = FakeClock()
    die(folder, 1, clock=clock)
    clock.now += ACCIDENT
    assert not die(folder, 2, clock=clock).condemned
    assert die(folder, 3, clock=clock).condemned
    clock.now += CONDEMNED - 1
    assert Poison(folder, clock).condemned
    clock.now += 1
    assert not Poison(folder, clock)


def test_the_number_of_remembered_messages_is_bounded(folder: Path) -> None:
    for number in range(MOST + 1):
        for death in range(2):
            die(folder, 2 * number + death, Footprint("", "core", "t", str(number)))
    assert Poison(folder).condemned == {str(number) for number in range(1, MOST + 1)}


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"x": 1}]'])
def test_a_damaged_file_is_replaced(folder: Path, text: str) -> None:
    (folder / "poison.json").write_text(text)
    die(folder, 1)
    assert die(folder, 2).condemned == {"f1"}


def test_there_is_a_trail_after_a_death_only(folder: Path) -> None:
    assert begin_trail(folder) is None
    die(folder, 1, None)
    assert begin_trail(folder) is not None


def test_the_trail_outlives_the_process_and_is_removed_at_its_end(folder: Path) -> None:
    die(folder, 1, None)
    trail = begin_trail(folder)
    assert trail is not None
    reader = Reader(PacketLimits(), SERVER, MQTT5)
    data = encode(Publish("t", b"x", 1, False, False, 1), MQTT5)
    trail.begin(b"core-1", MQTT5, reader, data)
    reader.feed(data)
    trail.handle()
    left = read_trail(read_block(folder / "trail"))
    assert left is not None
    assert (left.source, left.packet) == ("core-1", "PUBLISH on 't'")
    block = (folder / "trail").resolve()
    assert stat.S_IMODE(block.stat().st_mode) == 0o600
    end_trail(folder)
    assert not block.exists()
    assert read_block(folder / "trail") == b""
    end_trail(folder)


def test_a_new_block_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "block"
    memory = lay_block(path, BLOCK)
    Trail(memory, "first")
    before = path.resolve()
    lay_block(path, BLOCK)
    assert not before.exists()
    assert read_trail(read_block(path)) is None
    assert len(read_block(path)) == BLOCK
    remove_block(path)
    assert not path.is_symlink()


def test_without_room_there_is_no_trail(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    die(folder, 1, None)
    monkeypatch.setattr("os.write", lambda _file, data: len(data) - 1)
    assert begin_trail(folder) is None
    assert "a packet that ends this process will not be found" in caplog.text
    assert not (folder / "trail").is_symlink()
