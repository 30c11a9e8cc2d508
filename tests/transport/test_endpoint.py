"""The endpoint over real sockets: admission, order, deadlines, and back-pressure in both directions."""

from __future__ import annotations

import asyncio
import mmap

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.broker.session import Connection
from mesh.transport.endpoint import Authenticate
from mesh.transport.frame import WINDOW
from mesh.transport.lifecycle import EARLY
from mesh.transport.listen import Listen
from mesh.transport.listener import Listener
from mesh.transport.refusal import Refused
from mesh.transport.status import CLIENT, Held
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.trail import BLOCK, Trail, read_trail
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PUBACK,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
)
from tests.fakes.endpoint import PRINCIPAL, EndpointNode
from tests.fakes.engine import POISON
from tests.support.bare import Bare
from tests.support.exchange import exchange
from tests.support.loop import run
from tests.support.shows import shows
from tests.support.waiting import until


def test_client_connects_publishes_and_disconnects() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            app = await Bare().hello(node.port, "app")
            app.send(*[Publish("t", b"%d" % n, 1, packet_id=n + 1) for n in range(50)], Ping(PINGREQ))
            await until(lambda: app.acks(PUBACK) == list(range(1, 51)))
            await app.wait(Ping)
            app.send(Disconnect())
            await app.wait_closed()
            other = await Bare().hello(node.port, "other")
            await other.close()
            await until(lambda: node.engine.lost_clients == ["other"])
            assert node.endpoint.status(CLIENT).connections == 0
            assert node.endpoint.status(CLIENT).listeners[0].accepted == 2

    run(main())


def test_broker_error_ends_only_its_own_connection() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            one, other = await Bare(MQTT5).hello(node.port, "one"), await Bare().hello(node.port, "other")
            one.send(Publish("t", POISON))
            assert (await one.wait(Disconnect)).reason == 0x83
            await one.wait_closed()
            other.send(Publish("t", b"x", 1, packet_id=1))
            await other.acked(PUBACK, [1])

    run(main())


def test_the_trail_names_the_packet_that_is_handled() -> None:
    async def main() -> None:
        node = EndpointNode()
        memory = mmap.mmap(-1, BLOCK)
        node.trail = Trail(memory, "token")
        async with node:
            seen: list[tuple[str, str]] = []
            receive = node.engine.receive

            def received(connection: Connection, packet: Packet) -> None:
                left = read_trail(bytes(memory))
                assert left is not None
                seen.append((left.source, left.packet))
                receive(connection, packet)

            node.engine.receive = received  # type: ignore[method-assign]
            app = await Bare(MQTT5).hello(node.port, "one")
            app.send(Publish("t/1", b"x", 1, packet_id=1), Publish("t/2", b"x", 1, packet_id=2), Ping(PINGREQ))
            app.send(Publish("t/3", POISON))
            await app.wait_closed()
            assert seen == [
                ("app, client one", what) for what in ("PUBLISH on 't/1'", "PUBLISH on 't/2'", "", "PUBLISH on 't/3'")
            ]
            assert read_trail(bytes(memory)) is None

    run(main())


def test_a_message_that_has_ended_processes_is_put_aside() -> None:
    async def main() -> None:
        node = EndpointNode()
        node.trail = Trail(mmap.mmap(-1, BLOCK))
        left = Trail(memory := mmap.mmap(-1, BLOCK))
        fatal = Publish("t", b"fatal", 1, packet_id=1)
        reader = Reader(PacketLimits(), SERVER, MQTT5)
        left.begin(b"app", MQTT5, reader, encode(fatal, MQTT5))
        left.handle()
        found = read_trail(bytes(memory))
        assert found is not None
        node.trail.refused = frozenset((found.fingerprint,))
        async with node:
            app = await Bare(MQTT5).hello(node.port, "one")
            app.send(Publish("t", b"sane", 1, packet_id=1), Publish("t", b"fatal", 1, packet_id=2, dup=True))
            app.send(Publish("t", b"more", 1, packet_id=3))
            await app.acked(PUBACK, [1, 3])
            assert [packet.payload for packet in node.engine.aside if isinstance(packet, Publish)] == [b"fatal"]

    run(main())


@pytest.mark.parametrize("waits", [False, True])
def test_a_connect_at_which_the_broker_fails_is_refused(waits: bool) -> None:
    async def found() -> Principal:
        return PRINCIPAL

    async def main() -> None:
        async with EndpointNode((lambda connect, peer, proven: found()) if waits else None) as node:
            node.engine.faulty.add("one")
            one = await Bare(MQTT5).connect(node.port)
            one.send(Connect(MQTT5, "one"))
            assert (await one.wait(Connack)).reason == 0x83
            await one.wait_closed()
            await one.close()
            await until(lambda: node.endpoint.status(CLIENT).connections == 0)

    run(main())


REFUSED = [
    (b"hello", b""),
    (b"\x10\xff\xff\xff\x7f", b""),
    (b"\x10\x0c\x00\x04MQTT\x07\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),
    (b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x00", b"\x20\x03\x00\x81\x00"),
    (b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00", b""),
]


@pytest.mark.parametrize(("sent", "answer"), REFUSED)
def test_invalid_connect_is_answered_and_closed(sent: bytes, answer: bytes) -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            assert await exchange(node.port, sent) == answer
            assert node.endpoint.status(CLIENT).with_refused() == 1

    run(main())


def test_client_that_sends_no_connect_is_closed() -> None:
    async def main() -> None:
        node = EndpointNode()
        node.connect_timeout = 0.5
        async with node:
            await (await Bare().connect(node.port)).wait_closed()

    run(main())


def refuse(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
    raise Refused(0x86)


def refuse_identifier(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
    raise Refused(0x85)


async def refuse_later(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
    await asyncio.sleep(0)
    raise Refused(0x86)


async def fail_later(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
    raise ValueError("the directory is on fire")


async def never(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
    await asyncio.sleep(3600)
    return PRINCIPAL


@shows(v5="3.1.3-8 3.1.4-2 3.2.2-7 3.2.2-8", v3="3.1.3-9 3.2.2-5")
@pytest.mark.parametrize(
    ("authenticate", "old", "new"),
    [(refuse, 4, 0x86), (refuse_identifier, 2, 0x85), (refuse_later, 4, 0x86), (fail_later, 3, 0x88), (never, 3, 0x88)],
)
def test_refused_client_gets_a_connack_with_the_reason(
    authenticate: Authenticate, old: int, new: int
) -> None:
    async def main() -> None:
        node = EndpointNode(authenticate)
        node.connect_timeout = 0.5
        async with node:
            for protocol, reason in ((4, old), (5, new)):
                app = await Bare(protocol).connect(node.port)
                app.send(Connect(protocol, "app"))
                assert (await app.wait(Connack)).reason == reason
                await app.wait_closed()
            assert node.engine.opened == []

    run(main())


def test_packets_sent_during_the_look_up_keep_their_order() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def later(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
            await gate.wait()
            return PRINCIPAL

        async with EndpointNode(later) as node:
            app = await Bare().connect(node.port)
            app.send(Connect(4, "app"), *[Publish("t", b"%d" % n) for n in range(10)])
            await until(lambda: node.endpoint.status(CLIENT).held == Held(identity=1))
            app.send(*[Publish("t", b"%d" % n) for n in range(10, 20)])
            gate.set()
            await until(lambda: node.engine.payloads("app") == [b"%d" % n for n in range(20)])
            gate.clear()
            flood = await Bare().connect(node.port)
            data = encode(Connect(4, "flood"), 4) + encode(Ping(PINGREQ), 4) * EARLY  # twice as many bytes
            before = node.endpoint.group.bytes_in
            flood.raw(data)
            await until(lambda: node.endpoint.status(CLIENT).held.identity == 1)
            assert node.endpoint.group.bytes_in - before <= EARLY
            gate.set()
            await until(lambda: node.endpoint.group.bytes_in - before == len(data))

    run(main())


def test_packets_before_a_malformed_one_are_handled() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            app = await Bare(MQTT5).hello(node.port, "app")
            app.raw(b"\x30\x05\x00\x01t\x00x" + b"\x36\x05\x00\x01a\x00\x01" + b"\x30\x05\x00\x01t\x00y")
            assert (await app.wait(Disconnect)).reason == 0x81
            await app.wait_closed()
            assert node.engine.payloads("app") == [b"x"]
            assert node.engine.lost_clients == []

    run(main())


def test_keep_alive_is_enforced() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            app = await Bare(MQTT5).hello(node.port, "app", keep_alive=1)
            forever = await Bare(MQTT5).hello(node.port, "forever", keep_alive=0)
            assert (await app.wait(Disconnect)).reason == 0x8D
            assert node.engine.failed == [("app", 0x8D)]
            assert not forever.closed.is_set()

    run(main())


def test_client_that_does_not_read_is_paused_and_not_read() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            app = await Bare().hello(node.port, "app")
            app.pause()
            sent = 0
            while "app" not in node.engine.paused:
                node.engine.deliver("app", Publish("t", bytes(100_000)))
                node.turn.wake()
                sent += 1
                await asyncio.sleep(0.001)
            assert node.endpoint.status(CLIENT).held == Held(writing=1)
            app.resume()
            await until(lambda: len(app.publishes()) == sent)
            assert node.engine.paused == set()
            assert node.endpoint.status(CLIENT).held == Held()

    run(main())


def test_client_of_a_congested_connection_is_not_read() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            app = await Bare().hello(node.port, "app")
            connection = node.engine.current["app"]
            connection.congested = True
            app.send(Publish("t", b"1"))
            await until(lambda: node.endpoint.status(CLIENT).held == Held(broker=1))
            app.send(Publish("t", b"2"))
            connection.congested = False
            node.engine.deliver("app", Publish("t", b"answer"))
            node.turn.wake()
            await until(lambda: node.engine.payloads("app") == [b"1", b"2"])

    run(main())


def test_paused_endpoint_reads_no_client() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            app = await Bare().hello(node.port, "app")
            node.endpoint.pause()
            late = await Bare().connect(node.port)
            late.send(Connect(4, "late"))
            app.send(Publish("t", b"1"))
            await until(lambda: node.endpoint.status(CLIENT).held == Held(node=2))
            assert node.engine.received == []
            node.endpoint.resume()
            await late.wait(Connack)
            await until(lambda: node.engine.payloads("app") == [b"1"])

    run(main())


def test_stop_sends_disconnect_to_mqtt_5_clients() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            old, new = await Bare().hello(node.port, "old"), await Bare(MQTT5).hello(node.port, "new")
            await node.endpoint.stop(2.0)
            assert (await new.wait(Disconnect)).reason == 0x8B
            await old.wait_closed()
            assert node.engine.lost_clients == []

    run(main())


def test_peer_that_never_closes_is_aborted_after_the_linger() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            node.endpoint.group.linger = 0.1
            reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(b"nonsense")
            assert await reader.read() == b""
            writer.write(b"more nonsense")
            await until(lambda: not node.endpoint.group.streams)
            writer.close()

    run(main())


def test_an_address_in_use_is_named() -> None:
    async def main() -> None:
        async with EndpointNode() as node:
            group = StreamGroup(asyncio.get_running_loop(), node.wheel)

            def refusing() -> Stream:
                raise AssertionError("no client connects")

            listener = Listener("edge-1", Listen("tier", "127.0.0.1", node.port), group, refusing, 1)
            with pytest.raises(OSError, match=f"edge-1: cannot listen on 127.0.0.1:{node.port}: in use"):
                await listener.start()

    run(main())


def test_what_clients_make_the_endpoint_buffer_is_bounded() -> None:
    async def main() -> None:
        node = EndpointNode()
        node.buffers.limit = 1_099_999
        node.admission.most = 100
        async with node:
            apps = [await Bare(MQTT5).hello(node.port, f"app-{n}") for n in range(20)]
            packet = encode(Publish("t", bytes(190_000), 1, packet_id=1), MQTT5)
            for app in apps:
                app.raw(packet[:100_000])
            await until(lambda: node.buffers.closed == sum(1 for app in apps if app.closed.is_set()) == 10)
            assert node.buffers.used <= node.buffers.limit
            for app in apps:
                if app.closed.is_set():
                    assert (await app.wait(Disconnect)).reason == 0x97
                else:
                    app.raw(packet[100_000:])
                    await app.acked(PUBACK, [1])
            await until(lambda: node.buffers.used == 0)

    run(main())


def test_what_clients_of_the_endpoint_do_not_read_is_bounded() -> None:
    async def main() -> None:
        node = EndpointNode()
        node.buffers.limit = 4 * WINDOW - 1
        async with node:
            good = await Bare().hello(node.port, "good")
            slow = [await Bare().hello(node.port, f"slow-{n}") for n in range(5)]
            for one in slow:
                one.pause()
            sent = 0
            while node.buffers.closed < 2:
                for n in range(5):
                    if (f"slow-{n}", 0x97) not in node.engine.failed:
                        node.engine.deliver(f"slow-{n}", Publish("t", bytes(1_000_000)))
                node.engine.deliver("good", Publish("t", b"x"))
                node.turn.wake()
                sent += 1
                await good.wait_all(Publish, sent)
                assert node.buffers.used <= node.buffers.limit
                assert sent < 1000
            for one in slow:
                one.resume()
            await until(lambda: sum(1 for one in slow if one.closed.is_set()) == 2)
            await until(lambda: node.buffers.used == 0)
            assert not good.closed.is_set()

    run(main())
