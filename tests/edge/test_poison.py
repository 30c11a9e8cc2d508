"""Packets in whose handling an edge dies: front door and edge over real sockets, around a fake broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.edge.breadcrumb import last_crumb
from mesh.node.ending import KILLED
from mesh.wire.packets import MQTT5, MQTT311, PUBACK, Ack, Connack, Connect, Disconnect, Packet, Publish
from tests.fakes.mortal import FATAL_ACK, FATAL_CLIENT, fatal, mortal
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until


def test_the_second_death_by_a_packet_closes_its_connection_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            port = edge.mesh.port
            other, car = await Bare().hello(port, "OTHER"), await Bare(MQTT5).hello(port, "CAR")
            car.send(Publish("vehicles/CAR/t", b"before", 1, packet_id=1), fatal("CAR", 2))
            await edge.dies()
            await edge.dies()
            assert (await car.wait(Disconnect)).reason == 0x83
            await car.wait_closed()
            assert edge.poisoned == 1
            status = edge.mesh.edge.devices.status()
            assert "2 times in the handling of a PUBLISH of vehicle CAR" in status.detail
            other.send(Publish("vehicles/OTHER/t", b"x", 1, packet_id=5))
            await other.acked(PUBACK, [5])
            assert not edge.mesh.engine.dead
            assert edge.mesh.link.connections == 1
            await edge.killed()
            other.send(Publish("vehicles/OTHER/t", b"y", 1, packet_id=6))
            await other.acked(PUBACK, [5, 6])

    run(main())


def test_a_client_that_sends_a_condemned_packet_again_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            car = await Bare().hello(edge.mesh.port, "CAR")
            car.send(fatal("CAR"))
            await edge.dies()
            await edge.dies()
            await car.wait_closed()
            again = await Bare(MQTT5).hello(edge.mesh.port, "CAR")
            again.send(Publish("vehicles/CAR/t", b"x", 1, packet_id=1))
            await again.acked(PUBACK, [1])
            again = await Bare().hello(edge.mesh.port, "CAR")
            again.send(fatal("CAR", 9))
            await again.wait_closed()
            assert edge.poisoned == 2
            assert not edge.mesh.engine.dead
            assert ("CAR", 0x83) in edge.mesh.engine.failed

    run(main())


def test_a_packet_of_many_in_a_frame_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            car = await Bare().hello(edge.mesh.port, "CAR")
            car.send(*[Publish("vehicles/CAR/t", b"%d" % n, 1, packet_id=n + 1) for n in range(9)], fatal("CAR", 10))
            await edge.dies()
            await edge.dies()
            await car.wait_closed()
            assert "a PUBLISH of vehicle CAR" in edge.mesh.edge.devices.status().detail

    run(main())


@pytest.mark.parametrize("first", [[], [Publish("vehicles/CAR/t", b"x", 1, packet_id=1)]])
def test_an_acknowledgement_of_many_closes_its_connection_only(tmp_path: Path, first: list[Packet]) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            car = await Bare().hello(edge.mesh.port, "CAR")
            car.send(*first, Ack(PUBACK, 5), Ack(PUBACK, 6), Ack(PUBACK, FATAL_ACK))
            await edge.dies()
            await edge.dies()
            await car.wait_closed()
            assert "a run of acknowledgements of vehicle CAR" in edge.mesh.edge.devices.status().detail
            again = await Bare().hello(edge.mesh.port, "CAR")
            again.send(Ack(PUBACK, 5), Publish("vehicles/CAR/t", b"x", 1, packet_id=1))
            await again.acked(PUBACK, [1])

    run(main())


def test_a_packet_after_acknowledgements_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            car = await Bare().hello(edge.mesh.port, "CAR")
            car.send(Ack(PUBACK, 5), Ack(PUBACK, 6), fatal("CAR"))
            await edge.dies()
            await edge.dies()
            await car.wait_closed()
            assert "a PUBLISH of vehicle CAR" in edge.mesh.edge.devices.status().detail

    run(main())


def test_a_connect_that_ends_the_process_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            for _ in range(2):
                car = await Bare(MQTT5).connect(edge.mesh.port)
                car.send(Connect(MQTT5, FATAL_CLIENT, username="CAR"))
                if not edge.deaths:
                    await edge.dies()
                    await edge.dies()
                assert (await car.wait(Connack)).reason == 0x83
                await car.wait_closed()
            assert edge.poisoned == 2
            old = await Bare().connect(edge.mesh.port)
            old.send(Connect(MQTT311, "SANE", username="CAR"))
            assert (await old.wait(Connack)).reason == 0

    run(main())


def test_an_accident_closes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            car = await Bare().hello(edge.mesh.port, "CAR")
            car.send(fatal("CAR"))
            await until(lambda: edge.mesh.engine.dead)
            edge.how = KILLED  # from outside, while the packet was handled
            for _ in range(3):
                await edge.dies()
            assert not car.closed.is_set()
            assert edge.poisoned == 0

    run(main())


def test_kills_close_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            edge.how = KILLED
            car = await Bare().hello(edge.mesh.port, "CAR")
            for number in range(1, 21):
                car.send(Publish("vehicles/CAR/t", b"%d" % number, 1, packet_id=number))
                await edge.killed()
            await until(lambda: len(car.acks(PUBACK)) == 20)
            assert edge.poisoned == 0

    run(main())


def test_a_frame_that_breaks_the_link_leaves_no_crumb(tmp_path: Path) -> None:
    async def main() -> None:
        async with mortal(tmp_path) as edge:
            await Bare().hello(edge.mesh.port, "CAR")
            door = next(iter(edge.mesh.edge.devices.links))
            door.received(b"\0\0\0\0" b"\0\0\0\1" b"\x63")  # a frame of an unknown kind
            await until(lambda: edge.mesh.link.losses == 1)
            assert last_crumb(tmp_path) is None

    run(main())
