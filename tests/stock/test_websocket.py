"""MQTT.js and paho-mqtt over WebSocket, with TLS and without, at the core and the front door."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator

import pytest

from mesh.wire.decode import CLIENT, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Connack, Connect, Disconnect, Packet
from mesh.wire.reasons import MALFORMED_PACKET, PACKET_TOO_LARGE, PROTOCOL_ERROR
from tests.stock.makers import Dialect, Makers
from tests.stock.peer import V5, V31, V311, Will
from tests.stock.way import CORE, DOOR, Way
from tests.stock.web import WAYS, Web, turned_away
from tests.support.processes import Processes
from tests.support.proxyheaders import PROXY, block
from tests.support.shows import shows
from tests.support.waiting import wait_until
from tests.support.websockets import (
    BINARY,
    CLOSE,
    MORE,
    PING,
    PONG,
    TEXT,
    frame,
    read_answer,
    read_frame,
    request,
)

pytestmark = pytest.mark.e2e

# MQTT.js offers another subprotocol with 3.1.
DIALECTS = [("paho", V31), ("paho", V311), ("paho", V5), ("mqttjs", V311), ("mqttjs", V5)]
CLIENTS = pytest.mark.parametrize("client", DIALECTS, ids=[f"{kind}-{version}" for kind, version in DIALECTS])
SCHEMES = pytest.mark.parametrize("scheme", ["ws", "wss"])
PLACES = pytest.mark.parametrize("place", WAYS, ids=["-".join(way) for way in WAYS])
SECONDS = 20
LARGE = 900_000  # bytes, more than one frame of any client


@pytest.fixture
def at(mesh: Processes, web: Web, numbers: Iterator[int]) -> Callable[[str, str], Way]:
    """Makes the way in at a listener."""
    number = next(numbers)
    return lambda place, scheme: web.way(place, scheme, number)


@CLIENTS
@SCHEMES
@shows(v3="6.0.0-2", v5="6.0.0-2")
def test_command_and_report_are_delivered(
    makers: Makers, at: Callable[[str, str], Way], client: Dialect, scheme: str
) -> None:
    door = at(DOOR, scheme)
    backend, vehicle = makers.join(client, at(CORE, scheme)), makers.join(client, door)
    backend.subscribe(door.topic("status"))
    vehicle.subscribe(door.topic("cmd"))
    assert backend.publish(door.topic("cmd"), b"horn", 1) in (0, None)
    command = vehicle.expect(1)[0]
    assert (command.topic, command.payload, command.qos) == (door.topic("cmd"), b"horn", 1)
    vehicle.publish(door.topic("status"), b"done: " + command.payload, 2)
    assert backend.expect(1)[0].payload == b"done: horn"


@CLIENTS
@PLACES
@shows(v3="6.0.0-2", v5="6.0.0-2")
def test_a_burst_arrives_in_order_and_a_large_packet_whole(
    makers: Makers, at: Callable[[str, str], Way], client: Dialect, place: tuple[str, str]
) -> None:
    way = at(*place)
    sender, receiver = makers.pair(client, way)
    receiver.subscribe(way.topic("burst"))
    sender.pipeline(way.topic("burst"), [str(number).encode() for number in range(200)])
    assert [int(message.payload) for message in receiver.expect(200)] == list(range(200))
    large = random.Random(1).randbytes(LARGE)
    sender.publish(way.topic("burst"), large)
    assert receiver.expect(201)[200].payload == large


@CLIENTS
@SCHEMES
def test_a_client_that_leaves_leaves_no_will_and_one_that_is_lost_does(
    makers: Makers, at: Callable[[str, str], Way], client: Dialect, scheme: str, mesh: Processes
) -> None:
    way = at(CORE, scheme)
    watcher = makers.join(client, way)
    watcher.subscribe(way.topic("gone", "+"))
    leaving = makers.join(client, way, will=Will(way.topic("gone", "leaving"), b"lost"))
    leaving.leave()
    before = makers.join(client, way, client_id="taken", will=Will(way.topic("gone", "taken"), b"lost"))
    makers.join(client, way, client_id="taken")  # the same client id: the server ends the first connection
    assert watcher.expect(1)[0].topic == way.topic("gone", "taken")
    wait_until(lambda: before.record.closes >= 1, "the end of the first connection")


@CLIENTS
@pytest.mark.parametrize("origin", ["", "https://evil.example", "null"])
def test_another_origin_or_none_gets_no_websocket(
    makers: Makers, at: Callable[[str, str], Way], client: Dialect, origin: str, mesh: Processes
) -> None:
    way = at(DOOR, "wss")
    before = turned_away(mesh)
    with pytest.raises(Exception, match=r"WebSocket handshake error|closed before CONNACK"):
        makers.join(client, way, origin=origin)
    wait_until(lambda: turned_away(mesh) == before + 1, "the count of the listener")


def test_the_origin_of_a_page_is_refused_where_none_are_named(
    makers: Makers, at: Callable[[str, str], Way], mesh: Processes
) -> None:
    before = turned_away(mesh)
    with pytest.raises(AssertionError, match="closed before CONNACK"):
        makers.join(("mqttjs", V311), at(DOOR, "ws"), origin="https://fleet.example.com")
    wait_until(lambda: turned_away(mesh) == before + 1, "the count of the listener")


CONNECT = Connect(MQTT5, "", username="V0", clean_start=True)
DOORS = pytest.mark.parametrize("place", [DOOR, CORE])


@DOORS
@pytest.mark.parametrize(
    ("wrong", "code", "reason"),
    [
        (frame(TEXT, b"hello"), 1003, MALFORMED_PACKET),
        (frame(BINARY, b"x" * 8, mask=b""), 1002, PROTOCOL_ERROR),
        (frame(BINARY, bytes(2 << 20))[:10], 1009, PACKET_TOO_LARGE),
    ],
    ids=["text", "unmasked", "large"],
)
@shows(v3="6.0.0-1", v5="6.0.0-1")
def test_a_wrong_frame_is_answered_with_disconnect_and_the_code_of_the_rfc(
    at: Callable[[str, str], Way], place: str, wrong: bytes, code: int, reason: int
) -> None:
    async def steps() -> tuple[list[Packet], int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", at(place, "ws").port)
        writer.write(request())
        assert (await read_answer(reader))[0] == 101
        data = encode(CONNECT, MQTT5)
        writer.write(frame(BINARY, data[:3], last=False) + frame(PING, b"?") + frame(MORE, data[3:]))
        packets = Reader(PacketLimits(), CLIENT, MQTT5)
        got: list[Packet] = []
        while True:
            kind, payload = await read_frame(reader)
            if kind == BINARY:
                got += packets.feed(payload)
                if len(got) == 1:
                    writer.write(wrong + frame(BINARY, b"\xc0\x00"))
            elif kind == CLOSE:
                assert await reader.read() == b""
                writer.close()
                return got, int.from_bytes(payload[:2], "big")
            else:
                assert (kind, payload) == (PONG, b"?")

    got, ended = asyncio.run(asyncio.wait_for(steps(), SECONDS))
    connack, disconnect = got
    assert isinstance(connack, Connack)
    assert isinstance(disconnect, Disconnect)
    assert (connack.reason, disconnect.reason, ended) == (0, reason, code)


@DOORS
@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883\r\n", block(PROXY, 0x11, bytes(12))], ids=["1", "2"]
)
def test_a_header_of_the_proxy_protocol_is_no_connect(mesh: Processes, place: str, header: bytes) -> None:
    async def steps() -> bytes:
        port = mesh.vehicles if place == DOOR else mesh.backends
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(header + encode(CONNECT, MQTT5))
        with contextlib.suppress(ConnectionResetError):
            return await reader.read()
        return b""

    assert asyncio.run(asyncio.wait_for(steps(), SECONDS)) == b""
