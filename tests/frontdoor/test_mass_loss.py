"""Many connections of one door that are lost, or resumed, at the same time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mesh.broker.peer import Peer
from mesh.edge import doors
from mesh.edge.device import Device
from mesh.edge.devices import PORTION
from mesh.edge.doors import DoorLink, DoorProcess
from mesh.wire.decode import SERVER, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Connect
from tests.fakes.engine import vehicle_principal
from tests.fakes.mesh import FakeEdge
from tests.support.loop import run
from tests.support.waiting import until

COUNT = 10 * PORTION
PEER = Peer("192.0.2.7", 50123, "mqtt://127.0.0.1:1883")


def connect(edge: FakeEdge, door: DoorProcess, number: int) -> Device:
    """A connection as the edge has it after OPEN."""
    name = f"CAR{number}"
    device = Device(door, number, number, (name, name), Reader(PacketLimits(), SERVER))
    device.connection = edge.engine.open(Connect(5, name, True, 60), vehicle_principal(name), PEER, device)
    door.connections[number] = device
    return device


def growth(counts: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(counts)]


def test_connections_that_are_lost_together_end_in_slices() -> None:
    async def main() -> None:
        edge = await FakeEdge("edge-1").start()
        door = DoorProcess(edge.devices, "door", b"instance")
        for number in range(COUNT):
            connect(edge, door, number)
        counts: list[int] = [0]
        edge.turn.add(lambda: counts.append(len(edge.engine.lost_clients)))
        door.end()
        assert door.connections == {}
        assert len(edge.engine.lost_clients) == PORTION
        await until(lambda: len(edge.engine.lost_clients) == COUNT)
        assert max(growth(counts)) <= PORTION
        assert sorted(edge.engine.lost_clients) == sorted(f"CAR{number}" for number in range(COUNT))
        await edge.stop()

    run(main())


def test_a_vehicle_that_is_back_loses_its_old_connection_first() -> None:
    async def main() -> None:
        edge = await FakeEdge("edge-1").start()
        door = DoorProcess(edge.devices, "door", b"instance")
        for number in range(COUNT):
            connect(edge, door, number)
        door.end()
        name = f"CAR{COUNT - 1}"
        assert name not in edge.engine.lost_clients
        edge.devices._lose_first((name, name))
        assert edge.engine.lost_clients[-1] == name
        await until(lambda: len(edge.engine.lost_clients) == COUNT)
        assert edge.engine.lost_clients.count(name) == 1
        await edge.stop()

    run(main())


def test_connections_that_waited_for_the_link_are_resumed_in_slices() -> None:
    async def main() -> None:
        edge = await FakeEdge("edge-1").start()
        door = DoorProcess(edge.devices, "door", b"instance")
        for number in range(COUNT):
            device = connect(edge, door, number)
            door.stalled.add(device)
            assert device.connection is not None
            edge.engine.pause(device.connection)
        counts: list[int] = [COUNT]
        edge.turn.add(lambda: counts.append(len(edge.engine.paused)))
        edge.devices.relieved(door)
        await until(lambda: not edge.engine.paused)
        assert max(-step for step in growth(counts)) <= PORTION
        assert not door.stalled
        await edge.stop()

    run(main())


@pytest.mark.skipif(not doors.__file__.endswith(".py"), reason="a compiled class cannot be patched")
def test_answers_are_sent_before_the_confirmation_of_what_they_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        edge = await FakeEdge("edge-1").start()
        door = DoorProcess(edge.devices, "door", b"instance")
        device = connect(edge, door, 1)
        assert device.connection is not None
        edge.turn.end()
        waiting: list[int] = []
        out = device.connection.out
        monkeypatch.setattr(DoorLink, "confirm", lambda link, position: waiting.append(len(out)))
        edge.devices.links.add(DoorLink(edge.devices))
        edge.engine.write(device.connection, b"answer")
        edge.devices.durable(7)
        edge.turn.end()
        assert waiting == [0]  # nothing is left to be written
        edge.devices.links.clear()
        await edge.stop()

    run(main())
