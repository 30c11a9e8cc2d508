"""The breadcrumb, and the fingerprints of the packets that it names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.broker.peer import Peer
from mesh.edge.breadcrumb import (
    KEPT,
    Breadcrumb,
    Crumb,
    last_crumb,
    lay_breadcrumb,
    remove_breadcrumb,
    source_of,
)
from mesh.edge.fingerprint import examine, fingerprint, packets_of
from mesh.transport.frame import ATTACH, CLOSE, DATA, OPEN, Opening
from mesh.wire.encode import encode
from mesh.wire.frames import with_dup
from mesh.wire.packets import MQTT5, MQTT311, PUBACK, PUBREL, Ack, Connect, Packet, Publish, Subscribe, Subscription

INSTANCE = bytes(range(16))


def raw(packet: Packet, protocol: int = MQTT311) -> bytes:
    return encode(packet, protocol)


def publish(payload: bytes, packet_id: int = 7, qos: int = 1) -> bytes:
    return raw(Publish("vehicles/CAR/t", payload, qos, packet_id=packet_id if qos else 0))


@pytest.fixture
def crumb(tmp_path: Path) -> Breadcrumb:
    made = lay_breadcrumb(tmp_path, "7-token")
    made.follow(source_of("door", INSTANCE))
    return made


def left(folder: Path) -> Crumb:
    found = last_crumb(folder)
    assert found is not None
    return found


def test_a_frame_is_named_only_while_it_is_handled(tmp_path: Path, crumb: Breadcrumb) -> None:
    assert last_crumb(tmp_path) is None
    crumb.begin(DATA, 4_000_000_000, publish(b"x"))
    found = left(tmp_path)
    assert (found.token, found.door, found.instance) == ("7-token", "door", INSTANCE)
    assert (found.connection, found.kind, found.index, found.body) == (4_000_000_000, DATA, 0, publish(b"x"))
    crumb.end()
    assert last_crumb(tmp_path) is None


def test_the_packet_of_a_frame_is_named(tmp_path: Path, crumb: Breadcrumb) -> None:
    crumb.begin(DATA, 1, publish(b"a") + publish(b"b", 8))
    crumb.packet(1)
    assert examine(left(tmp_path)) == ("PUBLISH", fingerprint(publish(b"b", 8)))
    crumb.end()
    crumb.begin(DATA, 1, publish(b"c"))
    assert examine(left(tmp_path)) == ("PUBLISH", fingerprint(publish(b"c")))


def test_a_run_of_acknowledgements_is_named_without_a_fingerprint(tmp_path: Path, crumb: Breadcrumb) -> None:
    crumb.begin(DATA, 1, publish(b"a") + raw(Ack(PUBACK, 1)) + raw(Ack(PUBREL, 2)))
    crumb.packet(1)
    assert examine(left(tmp_path)) == ("run of acknowledgements", "")
    crumb.packet(2)
    assert examine(left(tmp_path)) == ("run of acknowledgements", "")
    crumb.begin(DATA, 1, raw(Ack(PUBACK, 1)) + publish(b"b"))
    assert examine(left(tmp_path)) == ("run of acknowledgements", "")
    crumb.packet(1)
    assert examine(left(tmp_path)) == ("PUBLISH", fingerprint(publish(b"b")))


def test_another_door_is_named(tmp_path: Path, crumb: Breadcrumb) -> None:
    crumb.follow(source_of("d" * 300, INSTANCE[::-1]))
    crumb.begin(DATA, 1, b"")
    assert left(tmp_path).instance == INSTANCE[::-1]
    assert left(tmp_path).door == "d" * len(left(tmp_path).door)


def test_a_large_packet_is_recognised_by_its_beginning(tmp_path: Path, crumb: Breadcrumb) -> None:
    large = publish(bytes(300_000))
    crumb.begin(DATA, 1, large)
    assert len(left(tmp_path).body) == KEPT
    assert examine(left(tmp_path)) == ("PUBLISH", fingerprint(large))
    crumb.begin(DATA, 1, large + publish(b"next"))
    crumb.packet(1)
    assert examine(left(tmp_path)) == ("packet", "")
    crumb.begin(DATA, 1, publish(bytes(KEPT - 200)) + large)
    crumb.packet(1)
    assert examine(left(tmp_path)) == ("PUBLISH", "")


def test_a_connect_is_recognised(tmp_path: Path, crumb: Breadcrumb) -> None:
    connect = raw(Connect(MQTT311, "CAR", username="CAR"))
    opening = Opening("CAR", 1, 2, Peer("10.0.0.1", 3, "mqtt"), connect)
    crumb.begin(OPEN, 1, opening.pack())
    assert examine(left(tmp_path)) == ("CONNECT", fingerprint(connect))
    crumb.begin(OPEN, 1, b"\0")
    assert examine(left(tmp_path)) == ("CONNECT", "")


@pytest.mark.parametrize(("kind", "name"), [(ATTACH, "ATTACH"), (CLOSE, "CLOSE")])
def test_other_frames_have_a_name_and_no_fingerprint(tmp_path: Path, crumb: Breadcrumb, kind: int, name: str) -> None:
    crumb.begin(kind, 1, b"anything")
    assert examine(left(tmp_path)) == (name, "")


def test_the_next_process_lays_its_own(tmp_path: Path, crumb: Breadcrumb) -> None:
    crumb.begin(DATA, 1, publish(b"x"))
    before = (tmp_path / "breadcrumb").resolve()
    lay_breadcrumb(tmp_path, "8-token")
    assert last_crumb(tmp_path) is None
    assert (tmp_path / "breadcrumb").resolve() != before
    assert not before.exists()
    crumb.end()  # the old process may still write


def test_nothing_is_left_behind(tmp_path: Path, crumb: Breadcrumb) -> None:
    file = (tmp_path / "breadcrumb").resolve()
    assert file.stat().st_mode & 0o777 == 0o600
    remove_breadcrumb(tmp_path)
    assert not file.exists()
    assert list(tmp_path.iterdir()) == []
    remove_breadcrumb(tmp_path)


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    with pytest.raises(OSError, match="missing"):
        lay_breadcrumb(tmp_path / "missing", "t")
    assert set(Path("/dev/shm").glob("mesh-*")) <= before


def test_a_damaged_or_missing_block_names_nothing(tmp_path: Path) -> None:
    assert last_crumb(tmp_path) is None
    (tmp_path / "breadcrumb").write_bytes(os.urandom(5000))
    assert last_crumb(tmp_path) is None


def test_without_shared_memory_the_block_is_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.node.block.os.access", lambda *_: False)
    lay_breadcrumb(tmp_path, "t").begin(DATA, 1, b"")
    assert not (tmp_path / "breadcrumb").is_symlink()
    remove_breadcrumb(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_packet_has_the_same_fingerprint() -> None:
    once = fingerprint(publish(b"x", 7))
    assert len(once) == 32
    assert fingerprint(with_dup(publish(b"x", 7))) == once
    assert fingerprint(publish(b"x", 8)) == once
    assert fingerprint(publish(b"y", 7)) != once
    filters = [Subscription("vehicles/CAR/#", 1)]
    assert fingerprint(raw(Subscribe(1, filters))) == fingerprint(raw(Subscribe(2, filters)))
    assert fingerprint(raw(Ack(PUBACK, 1))) != fingerprint(raw(Ack(PUBACK, 2)))
    assert fingerprint(raw(Subscribe(1, filters), MQTT5)) != fingerprint(raw(Subscribe(1, filters)))


def test_packets_of_equal_beginning_differ_by_their_length() -> None:
    assert fingerprint(publish(bytes(5000))) != fingerprint(publish(bytes(5001)))


def test_frames_are_cut_into_packets() -> None:
    packets = [publish(b"a"), publish(bytes(300)), publish(b"", qos=0)]
    assert packets_of(b"".join(packets)) == packets
    assert packets_of(b"".join(packets)[:-1]) == [*packets[:2], packets[2][:-1]]
    assert packets_of(b"\x30\x80\x80\x80\x80\x80") == [b"\x30\x80\x80\x80\x80\x80"]
    assert packets_of(b"\x30") == [b"\x30"]
