"""Packets that take a broker several turns: front door and edge over real sockets, around a fake broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.broker.session import Connection
from mesh.edge.doors import DoorLink
from mesh.session.fifo import Fifo
from mesh.wire.packets import MQTT5, PUBACK, Disconnect, Packet, Publish
from tests.fakes.mortal import Mortal, fatal, mortal
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until

LONG = b"long"


class Slow:
    """Makes the broker of an edge take several turns for a PUBLISH with the payload ``LONG``: until ``go_on``."""

    def __init__(self, edge: Mortal) -> None:
        self._engine = edge.mesh.engine
        self._receive = self._engine.receive
        self._engine.receive = self._received  # type: ignore[method-assign]
        self.connection: Connection | None = None

    def _received(self, connection: Connection, packet: Packet) -> None:
        if connection.later is not None:
            connection.later.append(packet)
        elif isinstance(packet, Publish) and packet.payload == LONG:
            connection.later = Fifo()
            connection.begun += 1
            self.connection = connection
        else:
            self._receive(connection, packet)

    def go_on(self, packets: int) -> None:
        """Do the rest of the long packet, and of so many that came after it; with all of them, end."""
        connection = self.connection
        assert connection is not None
        later = connection.later
        assert later is not None
        connection.shell.resumed(connection.begun)
        for _ in range(packets):
            connection.shell.rested()
            connection.begun += 1
            connection.shell.resumed(connection.begun)
            self._receive(connection, later.popleft())
        connection.shell.rested()
        if not later:
            connection.later = None


def link_of(edge: Mortal) -> DoorLink:
    (link,) = edge.mesh.edge.devices.links
    return link


def test_frames_are_confirmed_when_the_broker_has_handled_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            slow = Slow(edge)
            other, car = await Bare().hello(edge.mesh.port, "OTHER"), await Bare().hello(edge.mesh.port, "CAR")
            car.send(Publish("vehicles/CAR/t", b"1", 1, packet_id=1), Publish("vehicles/CAR/t", LONG, 1, packet_id=2))
            await until(lambda: slow.connection is not None)
            car.send(Publish("vehicles/CAR/t", b"3", 1, packet_id=3), Publish("vehicles/CAR/t", b"4", 1, packet_id=4))
            later = slow.connection and slow.connection.later
            assert later is not None
            await until(lambda: len(later) == 2)
            other.send(Publish("vehicles/OTHER/t", b"x", 1, packet_id=5))
            await other.acked(PUBACK, [5])  # others do not wait
            link = link_of(edge)
            assert link.handled == 3
            assert link._confirmed == 0
            slow.go_on(1)
            edge.mesh.edge.turn.wake()
            await car.acked(PUBACK, [1, 3])
            assert link.late
            await until(lambda: link._confirmed == 1)  # the second frame of CAR is not handled wholly
            slow.go_on(1)
            edge.mesh.edge.turn.wake()
            await until(lambda: link.settled())
            assert not link.late
            assert not edge.mesh.edge.devices.busy

    run(main())


def test_packets_that_were_not_handled_are_replayed(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            slow = Slow(edge)
            car = await Bare().hello(edge.mesh.port, "CAR")
            car.send(Publish("vehicles/CAR/t", LONG, 1, packet_id=1), Publish("vehicles/CAR/t", b"2", 1, packet_id=2))
            await until(lambda: slow.connection is not None)
            await edge.killed()
            await car.acked(PUBACK, [1, 2])

    run(main())


def test_a_connection_that_ends_holds_no_confirmation_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            slow = Slow(edge)
            car = await Bare().hello(edge.mesh.port, "CAR")
            car.send(Publish("vehicles/CAR/t", LONG, 1, packet_id=1))
            await until(lambda: slow.connection is not None)
            link = link_of(edge)
            assert not link.settled()
            await car.close()
            await until(lambda: link.handled == 2 and link.settled())

    run(main())


@pytest.mark.parametrize("begun", [0, 1, 3])
def test_the_packet_in_whose_later_work_the_process_dies_is_blamed(tmp_path: Path, begun: int) -> None:
    """CAR's packets before and after it are not: its client may send them again."""

    async def main() -> None:
        async with mortal(tmp_path) as edge:
            car = await Bare(MQTT5).hello(edge.mesh.port, "CAR")
            packets = [Publish("vehicles/CAR/t", b"%d" % number, 1, packet_id=number + 2) for number in range(4)]
            if begun:
                packets[begun - 1] = fatal("CAR", begun + 1)
            long = Publish("vehicles/CAR/t", LONG, 1, packet_id=1)
            slow = Slow(edge)
            car.send(Publish("vehicles/CAR/t", b"first", 1, packet_id=9), long, *packets[:2])
            await until(lambda: slow.connection is not None)
            car.send(*packets[2:])
            for death in range(2):
                if death:
                    slow = Slow(edge)
                await until(lambda: slow.connection is not None)  # noqa: B023
                later = slow.connection and slow.connection.later
                assert later is not None
                await until(lambda: len(later) == 4)  # noqa: B023
                if begun:
                    slow.go_on(4)
                else:
                    assert slow.connection is not None
                    slow.connection.shell.resumed(slow.connection.begun)
                    edge._die()
                await edge.dies()
            assert (await car.wait(Disconnect)).reason == 0x83
            assert "2 times in the handling of a PUBLISH of vehicle CAR" in edge.mesh.edge.devices.status().detail
            await car.wait_closed()
            again = await Bare(MQTT5).hello(edge.mesh.port, "CAR")
            again.send(*[packet for packet in (long, *packets) if packet.packet_id != begun + 1])
            await again.acked(PUBACK, [packet_id for packet_id in range(1, 6) if packet_id != begun + 1])

    run(main())
