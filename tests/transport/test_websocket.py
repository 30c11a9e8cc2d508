"""A WebSocket at a listener: frames are a byte stream for what is above, and what RFC 6455 forbids ends it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from ssl import SSLContext, create_default_context
from struct import pack
from typing import Any

import pytest

from mesh.transport.listen import HeaderRule, KeyPair, Listen, TlsFiles
from mesh.transport.stream import HOLD_BROKER
from mesh.transport.websocket import FRAMES
from mesh.wire.limits import PacketLimits
from tests.support.certificates import Authority
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.shows import shows
from tests.support.waiting import until
from tests.support.websockets import (
    BINARY,
    CLOSE,
    HEADERS,
    MORE,
    PING,
    PONG,
    TEXT,
    frame,
    read_answer,
    read_frame,
    request,
)

SECONDS = 10
LARGEST = 1000
PLACE = Listen("ws", "127.0.0.1", 0, "/mqtt")


class Client:
    """A connection to a hall; ``frames`` are those that came until the end of ``through``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def open(self, data: bytes = b"") -> tuple[int, dict[str, str]]:
        """Send a request; the status and headers of its answer."""
        self.writer.write(data or request())
        return await read_answer(self.reader)

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    async def bytes(self, size: int) -> bytes:
        """So much data of the next binary frames."""
        data = b""
        while len(data) < size:
            kind, payload = await read_frame(self.reader)
            assert kind == BINARY
            data += payload
        return data

    async def end(self) -> tuple[int, str]:
        """The code and the text of the Close frame, which is the next frame; then the connection closes."""
        kind, payload = await read_frame(self.reader)
        assert kind == CLOSE
        self.send(frame(CLOSE, payload[:2]))
        assert await self.reader.read() == b""
        self.writer.close()
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()


@asynccontextmanager
async def visit(hall: Hall, tls: SSLContext | None = None) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", hall.listener.port, ssl=tls, server_hostname="localhost" if tls is not None else None
    )
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def connected(hall: Hall) -> AsyncIterator[Client]:
    async with visit(hall) as client:
        status, headers = await client.open()
        assert (status, headers["sec-websocket-protocol"]) == (101, "mqtt")
        yield client


async def timed(main: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(SECONDS):
        await main


def hall(listen: Listen = PLACE, handshake: float = 10.0) -> Hall:
    return Hall(listen=listen, limits=PacketLimits(max_packet_size=LARGEST), handshake=handshake)


@shows(v3="6.0.0-1 6.0.0-2", v5="6.0.0-1 6.0.0-2")
def test_frames_of_any_size_are_one_stream_of_bytes() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            dice = random.Random(1)
            data = dice.randbytes(20_000)
            pieces = list(cut(dice, data))
            wire = b"".join(
                frame(MORE if at else BINARY, piece, at == len(pieces) - 1, dice.randbytes(4))
                + (frame(PONG, b"x") if dice.random() < 0.1 else b"")
                for at, piece in enumerate(pieces)
            )
            for piece in cut(dice, wire):
                client.send(piece)
                await asyncio.sleep(0)
            assert await client.bytes(len(data)) == data

    run(timed(steps()))


def cut(dice: random.Random, data: bytes) -> Sequence[bytes]:
    pieces: list[bytes] = []
    while data:
        size = dice.choice((0, 1, 2, 3, 7, 125, 126, 500))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@pytest.mark.parametrize("size", [0, 1, 125, 126, LARGEST])
def test_a_frame_has_at_most_the_size_of_the_largest_packet(size: int) -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            client.send(frame(BINARY, bytes(size)), frame(BINARY, b"."))
            assert await client.bytes(size + 1) == bytes(size) + b"."

    run(timed(steps()))


BAD_CLOSE = frame(CLOSE, pack("!H", 1005))


@pytest.mark.parametrize(
    ("wrong", "code", "why"),
    [
        (frame(TEXT, b"hello"), 1003, "text [MQTT-6.0.0-1]"),
        (frame(TEXT, b"", last=False), 1003, "text"),
        (frame(BINARY, b"hello", mask=b""), 1002, "unmasked"),
        (frame(BINARY, bytes(LARGEST + 1))[:4], 1009, "larger"),
        (frame(BINARY, bytes(70_000))[:10], 1009, "larger"),
        (b"\x82\xff" + b"\x7f" + b"\xff" * 7, 1009, "larger"),
        (b"\x82\xff" + b"\x80" + b"\x00" * 7, 1002, "MSB"),
        (b"\x82\xfe\x00\x05", 1002, "2 bytes"),
        (b"\x82\xff" + pack("!Q", 300), 1002, "8 bytes"),
        (frame(BINARY, b"x", rsv=4), 1002, "Reserved"),
        (frame(BINARY, b"x", rsv=1), 1002, "Reserved"),
        (frame(0x3, b"x"), 1002, "opcode"),
        (frame(0xB, b"x"), 1002, "opcode"),
        (frame(MORE, b"x"), 1002, "CONTINUATION"),
        (frame(BINARY, b"x", last=False) + frame(BINARY, b"y"), 1002, "CONTINUATION"),
        (frame(PING, bytes(126)), 1002, "> 125"),
        (frame(PING, b"x", last=False), 1002, "fragment"),
        (frame(CLOSE, b"x"), 1002, "1 byte"),
        (BAD_CLOSE, 1002, "CLOSE"),
        (frame(CLOSE, pack("!H", 999)), 1002, "CLOSE"),
        (frame(CLOSE, pack("!H", 2000)), 1002, "CLOSE"),
        (frame(CLOSE, pack("!H", 1000) + b"\xff"), 1007, "CLOSE"),
    ],
)
@shows(v3="6.0.0-1", v5="6.0.0-1")
def test_a_wrong_frame_ends_the_connection_after_the_data_before_it(wrong: bytes, code: int, why: str) -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            client.send(frame(BINARY, b"before"), wrong, frame(BINARY, b"after"))
            right = b"beforex" if wrong.startswith(b"\x02") else b"before"  # the first part of a message
            assert await client.bytes(len(right)) == right
            assert (await client.end())[0] == code
            await until(lambda: not where.group.streams, "the end of the stream")
            assert why.lower() in where.made[0].why.lower()

    run(timed(steps()))


def test_a_ping_is_answered_also_within_a_message() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            client.send(frame(PING, b"are you there"))
            assert await read_frame(client.reader) == (PONG, b"are you there")
            client.send(frame(BINARY, b"one", last=False), frame(PING), frame(MORE, b"two"))
            assert await read_frame(client.reader) == (PONG, b"")
            assert await client.bytes(6) == b"onetwo"

    run(timed(steps()))


def test_of_many_pings_at_once_the_last_is_answered() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            client.send(*(frame(PING, b"%d" % number) for number in range(100)), frame(BINARY, b"."))
            pongs = []
            while (answer := await read_frame(client.reader))[0] == PONG:
                pongs.append(answer[1])
            assert pongs[-1] == b"99"
            assert len(pongs) < 100

    run(timed(steps()))


def test_the_close_frame_of_a_client_is_answered_with_its_code() -> None:
    async def steps() -> None:
        async with hall() as where:
            for payload, code in ((pack("!H", 1001) + b"going", 1001), (pack("!H", 4000), 4000), (b"", 0)):
                async with connected(where) as client:
                    client.send(frame(BINARY, b"last"), frame(CLOSE, payload), frame(BINARY, b"after"))
                    assert await client.bytes(4) == b"last"
                    assert (await client.end())[0] == code
                    await until(lambda: not where.group.streams, "the end of the stream")

    run(timed(steps()))


def test_a_stream_that_ends_closes_with_a_handshake() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            stream = where.made[0]
            stream.write(b"bye")
            stream.finish()
            stream.write(b"after")
            assert await client.bytes(3) == b"bye"
            kind, payload = await read_frame(client.reader)
            assert (kind, payload) == (CLOSE, pack("!H", 1000))
            client.send(frame(BINARY, b"on its way"))
            await asyncio.sleep(0.05)
            assert where.group.streams  # it waits for the client's Close frame
            client.send(frame(CLOSE, payload))
            assert await client.reader.read() == b""
            await until(lambda: not where.group.streams, "the end of the stream")

    run(timed(steps()))


def test_a_client_that_does_not_answer_the_close_frame_is_cut() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            where.group.linger = 0.1
            where.made[0].finish()
            assert (await read_frame(client.reader))[0] == CLOSE
            with pytest.raises(ConnectionError):
                assert await client.reader.read() == b""
                raise ConnectionResetError  # an end without a reset is right too
            await until(lambda: not where.group.streams, "the end of the stream")

    run(timed(steps()))


def test_a_client_that_half_closes_has_its_data_handled() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            client.send(frame(BINARY, b"last"))
            client.writer.write_eof()
            assert await client.bytes(4) == b"last"
            await until(lambda: not where.group.streams, "the end of the stream")

    run(timed(steps()))


def test_many_frames_of_one_read_take_several_turns_and_keep_their_order() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            count = 5 * FRAMES + 3
            client.send(*(frame(BINARY, b"%06d" % number) for number in range(count)))
            data = await client.bytes(6 * count)
            assert data == b"".join(b"%06d" % number for number in range(count))

    run(timed(steps()))


def test_connections_share_the_frames_of_a_turn() -> None:
    """Empty frames are cheap to send: however many come, from however many connections, the others have their turn."""

    async def steps() -> None:
        async with hall() as where, AsyncExitStack() as stack:
            greedy = [await stack.enter_async_context(connected(where)) for _ in range(8)]
            modest = await stack.enter_async_context(connected(where))
            turns: list[int] = []
            counted = 0

            def count(data: bytes) -> None:
                nonlocal counted
                counted += len(data)

            for stream in where.made[:8]:
                stream.received = count  # type: ignore[method-assign]

            def turn() -> None:
                nonlocal counted
                turns.append(counted)
                counted = 0
                asyncio.get_running_loop().call_soon(turn)

            turn()
            for client in greedy:
                client.send(frame(BINARY, b"x") * 5000)
            await until(lambda: counted > 0, "the first frames")
            modest.send(frame(BINARY, b"modest"))
            assert await modest.bytes(6) == b"modest"
            assert where.group.bytes_in < 8 * 5000, "they have not all had their frames handled before it"
            await until(lambda: where.group.bytes_in == 8 * 5000 + 6, "all frames")
            assert max(turns) <= 2 * FRAMES

    run(timed(steps()))


def test_an_aborted_connection_handles_no_more_frames() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            client.send(frame(BINARY, b"x") * 5000)
            await until(lambda: where.group.bytes_in > 0, "the first frames")
            where.made[0].abort()
            await until(lambda: not where.group.streams, "the end of the stream")
            assert where.group.bytes_in < 5000

    run(timed(steps()))


def test_a_stream_that_is_held_gets_nothing_and_later_all() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            stream = where.made[0]
            count = 3 * FRAMES
            stream.hold(HOLD_BROKER)
            await asyncio.sleep(0.01)
            client.send(*(frame(BINARY, b"%06d" % number) for number in range(count)))
            await asyncio.sleep(0.1)
            assert where.group.bytes_in == 0
            stream.release(HOLD_BROKER)
            await until(lambda: where.group.bytes_in > 0, "the first frames")
            stream.hold(HOLD_BROKER)
            stream.release(HOLD_BROKER)
            assert await client.bytes(6 * count) == b"".join(b"%06d" % number for number in range(count))

    run(timed(steps()))


def test_frames_that_wait_count_when_the_client_is_gone() -> None:
    async def steps() -> None:
        async with hall() as where:
            async with connected(where) as client:
                count = 3 * FRAMES
                client.send(*(frame(BINARY, b"x") for _ in range(count)), frame(CLOSE))
                await client.writer.drain()
                client.writer.write_eof()
                await client.reader.read()
            await until(lambda: not where.group.streams, "the end of the stream")
            assert where.group.bytes_in == count

    run(timed(steps()))


def test_a_client_that_does_not_read_is_not_answered_without_end() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as client:
            stream = where.made[0]
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(100):
                stream.write(bytes(50_000))
            assert stream.pending() > 1_000_000
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert await client.bytes(5_000_000) == bytes(5_000_000)
            assert stream.pending() == 0

    run(timed(steps()))


def test_the_peer_has_the_headers_of_the_request() -> None:
    async def steps() -> None:
        async with hall() as where, visit(where) as client:
            await client.open(request(more="X-Fleet: blue\r\n"))
            await until(lambda: where.made[0].transport is not None, "the stream")
            peer = where.made[0].peer
            assert peer.headers == (("host", "127.0.0.1"), ("x-fleet", "blue"))
            assert (peer.address, peer.listener) == ("127.0.0.1", f"ws://127.0.0.1:{where.listener.port}/mqtt")

    run(timed(steps()))


def test_a_refused_request_is_answered_counted_and_closed() -> None:
    async def steps() -> None:
        place = Listen("ws", "127.0.0.1", 0, "/mqtt", origins=("https://a.example",), headers=(HeaderRule("x", "1"),))
        async with hall(place) as where:
            for number, (data, status) in enumerate(
                [
                    (request(), 403),
                    (request(origin="https://b.example"), 403),
                    (request(origin="https://a.example"), 403),
                    (request("/other", origin="https://a.example"), 404),
                    (request(method="POST", more="Content-Length: 100000\r\n") + bytes(100), 400),
                    (b"\x10\x0e\x00\x04MQTT", 400),
                ]
            ):
                async with visit(where) as client:
                    assert (await client.open(data))[0] == status
                    client.send(bytes(1000))
                    await client.reader.read()
                await until(lambda: not where.group.streams, "the end of the connection")
                assert where.listener.status().turned_away == number + 1
            async with visit(where) as client:
                assert (await client.open(request(origin="https://a.example", more="X: 1\r\n")))[0] == 101
            assert where.made[-1].transport is not None or where.made[-1].finishing

    run(timed(steps()))


def test_a_request_has_a_deadline_even_if_its_bytes_keep_coming() -> None:
    async def steps() -> None:
        async with hall(handshake=0.3) as where, visit(where) as client:
            try:
                for byte in request() * 10:
                    client.send(bytes((byte,)))
                    await asyncio.sleep(0.02)
                    if client.reader.at_eof():
                        break
                assert await client.reader.read() == b""
            except (ConnectionError, RuntimeError):  # the second is uvloop's, for a transport that it has closed
                pass
            await until(lambda: not where.group.streams, "the end of the connection")
            assert where.listener.status().turned_away == 1

    run(timed(steps()))


def test_other_rules_are_for_new_connections() -> None:
    async def steps() -> None:
        async with hall() as where, connected(where) as old:
            where.listener.take(Listen("ws", "127.0.0.1", 0, "/mqtt", headers=(HeaderRule("x", "1"),)), None)
            async with visit(where) as client:
                assert (await client.open())[0] == 403
            old.send(frame(BINARY, b"still here"))
            assert await old.bytes(10) == b"still here"

    run(timed(steps()))


def test_a_websocket_over_tls(tmp_path: Path) -> None:
    async def steps() -> None:
        authority = Authority()
        cert, key = authority.issue("server", dns=["localhost"], server=True).write(tmp_path, "server")
        files = TlsFiles((KeyPair(cert, key),))
        trust = create_default_context(cadata=authority.pem().decode())
        trust.set_alpn_protocols(["http/1.1"])
        async with hall(Listen("wss", "127.0.0.1", 0, "/mqtt", tls=files)) as where:
            async with visit(where, trust) as client:
                assert (await client.open())[0] == 101
                session = client.writer.get_extra_info("ssl_object")
                assert session.selected_alpn_protocol() == "http/1.1"
                client.send(frame(BINARY, b"x" * 900), frame(PING))
                assert await read_frame(client.reader) == (PONG, b"")
                assert await client.bytes(900) == b"x" * 900
                tls = where.made[0].peer.tls
                assert tls is not None
                assert tls.version == "TLSv1.3"
                where.made[0].finish()
                assert (await client.end())[0] == 1000
            async with visit(where, trust) as client:
                assert (await client.open(request("/other")))[0] == 404
                assert await client.reader.read() != b""
            await until(lambda: not where.group.streams, "the end of the connection")

    run(timed(steps()))


def test_the_request_of_the_tests_has_the_headers_of_the_rfc() -> None:
    assert set(HEADERS) == {
        "Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
    }  # fmt: skip
