"""The front door towards vehicles: admission, refusals, keep alive, flow control, traces, and the stop."""

from __future__ import annotations

import asyncio

import pytest

from mesh.broker.shell import Flushable
from mesh.broker.trace import CLIENT, RELAY
from mesh.frontdoor.context import DoorSettings
from mesh.transport.frame import WINDOW
from mesh.transport.refusal import Refused
from mesh.transport.status import Held
from mesh.transport.writer import ConnectionWriter
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PUBACK,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Ping,
    Publish,
    Subscribe,
    Subscription,
)
from mesh.wire.tracecontext import TraceContext
from tests.fakes.mesh import FakeMesh, FakeRecord
from tests.fakes.tracer import KeepingTracer
from tests.support.bare import Bare
from tests.support.exchange import exchange
from tests.support.loop import run
from tests.support.waiting import until

CONNECT_311 = bytes.fromhex("100f00044d5154540402003c0003434152")  # no user name

REFUSED = [
    (b"GET / HTTP/1.1\r\n\r\n", b""),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),  # TLS on the plain port
    (b"\x20\x02\x00\x00", b""),  # a CONNACK (CVE-2021-34432)
    (b"\x10\xff\xff\xff\x7f", b""),  # a giant length (CVE-2023-0809)
    (b"\x10\xff\xff\xff\xff\xff", b""),  # a length of five bytes
    (b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),  # another protocol's name
    (b"\x10\x0c\x00\x04MQTT\x07\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),  # a version of the future [MQTT-3.1.2-2]
    (b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x00", b"\x20\x03\x00\x81\x00"),  # reserved flag, 5.0: told why
    (b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00", b""),  # the same in 3.1.1: just closed [MQTT-3.1.4-1]
    (CONNECT_311, b"\x20\x02\x00\x05"),
]


@pytest.mark.parametrize(("sent", "answer"), REFUSED)
def test_invalid_connect_is_answered_and_closed(sent: bytes, answer: bytes) -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            assert await exchange(mesh.port, sent) == answer
            await until(lambda: mesh.door.status().clients.with_refused() == 1)
            assert mesh.engine.opened == []

    run(main())


def test_mqtt_5_client_is_refused_as_not_authorized() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare(MQTT5).connect(mesh.port)
            car.send(Connect(5, "x", username="nobody"))
            assert (await car.wait(Connack)).reason == 0x87
            await car.wait_closed()

    run(main())


@pytest.mark.parametrize("cached", [False, True])
def test_an_identity_that_waits_keeps_the_order_of_packets_and_delays_no_other_vehicle(cached: bool) -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            if cached:
                mesh.map.known["SLOW"] = FakeRecord("SLOW", "edge-1")
            present = await Bare().hello(mesh.port, "PRESENT")
            mesh.gate = asyncio.Event()
            slow = await Bare().connect(mesh.port)
            first = [encode(Publish("a", b"%d" % number, 0, False, False, 0), 4) for number in range(20)]
            slow.raw(encode(Connect(4, "SLOW", username="SLOW"), 4) + b"".join(first))
            stranger = await Bare(MQTT5).connect(mesh.port)
            stranger.send(Connect(5, "x", username="nobody"))
            await until(lambda: mesh.asked == 2, "both wait")
            present.send(Ping(PINGREQ))
            await present.wait(Ping)
            assert (slow.packets, stranger.packets, mesh.engine.opened) == ([], [], ["PRESENT"])
            mesh.gate.set()
            assert (await slow.wait(Connack)).reason == 0
            assert (await stranger.wait(Connack)).reason == 0x87
            await until(lambda: len(mesh.engine.received) == 20, "its packets")
            assert mesh.engine.payloads("SLOW") == [b"%d" % number for number in range(20)]

    run(main())


def test_a_vehicle_that_leaves_while_its_identity_waits_leaves_nothing() -> None:
    async def main() -> None:
        async with FakeMesh(DoorSettings(attach_timeout=0.5)) as mesh:
            mesh.gate = asyncio.Event()
            gone, patient = await Bare().connect(mesh.port), await Bare(MQTT5).connect(mesh.port)
            for client in (gone, patient):
                client.send(Connect(client.protocol, "V1", username="V1"))
            await until(lambda: mesh.asked == 2, "both wait")
            await gone.close()
            assert (await patient.wait(Connack)).reason == 0x88
            await until(lambda: mesh.asked == 0, "none waits")
            assert mesh.engine.opened == []
            await until(lambda: mesh.door.status().clients.connections == 0, "no connection")

    run(main())


def test_missing_partial_and_slow_connect_are_closed_in_time() -> None:
    async def main() -> None:
        async with FakeMesh(DoorSettings(connect_timeout=0.5)) as mesh:
            silent, half, slow = [await Bare().connect(mesh.port) for _ in range(3)]
            half.raw(CONNECT_311[:9])

            async def trickle() -> None:
                for byte in CONNECT_311[:-1]:
                    slow.raw(bytes((byte,)))
                    await asyncio.sleep(0.2)

            task = asyncio.create_task(trickle())
            for client in (silent, half, slow):
                await client.wait_closed()
            task.cancel()
            assert mesh.door.status().clients.with_refused() == 3

    run(main())


@pytest.mark.parametrize("first", [1, 2, 3, 4, 100])
def test_large_connect_is_refused_in_pieces_of_any_size(first: int) -> None:
    """Before CONNECT a client uses no more memory than a CONNECT may have; later packets may be larger."""

    async def main() -> None:
        async with FakeMesh(limits=PacketLimits(max_packet_size=100_000, max_connect_size=1000)) as mesh:
            car = await Bare().connect(mesh.port)
            large = encode(Connect(4, "c" * 1000, username="CAR"), 4)
            car.raw(large[:first])
            await until(lambda: mesh.door.group.bytes_in >= first or car.closed.is_set())
            car.raw(large[first:-1])
            await car.wait_closed()
            car = await Bare().connect(mesh.port)
            car.raw(encode(Connect(4, "CAR", username="CAR"), 4) + encode(Publish("vehicles/CAR/x", bytes(50_000)), 4))
            await car.wait(Connack)
            await until(lambda: mesh.engine.payloads("CAR") == [bytes(50_000)])

    run(main())


def test_unknown_vehicle_is_refused_while_the_map_is_unavailable() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            mesh.map.known["KNOWN"] = FakeRecord("KNOWN", "edge-1")
            mesh.map.away = True
            known = await Bare().hello(mesh.port, "KNOWN")
            old, new = await Bare().connect(mesh.port), await Bare(MQTT5).connect(mesh.port)
            old.send(Connect(4, "a", username="NEW1"))
            new.send(Connect(5, "b", username="NEW2"))
            assert (await old.wait(Connack)).reason == 3
            assert (await new.wait(Connack)).reason == 0x88
            assert not known.closed.is_set()

    run(main())


def test_a_stale_edge_refuses() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:

            def admit(vehicle: str, epoch: int) -> None:
                raise Refused(0x9C, "the vehicle has moved")

            mesh.edge.admit = admit  # type: ignore[assignment]
            car = await Bare(MQTT5).connect(mesh.port)
            car.send(Connect(5, "CAR", username="CAR"))
            assert (await car.wait(Connack)).reason == 0x9C
            await car.wait_closed()

    run(main())


def test_connection_over_the_limit_is_answered_and_counted() -> None:
    async def main() -> None:
        async with FakeMesh(connections=2) as mesh:
            first, _ = await Bare().hello(mesh.port, "A"), await Bare().hello(mesh.port, "B")
            third = await Bare(MQTT5).connect(mesh.port)
            third.send(Connect(MQTT5, "C", username="C"))
            assert (await third.wait(Connack)).reason == 0x89
            await third.wait_closed()
            assert mesh.door.status().clients.with_refused() == 1
            await first.close()
            await until(lambda: mesh.door.status().clients.connections == 1)
            await Bare().hello(mesh.port, "C")

    run(main())


def test_silent_vehicle_is_closed_and_pinging_vehicle_is_not() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            silent = await Bare(MQTT5).hello(mesh.port, "SILENT", keep_alive=1)
            pinging = await Bare().hello(mesh.port, "PINGING", keep_alive=1)

            async def ping() -> None:
                while True:
                    pinging.send(Ping(PINGREQ))
                    await asyncio.sleep(0.5)

            task = asyncio.create_task(ping())
            assert (await silent.wait(Disconnect)).reason == 0x8D
            await silent.wait_closed()
            await until(lambda: mesh.engine.lost_clients == ["SILENT"])
            await until(lambda: len(pinging.packets) > 6)
            task.cancel()
            assert not pinging.closed.is_set()
            assert mesh.door.status().clients.silent == 1

    run(main())


def test_door_refuses_a_large_packet_and_edge_finds_a_protocol_error() -> None:
    async def main() -> None:
        limits = PacketLimits(max_packet_size=4096)
        async with FakeMesh(limits=limits) as mesh:
            large, wrong = [await Bare(MQTT5).hello(mesh.port, name) for name in ("LARGE", "WRONG")]
            large.send(Publish("vehicles/LARGE/t", bytes(5000)))
            assert (await large.wait(Disconnect)).reason == 0x95
            wrong.send(Publish("vehicles/WRONG/t", b"ok"))
            wrong.raw(b"\x36\x05\x00\x01a\x00\x01")  # QoS 3
            assert (await wrong.wait(Disconnect)).reason == 0x81
            await wrong.wait_closed()
            assert mesh.engine.payloads("WRONG") == [b"ok"]
            assert mesh.engine.failed == [("WRONG", 0x81)]
            await until(lambda: mesh.engine.lost_clients == ["LARGE"])

    run(main())


def test_vehicle_is_not_read_beyond_its_limit_without_its_edge() -> None:
    async def main() -> None:
        async with FakeMesh(DoorSettings(held_per_vehicle=10_000)) as mesh:
            car, other = await Bare().hello(mesh.port, "CAR"), await Bare().hello(mesh.port, "OTHER")
            await mesh.edge.kill()
            await until(lambda: mesh.link.state == "away")
            car.send(*[Publish("vehicles/CAR/t", bytes(1000), 1, packet_id=n) for n in range(1, 2001)])
            await until(lambda: mesh.door.status().clients.held.link == 1)
            other.send(Ping(PINGREQ))
            await other.wait(Ping)
            assert mesh.link.held_bytes < 300_000  # the limit and one read of the socket
            await mesh.edge.restart()
            mesh.proxy.target = mesh.edge.devices.port
            await until(lambda: len(car.acks(PUBACK)) == 2000)
            assert car.acks(PUBACK) == list(range(1, 2001))
            assert mesh.door.status().clients.held == Held()

    run(main())


def test_vehicle_is_not_read_beyond_its_limit_while_its_edge_withholds_the_answers() -> None:
    async def main() -> None:
        async with FakeMesh(DoorSettings(held_per_vehicle=10_000)) as mesh:
            car, other = await Bare().hello(mesh.port, "CAR"), await Bare().hello(mesh.port, "OTHER")
            edge = mesh.edge
            edge.journal.automatic = False
            # The frames are confirmed, as they are when they are on disk, and nothing is answered.
            edge.turn.add(lambda: edge.devices.durable(edge.journal.position))
            edge.turn.add(edge.turn.wake)
            car.send(*[Publish("vehicles/CAR/t", bytes(1000), 1, packet_id=n) for n in range(1, 2001)])
            await until(lambda: mesh.link.held_bytes > 0 and mesh.link.unconfirmed == 0)
            await until(lambda: mesh.door.status().clients.held.link == 1)
            assert 10_000 < mesh.link.held_bytes < 300_000  # the limit and one read of the socket
            other.send(Ping(PINGREQ))
            await other.wait(Ping)
            edge.journal.automatic = True
            await until(lambda: len(car.acks(PUBACK)) == 2000)
            assert car.acks(PUBACK) == list(range(1, 2001))
            await until(lambda: mesh.link.held_bytes == 0)
            assert mesh.door.status().clients.held == Held()

    run(main())


def test_bytes_held_for_one_edge_are_bounded_in_total() -> None:
    async def main() -> None:
        async with FakeMesh(DoorSettings(held_per_edge=20_000)) as mesh:
            cars = [await Bare().hello(mesh.port, f"CAR{n}") for n in range(20)]
            await mesh.edge.kill()
            await until(lambda: mesh.link.state == "away")
            for round in range(10):
                for car in cars:
                    car.send(Publish("vehicles/CAR/t", bytes(1000), 1, packet_id=round + 1))
                await asyncio.sleep(0.01)
            await until(lambda: mesh.door.status().clients.held.link > 0)
            assert mesh.link.held_bytes < 60_000
            await mesh.edge.restart()
            mesh.proxy.target = mesh.edge.devices.port
            for car in cars:
                await car.acked(PUBACK, range(1, 11))

    run(main())


def test_vehicle_that_does_not_read_is_paused_and_delays_no_other() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            slow, quick = await Bare().hello(mesh.port, "SLOW"), await Bare().hello(mesh.port, "QUICK")
            slow.pause()
            vehicle = next(stream for stream in mesh.door.group.streams if stream.name == "SLOW")  # type: ignore[attr-defined]
            sent = 0
            while not (vehicle.pending() and "SLOW" in mesh.engine.paused):
                if "SLOW" not in mesh.engine.paused:
                    mesh.engine.deliver("SLOW", Publish("t", bytes(50_000)))
                    mesh.edge.turn.wake()
                    sent += 1
                assert sent < 1000
                await asyncio.sleep(0.001)
            for n in range(100):
                mesh.engine.deliver("QUICK", Publish("t", b"%d" % n))
                mesh.edge.turn.wake()
            await until(lambda: len(quick.publishes()) == 100)
            assert vehicle.pending() < 2 * WINDOW
            slow.resume()
            await until(lambda: "SLOW" not in mesh.engine.paused)
            await until(lambda: len(slow.publishes()) == sent)

    run(main())


def test_jammed_door_pauses_every_vehicle_that_gets_data() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            cars = [await Bare().hello(mesh.port, f"CAR{n}") for n in range(40)]
            mesh.proxy.freeze()
            sent = 0
            while len(mesh.engine.paused) < 40:
                for n in range(40):
                    if f"CAR{n}" not in mesh.engine.paused:
                        mesh.engine.deliver(f"CAR{n}", Publish("t", bytes(60_000)))
                        sent += 1
                mesh.edge.turn.wake()
                await asyncio.sleep(0.002)
            assert sent < 40 * 6  # less than all windows together
            mesh.proxy.thaw()
            await until(lambda: not mesh.engine.paused)
            await until(lambda: sum(len(car.publishes()) for car in cars) == sent)

    run(main())


def test_door_has_a_span_of_a_sampled_message() -> None:
    async def main() -> None:
        mesh = FakeMesh()
        tracer = mesh.tracer = KeepingTracer()
        async with mesh:
            car = await Bare().hello(mesh.port, "CAR")
            context = TraceContext("1" * 32, "2" * 16, 1, "a=b")
            for qos in (0, 1, 0, 1):
                connection = mesh.engine.current["CAR"]
                if qos or len(connection.out):
                    connection.traced.append((len(connection.out), context))
                mesh.engine.deliver("CAR", Publish("vehicles/CAR/cmd", b"x", qos, packet_id=9 * qos))
            mesh.edge.turn.wake()
            await car.wait_all(Publish, 4)
            assert [publish.qos for publish in car.publishes()] == [0, 1, 0, 1]
            spans = tracer.spans
            assert {(span.operation, span.kind, span.topic) for span in spans} == {(RELAY, CLIENT, "vehicles/CAR/cmd")}
            assert len(spans) == 3
            assert [(span.vehicle, span.client) for span in spans] == [("CAR", "CAR")] * 3
            assert {span.peer.address for span in spans} == {"127.0.0.1"}
            assert {span.peer.listener for span in spans} == {f"mqtt://127.0.0.1:{mesh.port}"}
            assert [span.parent for span in spans] == [context] * 3
            assert [span.reasons for span in spans] == [[0x80], [0], []]  # the first one's identifier was used again
            car.send(Ack(PUBACK, 9))
            await until(lambda: spans[2].reasons == [0])

    run(main())


def test_stopping_door_tells_its_vehicles() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            old, new = await Bare().hello(mesh.port, "OLD"), await Bare(MQTT5).hello(mesh.port, "NEW")
            new.send(Publish("vehicles/NEW/t", b"last", 1, packet_id=1))
            await until(lambda: new.acks(PUBACK) == [1])
            await mesh.door.stop(2.0)
            assert (await new.wait(Disconnect)).reason == 0x8B
            await old.wait_closed()
            await until(lambda: sorted(mesh.engine.lost_clients) == ["NEW", "OLD"])
            with pytest.raises(OSError, match="refused"):
                await asyncio.open_connection("127.0.0.1", mesh.port)

    run(main())


def test_status_counts_connections_packets_and_bytes() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            subscribe = Subscribe(1, [Subscription("vehicles/CAR/#")])
            car.send(subscribe)
            await until(lambda: mesh.link.held_bytes == 0 and len(car.packets) == 2)
            status = mesh.door.status()
            assert status.accepted == 1
            sent = encode(Connect(4, "CAR", username="CAR"), 4) + encode(subscribe, 4)
            assert status.clients.bytes_in == len(sent)
            assert status.clients.bytes_out == 4 + 5
            assert status.packets_up == 1

    run(main())


class BrokenShell(Flushable):
    def flush(self) -> None:
        raise ValueError("a fault of the shell")


def test_writer_survives_a_shell_that_fails() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            connection = mesh.engine.current["CAR"]
            shell, connection.shell = connection.shell, BrokenShell()
            mesh.engine.deliver("CAR", Publish("t"))
            ConnectionWriter(mesh.engine)()
            connection.shell = shell
            mesh.engine.deliver("CAR", Publish("t"))
            mesh.edge.turn.wake()
            await car.wait_all(Publish, 2)

    run(main())
