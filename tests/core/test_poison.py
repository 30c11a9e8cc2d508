"""A report of a vehicle in whose handling the core ends: named while it is handled, and put aside after two deaths."""

from __future__ import annotations

import mmap

import pytest

from mesh.core.arrivals import EdgeArrivals
from mesh.transport.trail import BLOCK, Footprint, Trail, read_trail
from mesh.version import compiled
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Publish
from tests.core.harness import Mesh, acks
from tests.support.bench import Client

TOPIC = "vehicles/V1/status"


class Deaths:
    """What the processes of a core leave that handle a report with the payload ``fatal``."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, BLOCK)
        self.left: list[Footprint | None] = []

    def note(self, packet: Publish) -> None:
        if packet.payload == b"fatal":
            self.left.append(read_trail(bytes(self.memory)))


def report(vehicle: Client, *payloads: bytes, qos: int = 1) -> None:
    for payload in payloads:
        vehicle.publish(TOPIC, payload, qos)


@pytest.mark.skipif(compiled(), reason="the methods of compiled classes cannot be replaced")
@pytest.mark.parametrize("qos", [1, 2])
def test_the_trail_names_the_report_that_is_handled(monkeypatch: pytest.MonkeyPatch, qos: int) -> None:
    deaths = Deaths()
    mesh = Mesh(1, trail=Trail(deaths.memory, "token"))
    mesh.connect()
    mesh.backend("app", "vehicles/#")
    deliver = EdgeArrivals._deliver

    def watched(self: EdgeArrivals, packet: Publish, *rest: object) -> int:
        deaths.note(packet)
        return deliver(self, packet, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(EdgeArrivals, "_deliver", watched)
    report(mesh.vehicle(1), b"one", b"fatal", b"two", qos=qos)
    mesh.run()
    (left,) = deaths.left
    assert left is not None
    assert (left.source, left.packet) == ("edge edge-1", f"PUBLISH on {TOPIC!r}")
    assert left.fingerprint
    assert read_trail(bytes(deaths.memory)) is None


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_report_that_has_ended_the_core_is_put_aside(caplog: pytest.LogCaptureFixture, qos: int) -> None:
    trail = Trail(mmap.mmap(-1, BLOCK))
    mesh = Mesh(1, trail=trail)
    mesh.connect()
    reader, vehicle = mesh.backend("app", "vehicles/#"), mesh.vehicle(1)
    trail.refused = frozenset((_fingerprint(TOPIC, b"fatal"),))
    report(vehicle, b"one", b"fatal", b"two", qos=qos)
    mesh.run()
    assert reader.messages() == [b"one", b"two"]
    status = mesh.core.broker.status()
    assert (status.letters_poison, status.dropped_poison) == ((0, 1) if qos == 0 else (1, 0))
    assert len(acks(vehicle)) == (3 if qos else 0)
    assert mesh.edges["edge-1"].broker.status().queued == 0  # it is acknowledged on the link
    assert "edge edge-1: a message on 'vehicles/V1/status' is not handled" in caplog.text


def _fingerprint(topic: str, payload: bytes) -> str:
    """The fingerprint that a process leaves which ends in the handling of a message."""
    from_memory = mmap.mmap(-1, BLOCK)
    trail = Trail(from_memory)
    trail.begin(b"x", 5, Reader(PacketLimits(), SERVER, 5), encode(Publish(topic, payload, 1, False, False, 1), 5))
    trail.handle()
    left = read_trail(bytes(from_memory))
    assert left is not None
    return left.fingerprint
