"""Front door and edge against each other over real sockets: the link, and the loss of the link or the edge."""

from __future__ import annotations

import asyncio

from mesh.frontdoor.context import DoorSettings
from mesh.transport.frame import Opening
from mesh.transport.status import Held
from mesh.wire.encode import encode
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from tests.fakes.engine import POISON
from tests.fakes.mesh import FakeMesh, FakeRecord
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until


def numbered(count: int, start: int = 0) -> list[Publish]:
    return [Publish("vehicles/CAR/t", b"%d" % n, 1, packet_id=n % 65535 + 1) for n in range(start, start + count)]


def payloads(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]


def test_broker_error_ends_one_connection_and_keeps_the_link() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            one, other = await Bare(MQTT5).hello(mesh.port, "ONE"), await Bare().hello(mesh.port, "OTHER")
            one.send(Publish("vehicles/ONE/t", POISON, 1, packet_id=1))
            assert (await one.wait(Disconnect)).reason == 0x83
            await one.wait_closed()
            other.send(Publish("vehicles/OTHER/t", b"x", 1, packet_id=1))
            await until(lambda: other.acks(PUBACK) == [1])
            assert mesh.link.state == "up"
            assert [name for name, _ in mesh.engine.received] == ["ONE", "OTHER"]  # it was not repeated

    run(main())


def test_a_connect_at_which_the_broker_fails_is_refused_and_keeps_the_link() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            mesh.engine.faulty.add("ONE")
            other = await Bare().hello(mesh.port, "OTHER")
            for protocol, reason in ((MQTT5, 0x83), (4, 3)):
                one = await Bare(protocol).connect(mesh.port)
                one.send(Connect(protocol, "ONE", username="ONE"))
                assert (await one.wait(Connack)).reason == reason
                await one.wait_closed()
            assert mesh.link.losses == 0
            assert mesh.edge.devices.status().connections == 1
            mesh.engine.faulty.clear()
            again = await Bare().hello(mesh.port, "ONE")
            again.send(*numbered(1))
            await again.acked(PUBACK, [1])
            assert not other.closed.is_set()

    run(main())


def test_an_attach_at_which_the_broker_fails_ends_its_connection_and_no_other() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            one, other = await Bare(MQTT5).hello(mesh.port, "ONE"), await Bare().hello(mesh.port, "OTHER")
            mesh.engine.faulty.add("ONE")
            mesh.proxy.cut()
            assert (await one.wait(Disconnect)).reason == 0x83
            await one.wait_closed()
            await until(lambda: mesh.engine.alive == ["OTHER"])
            assert mesh.link.losses == 1
            assert mesh.engine.lost_clients == ["ONE"]  # for the broker it is no longer connected
            assert mesh.edge.devices.status().connections == 1
            assert not other.closed.is_set()

    run(main())


def test_an_attach_at_which_the_broker_fails_leaves_no_older_connection_without_a_device() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            old = await Bare().hello(mesh.port, "CAR")
            devices = mesh.edge.devices
            (door,) = devices._doors.values()
            (device,) = door.connections.values()
            (link,) = devices.links
            assert device.connection is not None
            mesh.engine.faulty.add("CAR")
            door.complete = False
            peer, connect = device.connection.peer, encode(Connect(4, "CAR", username="CAR"), 4)
            devices.attach(link, door, 77, Opening("CAR", 1, device.age + 1, peer, connect))
            await old.wait_closed()
            assert mesh.engine.lost_clients == ["CAR"]
            assert devices.status().connections == 0

    run(main())


def test_an_expulsion_at_which_the_broker_fails_ends_the_connection_and_goes_on() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            one, other = await Bare().hello(mesh.port, "ONE"), await Bare().hello(mesh.port, "OTHER")
            mesh.engine.faulty.add("ONE")
            assert len(list(mesh.edge.devices.expel({"ONE", "OTHER"}))) == 2
            await one.wait_closed()
            await other.wait_closed()
            assert mesh.engine.lost_clients == ["ONE"]
            assert mesh.edge.devices.status().connections == 0

    run(main())


def test_packets_pass_in_both_directions() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            car.send(Subscribe(1, [Subscription("vehicles/CAR/cmd/#", 1)]), *numbered(3), Ping(PINGREQ))
            await car.wait(SubAck)
            await car.wait(Ping)
            await until(lambda: car.acks(PUBACK) == [1, 2, 3])
            assert mesh.engine.payloads("CAR") == payloads(3)
            mesh.engine.deliver("CAR", Publish("vehicles/CAR/cmd/x", b"go", 1, packet_id=7))
            mesh.edge.turn.wake()
            command = await car.wait(Publish)
            assert command.payload == b"go"
            car.send(Ack(PUBACK, 7))
            await until(lambda: ("CAR", Ack(PUBACK, 7)) in mesh.engine.received)
            await until(lambda: mesh.link.unconfirmed == 0 and mesh.link.held_bytes == 0)
            assert all(not isinstance(packet, Ping) for _, packet in mesh.engine.received)
            await car.close()
            await until(lambda: mesh.engine.lost_clients == ["CAR"])
            await until(lambda: mesh.link.connections == 0)

    run(main())


def test_disconnect_ends_the_connection_without_its_will() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            car.send(Disconnect())
            await car.wait_closed()
            await until(lambda: mesh.link.connections == 0)
            assert mesh.engine.lost_clients == []

    run(main())


def test_vehicles_of_another_edge_are_closed_without_their_wills() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car, other = await Bare().hello(mesh.port, "CAR"), await Bare().hello(mesh.port, "OTHER")
            assert len(list(mesh.edge.devices.expel({"CAR", "AWAY"}))) == 1
            await car.wait_closed()
            await until(lambda: mesh.link.connections == 1)
            assert mesh.engine.lost_clients == []
            assert ("CAR", Disconnect) in [(name, type(packet)) for name, packet in mesh.engine.received]
            other.send(Ping(PINGREQ))
            await other.wait(Ping)

    run(main())


def test_packets_sent_with_connect_keep_their_order() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            mesh.map.gate.clear()  # the look-up waits
            car = await Bare().connect(mesh.port)
            car.send(Connect(4, "CAR", username="CAR"), Ping(PINGREQ), *numbered(20))
            await until(lambda: mesh.door.status().clients.held == Held(identity=1))
            car.send(*numbered(20, 20))
            assert car.packets == []
            mesh.map.gate.set()
            await until(lambda: len(car.acks(PUBACK)) == 40)
            assert isinstance(car.packets[0], Connack)  # [MQTT-3.2.0-1]
            assert mesh.engine.payloads("CAR") == payloads(40)
            assert (await car.wait(Ping)).type == PINGRESP

    run(main())


def test_an_edge_restart_closes_no_socket_and_loses_nothing() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            car.send(*numbered(5))
            await until(lambda: len(car.acks(PUBACK)) == 5)
            await until(lambda: mesh.link.unconfirmed == 0)
            await mesh.edge.kill()
            await until(lambda: mesh.link.state == "away")
            car.send(*numbered(5, 5), Ping(PINGREQ))
            await car.wait(Ping)  # answered by the door
            await until(lambda: mesh.link.held_bytes > 0)
            await mesh.edge.restart()
            mesh.proxy.target = mesh.edge.devices.port
            await until(lambda: len(car.acks(PUBACK)) == 10)
            await until(lambda: mesh.engine.attached == [("CAR", [])])
            assert mesh.engine.payloads("CAR") == payloads(10)[5:]
            assert not any(packet.dup for _, packet in mesh.engine.received if isinstance(packet, Publish))
            assert mesh.engine.alive == ["CAR"]
            assert not car.closed.is_set()

    run(main())


def test_unconfirmed_publish_is_repeated_with_dup() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            mesh.edge.journal.automatic = False  # the disk stops
            car.send(*numbered(3), Publish("vehicles/CAR/t", b"once", 0))
            await until(lambda: len(mesh.engine.payloads("CAR")) == 4)
            assert car.acks(PUBACK) == []
            await mesh.restart_edge()
            await until(lambda: len(car.acks(PUBACK)) == 3)
            again = [packet for _, packet in mesh.engine.received if isinstance(packet, Publish)]
            assert [(packet.payload, packet.dup) for packet in again] == [(b"0", True), (b"1", True), (b"2", True)]
            assert car.acks(PUBACK) == [1, 2, 3]

    run(main())


def test_answered_publish_is_not_repeated_without_its_confirm() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            mesh.edge.confirming = False
            car.send(*numbered(2))
            await until(lambda: car.acks(PUBACK) == [1, 2])
            assert mesh.link.unconfirmed
            await mesh.restart_edge()
            await mesh.up()
            car.send(*numbered(1, 2))
            await until(lambda: car.acks(PUBACK) == [1, 2, 3])
            assert mesh.engine.payloads("CAR") == [b"2"]
            await until(lambda: mesh.link.held_bytes == 0)

    run(main())


def test_qos_2_exchange_continues_from_each_of_its_states() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            for packet_id in (1, 2, 3, 4, 5):
                mesh.engine.deliver("CAR", Publish("vehicles/CAR/cmd", b"", 2, packet_id=packet_id))
            mesh.edge.turn.wake()
            await car.wait_all(Publish, 5)
            car.send(Ack(PUBREC, 2), Ack(PUBREC, 3), Ack(PUBREC, 4))
            await until(lambda: sorted(car.acks(PUBREL)) == [2, 3, 4])
            car.send(Ack(PUBCOMP, 3))  # confirmed: the identifier is free
            await until(lambda: ("CAR", Ack(PUBCOMP, 3)) in mesh.engine.received)
            await until(lambda: mesh.link.unconfirmed == 0)
            await mesh.edge.kill()
            await until(lambda: mesh.link.state == "away")
            car.send(Ack(PUBCOMP, 4), Ack(PUBREC, 5))
            await until(lambda: mesh.link.held_bytes > 0)
            await mesh.edge.restart()
            mesh.proxy.target = mesh.edge.devices.port
            await mesh.up()
            await until(lambda: mesh.engine.attached == [("CAR", [1, 2, 5])])
            await until(lambda: 5 in car.acks(PUBREL))
            # The restarted edge cannot know which PUBRELs arrived, and repeats them all.
            for packet_id in (2, 4, 5):
                mesh.engine.write(mesh.engine.current["CAR"], bytes((0x62, 2, 0, packet_id)))
            mesh.engine.deliver("CAR", Publish("vehicles/CAR/cmd", b"end", 0))
            mesh.edge.turn.wake()
            await until(lambda: car.publishes()[-1].payload == b"end")
            assert sorted(car.acks(PUBREL)) == [2, 3, 4, 5]

    run(main())


def test_link_cut_repeatedly_loses_nothing_and_keeps_the_order() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            cars = [await Bare().hello(mesh.port, f"CAR{n}") for n in range(5)]
            for round in range(8):
                mesh.proxy.cut_after = mesh.proxy.passed + 700 + 37 * round  # often in the middle of a frame
                for car in cars:
                    car.send(*numbered(20, 20 * round))
                await asyncio.gather(*(car.acked(PUBACK, range(1, 20 * round + 21)) for car in cars))
            assert mesh.link.losses >= 4
            for n in range(len(cars)):
                firsts = list(dict.fromkeys(mesh.engine.payloads(f"CAR{n}")))
                assert firsts == payloads(160)
                repeats = [p for c, p in mesh.engine.received if c == f"CAR{n}" and isinstance(p, Publish) and p.dup]
                assert len(mesh.engine.payloads(f"CAR{n}")) - len(repeats) <= 160
            assert mesh.engine.lost_clients == []
            await until(lambda: mesh.link.held_bytes == 0)

    run(main())


def test_vehicle_that_left_while_the_link_was_down_is_lost() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            gone, stays = await Bare().hello(mesh.port, "GONE"), await Bare().hello(mesh.port, "STAYS")
            mesh.proxy.open = False
            mesh.proxy.cut()
            await until(lambda: mesh.link.state == "away")
            gone.send(Publish("vehicles/GONE/t", b"last words", 0))
            await until(lambda: mesh.link.held_bytes > 0)
            await gone.close()
            mesh.proxy.open = True
            await until(lambda: mesh.engine.lost_clients == ["GONE"])
            assert mesh.engine.payloads("GONE") == [b"last words"]
            stays.send(*numbered(1))
            await until(lambda: stays.acks(PUBACK) == [1])

    run(main())


def test_connections_of_a_lost_door_are_lost_after_the_grace() -> None:
    async def main() -> None:
        async with FakeMesh(grace=0.2) as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            mesh.proxy.open = False
            mesh.proxy.cut()
            await until(lambda: mesh.engine.lost_clients == ["CAR"])
            assert mesh.edge.devices.status().connections == 0
            mesh.proxy.open = True  # the door reconnects too late, but its vehicle is still connected
            await until(lambda: mesh.engine.attached == [("CAR", [])])
            assert not car.closed.is_set()

    run(main())


def test_connect_waits_for_a_missing_edge_and_is_then_refused() -> None:
    async def main() -> None:
        async with FakeMesh(DoorSettings(attach_timeout=0.5)) as mesh:
            mesh.map.stored["V3"] = FakeRecord("V3", "edge-9")
            mesh.map.stored["V5"] = FakeRecord("V5", "edge-9")
            old, new = await Bare().connect(mesh.port), await Bare(MQTT5).connect(mesh.port)
            old.send(Connect(4, "a", username="V3"))
            new.send(Connect(5, "b", username="V5"))
            assert (await old.wait(Connack)).reason == 3
            assert (await new.wait(Connack)).reason == 0x88
            await old.wait_closed()
            await new.wait_closed()

    run(main())


def test_connect_waits_for_an_edge_that_returns_in_time() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            await mesh.up()
            await mesh.edge.kill()
            await until(lambda: mesh.link.state == "away")
            car = await Bare().connect(mesh.port)
            car.send(Connect(4, "CAR", username="CAR"), *numbered(3))
            await until(lambda: mesh.link.held_bytes > 0)
            await mesh.edge.restart()
            mesh.proxy.target = mesh.edge.devices.port
            await until(lambda: car.acks(PUBACK) == [1, 2, 3])
            assert mesh.engine.opened == ["CAR"]
            assert mesh.engine.attached == []

    run(main())


def test_repeated_open_replaces_the_first_without_its_will() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            mesh.engine.accepting = False
            car = await Bare().connect(mesh.port)
            car.send(Connect(4, "CAR", username="CAR"))
            await until(lambda: mesh.engine.opened == ["CAR"])
            mesh.proxy.cut()
            mesh.engine.accepting = True
            await car.wait(Connack)
            assert mesh.engine.opened == ["CAR", "CAR"]
            assert mesh.engine.lost_clients == []
            assert ("CAR", Disconnect()) in mesh.engine.received

    run(main())


def test_attach_without_a_session_closes_the_vehicle() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            mesh.engine.sessions.clear()
            await mesh.restart_edge()
            await car.wait_closed()
            await until(lambda: mesh.link.connections == 0)

    run(main())


def test_attach_carries_an_assigned_client_id() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare(MQTT5).connect(mesh.port)
            car.send(Connect(5, "", username="CAR"))
            await car.wait(Connack)
            await mesh.restart_edge()
            await until(lambda: mesh.engine.attached == [("assigned-0", [])])
            assert not car.closed.is_set()

    run(main())


def test_connection_that_ended_at_the_edge_is_not_attached_again() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car, other = await Bare().hello(mesh.port, "CAR"), await Bare().hello(mesh.port, "OTHER")
            await mesh.up()
            mesh.proxy.freeze()
            mesh.engine.fail(mesh.engine.current["CAR"], 0x98)
            mesh.edge.turn.wake()
            await until(lambda: mesh.edge.devices.status().connections == 1)
            mesh.proxy.cut()
            mesh.proxy.thaw()
            await car.wait_closed()
            await until(lambda: mesh.engine.attached == [("OTHER", [])])
            assert not other.closed.is_set()

    run(main())


def test_older_connection_does_not_take_over_from_a_younger_one() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            old = await Bare().hello(mesh.port, "CAR")
            await asyncio.sleep(0.01)  # the ages differ by milliseconds
            young = await Bare().hello(mesh.port, "CAR")
            await old.wait_closed()
            young.send(*numbered(1))
            await until(lambda: young.acks(PUBACK) == [1])
            await mesh.restart_edge()
            young.send(*numbered(1, 1))
            await until(lambda: young.acks(PUBACK) == [1, 2])
            await until(lambda: mesh.engine.attached == [("CAR", [])])

    run(main())


def test_a_refused_connect_is_answered_and_closed() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            mesh.engine.refuse_with = 5
            car = await Bare().connect(mesh.port)
            car.send(Connect(4, "CAR", username="CAR"))
            assert (await car.wait(Connack)).reason == 5
            await car.wait_closed()
            await until(lambda: mesh.link.connections == 0)

    run(main())


def test_the_edge_stops_without_closing_a_vehicle() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            car.send(*numbered(10))
            await mesh.edge.stop()
            car.send(*numbered(10, 10))
            await mesh.edge.restart()
            mesh.proxy.target = mesh.edge.devices.port
            await until(lambda: car.acks(PUBACK) == list(range(1, 21)))
            assert not car.closed.is_set()

    run(main())
