"""Which packets are condemned."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.edge.breadcrumb import Crumb
from mesh.edge.fingerprint import fingerprint
from mesh.edge.suspects import ACCIDENT, CONDEMNED, MOST, Suspects
from mesh.node.ending import CRASH, HANG, KILLED, Ended
from mesh.transport.frame import ATTACH, DATA
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311, Publish
from tests.fakes.clock import FakeClock

DOOR = bytes(16)


def publish(payload: bytes = b"poison", packet_id: int = 1) -> bytes:
    return encode(Publish("vehicles/CAR/t", payload, 1, packet_id=packet_id), MQTT311)


class Edge:
    """The suspects of one edge after another; each is a new process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "suspects.json"
        self.clock = FakeClock()
        self.restart()

    def restart(self) -> None:
        self.suspects = Suspects(self.path, lambda: self.clock.now)

    def dies(
        self, body: bytes = publish(), connection: int = 1, how: str = CRASH, kind: int = DATA, instance: bytes = DOOR
    ) -> None:
        self.restart()
        ended = Ended("1-a", how, how != KILLED, "", "")
        self.suspects.blame(ended, Crumb("1-a", "door", instance, connection, kind, 0, body))

    def attaches(self, connection: int = 1, client: str = "c", instance: bytes = DOOR) -> bool:
        """Whether the connection is accepted."""
        return self.suspects.meet(instance, connection, "CAR", client) is None


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(tmp_path)


@pytest.mark.parametrize("how", [CRASH, HANG])
def test_the_second_death_by_the_same_packet_condemns_it(edge: Edge, how: str) -> None:
    edge.dies(how=how)
    assert edge.attaches()
    assert edge.suspects.detail == ""
    edge.dies(how=how)
    assert not edge.attaches()
    assert edge.attaches(connection=2)
    assert edge.suspects.condemned("CAR", "c") == {fingerprint(publish())}
    assert edge.suspects.condemned("CAR", "other") == frozenset()
    assert "ended 2 times in the handling of a PUBLISH of vehicle CAR" in edge.suspects.detail
    edge.restart()
    assert not edge.attaches()


def test_a_connection_that_was_not_attached_between_two_deaths_is_refused_as_well(edge: Edge) -> None:
    edge.dies()
    edge.dies()
    assert "connection 1 of door" in edge.suspects.detail
    assert not edge.attaches()


def test_kills_from_outside_condemn_nothing(edge: Edge) -> None:
    for _ in range(100):
        edge.dies(how=KILLED)
        assert edge.attaches()
    assert not edge.suspects


def test_a_process_of_which_nothing_is_known_blames_nothing(edge: Edge) -> None:
    crumb = Crumb("1-a", "door", DOOR, 1, DATA, 0, publish())
    assert edge.suspects.blame(None, crumb) is None
    assert edge.suspects.blame(Ended("1-a", CRASH, True, "", ""), None) is None
    assert edge.suspects.blame(Ended("2-b", CRASH, True, "", ""), crumb) is None  # the crumb of an earlier process
    assert edge.suspects.blame(Ended("1-a", CRASH, False, "", ""), crumb) is None
    assert not edge.suspects


def test_different_packets_condemn_nothing(edge: Edge) -> None:
    for number in range(5):
        edge.dies(publish(b"%d" % number))
        assert edge.attaches()
    edge.dies(connection=8)
    assert edge.attaches(8, "other")
    edge.dies(connection=1)
    assert edge.attaches()
    edge.dies(connection=8, instance=bytes(range(16)))
    assert edge.attaches(8, "third", bytes(range(16)))


def test_the_packet_that_a_client_sends_again_on_a_new_connection_is_the_same(edge: Edge) -> None:
    edge.dies(connection=1)
    assert edge.attaches(1)
    edge.dies(publish(packet_id=9), connection=2)
    assert not edge.attaches(2)
    assert edge.suspects.condemned("CAR", "c") == {fingerprint(publish())}


def test_a_frame_without_a_fingerprint_counts_on_its_connection_only(edge: Edge) -> None:
    edge.dies(b"", kind=ATTACH)
    assert edge.attaches()
    edge.dies(b"", connection=2, kind=ATTACH)
    assert edge.attaches(2)
    edge.dies(b"", kind=ATTACH)
    assert not edge.attaches()
    assert edge.suspects.condemned("CAR", "c") == frozenset()


def test_suspects_are_forgotten(edge: Edge) -> None:
    edge.dies()
    edge.clock.now += ACCIDENT + 1
    edge.dies()
    assert edge.attaches()
    edge.dies()
    edge.clock.now += CONDEMNED - 1
    assert not edge.attaches()
    edge.clock.now += 2
    assert edge.attaches()
    assert not edge.suspects


def test_the_number_of_suspects_is_bounded(edge: Edge) -> None:
    for number in range(MOST + 5):
        edge.dies(publish(b"%d" % number), connection=number)
    assert edge.path.read_text().count("fingerprint") == MOST


@pytest.mark.parametrize("text", ["", "[1]", '[{"vehicle": "CAR"}]', "{}", "\0"])
def test_a_damaged_file_is_replaced(edge: Edge, text: str) -> None:
    edge.path.write_text(text)
    edge.dies()
    edge.dies()
    assert not edge.attaches()


def test_a_file_that_cannot_be_written_is_no_error(edge: Edge) -> None:
    edge.path.mkdir()
    edge.dies()
    assert edge.attaches()
    os.rmdir(edge.path)
