"""What vehicles make a front door buffer is bounded in bytes, and the worst one pays for it."""

from __future__ import annotations

from mesh.frontdoor.context import DoorSettings
from mesh.transport.status import BuffersStatus
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, PINGREQ, PUBACK, Connack, Connect, Disconnect, Ping, Publish, Will
from mesh.wire.properties import Properties
from tests.fakes.mesh import FakeMesh
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until

LIMIT = 1_000_000


def settings() -> DoorSettings:
    return DoorSettings(buffers=LIMIT, topic_aliases=16)


def buffers(mesh: FakeMesh) -> BuffersStatus:
    return mesh.door.status().buffers


async def attackers(mesh: FakeMesh, count: int) -> list[Bare]:
    """Connections of one vehicle."""
    found = []
    for n in range(count):
        bad = await Bare(MQTT5).connect(mesh.port)
        bad.send(Connect(MQTT5, f"bad-{n}", username="BAD"))
        await bad.wait(Connack)
        found.append(bad)
    return found


def test_unfinished_packets_are_bounded_and_a_good_vehicle_is_spared() -> None:
    async def main() -> None:
        async with FakeMesh(settings()) as mesh:
            good = await Bare(MQTT5).hello(mesh.port, "GOOD")
            packet = encode(Publish("vehicles/GOOD/t", bytes(200_000), 1, packet_id=1), MQTT5)
            good.raw(packet[:150_000])
            await until(lambda: buffers(mesh).used == 150_000)
            bad = await attackers(mesh, 40)
            for one in bad:
                one.raw(encode(Publish("vehicles/BAD/t", bytes(200_000), 1, packet_id=1), MQTT5)[:100_000])
            await until(lambda: sum(1 for one in bad if one.closed.is_set()) >= 32)
            assert buffers(mesh).used <= LIMIT
            assert buffers(mesh).closed == sum(1 for one in bad if one.closed.is_set()) == 32
            reasons = [packet.reason for one in bad for packet in one.packets if isinstance(packet, Disconnect)]
            assert reasons == [0x97] * 32
            good.raw(packet[150_000:])
            await good.acked(PUBACK, [1])
            for one in [*bad, good]:
                await one.close()
            await until(lambda: mesh.door.status().clients.connections == 0)
            assert buffers(mesh).used == 0

    run(main())


def test_unfinished_connects_are_bounded() -> None:
    async def main() -> None:
        async with FakeMesh(settings()) as mesh:
            will = Will("vehicles/BAD/will", bytes(60_000))
            connect = encode(Connect(MQTT5, "BAD", username="BAD", password=bytes(60_000), will=will), MQTT5)
            bad = [await Bare(MQTT5).connect(mesh.port) for _ in range(20)]
            for one in bad:
                one.raw(connect[:-1])
            await until(lambda: buffers(mesh).closed == sum(1 for one in bad if one.closed.is_set()) == 12)
            assert buffers(mesh).used <= LIMIT
            assert mesh.door.status().clients.with_refused() == 12
            await Bare(MQTT5).hello(mesh.port, "GOOD")

    run(main())


def test_connects_that_are_kept_are_bounded() -> None:
    """The door keeps CONNECT for the case that the edge restarts."""

    async def main() -> None:
        async with FakeMesh(settings()) as mesh:
            will = Will("vehicles/BAD/will", bytes(60_000))
            bad = [await Bare(MQTT5).connect(mesh.port) for _ in range(20)]
            for n, one in enumerate(bad):
                one.send(Connect(MQTT5, f"bad-{n}", username="BAD", password=bytes(60_000), will=will))
            await until(lambda: buffers(mesh).closed == sum(1 for one in bad if one.closed.is_set()) == 12)
            assert buffers(mesh).used <= LIMIT
            assert set(mesh.door.clients.buffers._totals) == {"BAD"}
            for one in bad:
                assert one.closed.is_set() or (await one.wait(Connack)).reason == 0

    run(main())


def test_topic_aliases_are_bounded() -> None:
    async def main() -> None:
        async with FakeMesh(settings()) as mesh:
            bad = await attackers(mesh, 4)
            for one in bad:
                for alias in range(1, 9):
                    properties = Properties()
                    properties.topic_alias = alias
                    one.send(Publish("vehicles/BAD/" + "x" * 50_000, b"", properties=properties))
            await until(lambda: buffers(mesh).closed == sum(1 for one in bad if one.closed.is_set()) == 2)
            await until(lambda: 2 * 8 * 50_000 < buffers(mesh).used <= LIMIT)

    run(main())


def test_packets_that_vehicles_do_not_read_are_bounded() -> None:
    async def main() -> None:
        async with FakeMesh(settings()) as mesh:
            good = await Bare(MQTT5).hello(mesh.port, "GOOD")
            bad = [await Bare(MQTT5).hello(mesh.port, f"BAD{n}") for n in range(20)]
            for one in bad:
                one.pause()
            sent = 0
            while buffers(mesh).closed < 10:
                for n in range(20):
                    if f"BAD{n}" not in mesh.engine.paused and f"BAD{n}" not in mesh.engine.lost_clients:
                        mesh.engine.deliver(f"BAD{n}", Publish("t", bytes(60_000)))
                        sent += 1
                mesh.edge.turn.wake()
                good.send(Ping(PINGREQ))
                await good.wait_all(Ping, 1)
                good.packets.clear()
                assert buffers(mesh).used <= LIMIT
                assert sent < 10_000
            for one in bad:
                one.resume()
            await until(lambda: buffers(mesh).used == 0)

    run(main())


def test_held_packets_of_all_vehicles_are_bounded() -> None:
    async def main() -> None:
        async with FakeMesh(DoorSettings(held_per_edge=50_000, held=200_000)) as mesh:
            cars = [await Bare(MQTT5).hello(mesh.port, f"CAR{n}") for n in range(40)]
            await mesh.edge.kill()
            await until(lambda: mesh.link.state == "away")
            for car in cars:
                car.send(Publish("vehicles/CAR/t", bytes(10_000), 1, packet_id=1))
            await until(lambda: mesh.link.closed == sum(1 for car in cars if car.closed.is_set()) > 15)
            assert mesh.link.held_bytes < 220_000
            closed = [car for car in cars if car.closed.is_set()]
            assert [(await car.wait(Disconnect)).reason for car in closed] == [0x97] * len(closed)
            await mesh.edge.restart()
            mesh.proxy.target = mesh.edge.devices.port
            for car in cars:
                if not car.closed.is_set():
                    await car.acked(PUBACK, [1])

    run(main())
