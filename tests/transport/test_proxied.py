"""The PROXY protocol at a listener: before MQTT, TLS and WebSocket, from load balancers that are trusted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Coroutine
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from mesh.broker.peer import Peer
from mesh.transport.listen import NONE, REQUIRED, KeyPair, Listen, TlsFiles
from mesh.transport.proxied import trusted
from mesh.wire.proxy import LONGEST
from tests.support.certificates import Authority, put
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.proxyheaders import (
    COMMON_NAME,
    LOCAL,
    PROXY,
    TCP4,
    TCP6,
    UNKNOWN,
    block,
    extension,
    inet,
    inet6,
    tls,
)
from tests.support.waiting import until
from tests.support.websockets import read_answer, request

SECONDS = 10
HERE = (ip_network("127.0.0.1/32"),)
ELSEWHERE = (ip_network("10.0.0.0/8"), ip_network("127.0.0.2/32"), ip_network("::1/128"))
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883\r\n"
BLOCK = block(PROXY, TCP4, inet("192.0.2.7", "198.51.100.1", 50123, 1883))
SIX = block(PROXY, TCP6, inet6("2001:db8::7", "2001:db8::1", 50123, 1883))
SECURED = block(
    PROXY, TCP4, inet("192.0.2.7", "198.51.100.1", 50123, 1883) + tls(b"TLSv1.3", extension(COMMON_NAME, b"VIN-7"))
)


def place(kind: str = "mqtt", proxy: Any = HERE, files: TlsFiles | None = None) -> Listen:
    return Listen(kind, "127.0.0.1", 0, "/mqtt" if kind.startswith("ws") else "", tls=files, proxy=proxy)


def timed(main: Coroutine[Any, Any, None]) -> None:
    async def steps() -> None:
        async with asyncio.timeout(SECONDS):
            await main

    run(steps())


async def came(hall: Hall) -> Peer:
    """The peer of the stream that opened last."""
    await until(lambda: hall.made and hall.made[-1].transport is not None, "a stream")
    return hall.made[-1].peer


@pytest.mark.parametrize(
    ("header", "client"),
    [(LINE, "192.0.2.7:50123"), (BLOCK, "192.0.2.7:50123"), (SIX, "[2001:db8::7]:50123"), (SECURED, "192.0.2.7:50123")],
)
def test_the_peer_is_the_client_and_no_byte_of_it_is_lost(header: bytes, client: str) -> None:
    async def steps() -> None:
        async with Hall(listen=place()) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(header + b"first bytes")
            assert await reader.readexactly(11) == b"first bytes"
            peer = await came(hall)
            assert str(peer) == client
            assert peer.listener == hall.listener.url
            name = peer.tls.common_name if peer.tls is not None else ""
            assert name == ("VIN-7" if header is SECURED else "")
            assert hall.listener.status().turned_away == 0
            writer.close()

    timed(steps())


def test_a_header_may_come_in_single_bytes() -> None:
    async def steps() -> None:
        async with Hall(listen=place()) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in SECURED + b"x":
                writer.write(bytes((byte,)))
                await asyncio.sleep(0)
            assert await reader.readexactly(1) == b"x"
            assert str(await came(hall)) == "192.0.2.7:50123"
            writer.close()

    timed(steps())


def test_a_load_balancer_s_own_connection_is_its_own() -> None:
    async def steps() -> None:
        async with Hall(listen=place()) as hall:
            for header in (block(LOCAL, UNKNOWN, b""), b"PROXY UNKNOWN\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
                writer.write(header + b"x")
                assert await reader.readexactly(1) == b"x"
                own = writer.get_extra_info("sockname")
                peer = await came(hall)
                assert (peer.address, peer.port) == own
                writer.close()

    timed(steps())


@pytest.mark.parametrize(
    ("listen", "sent"),
    [
        (place(), b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab"),
        (place(), b"GET / HTTP/1.1\r\n\r\n"),
        (place(), LINE.replace(b"192.0.2.7", b"192.0.2.777")),
        (place(), BLOCK[:-1].replace(b"\x00\x0c", b"\x00\x0b")),
        (place(), BLOCK[:14] + b"\xff\xff" + bytes(LONGEST)),
        (place(proxy=ELSEWHERE), LINE + b"x"),
        (place(proxy=ELSEWHERE), BLOCK + b"x"),
        (place(proxy=ELSEWHERE), b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02ab"),
    ],
)
def test_another_beginning_or_another_sender_is_turned_away(listen: Listen, sent: bytes) -> None:
    async def steps() -> None:
        async with Hall(listen=listen) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(sent)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await until(lambda: not hall.group.streams, "the end of the connection")
            assert hall.listener.status().turned_away == 1
            assert hall.made[0].transport is None
            writer.close()

    timed(steps())


def test_a_header_has_a_deadline_and_counts_as_a_connection() -> None:
    async def steps() -> None:
        async with Hall(listen=place(), handshake=0.2) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(LINE[:20])
            await until(lambda: hall.group.streams, "the connection")
            assert await reader.read() == b""
            await until(lambda: not hall.group.streams, "the end of the connection")
            assert hall.listener.status().turned_away == 1
            writer.close()

    timed(steps())


def test_a_client_that_closes_within_the_header_is_gone() -> None:
    async def steps() -> None:
        async with Hall(listen=place()) as hall:
            for sent in (b"", LINE[:20], BLOCK[:14]):
                _, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
                writer.write(sent)
                writer.close()
                await writer.wait_closed()
            await until(lambda: hall.listener.status().turned_away == 3, "the ends of the connections")
            assert not hall.group.streams

    timed(steps())


def test_without_proxy_the_bytes_of_a_header_reach_the_stream_as_any() -> None:
    async def steps() -> None:
        async with Hall(listen=place(proxy=())) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(LINE)
            assert await reader.readexactly(len(LINE)) == LINE
            assert (await came(hall)).address == "127.0.0.1"
            writer.close()

    timed(steps())


def test_before_tls_and_the_handshake_is_the_client_s(tmp_path: Path) -> None:
    async def steps() -> None:
        authority = Authority()
        pair = KeyPair(*authority.issue("server", dns=["localhost"], server=True).write(tmp_path, "server"))
        files = TlsFiles((pair,), REQUIRED, put(tmp_path / "ca.pem", authority.pem()))
        cert, key = authority.issue("VIN-8").write(tmp_path, "client")
        context = ssl.create_default_context(cadata=authority.pem().decode())
        context.load_cert_chain(cert, key)
        async with Hall(listen=place("mqtts", files=files)) as hall:
            for header, name in ((BLOCK, "VIN-8"), (SECURED, "VIN-7")):
                reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
                writer.write(header)
                await writer.start_tls(context, server_hostname="localhost")
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                peer = await came(hall)
                assert peer.address == "192.0.2.7"
                assert peer.tls is not None
                # TLS that ends at the load balancer is the client's; what follows is the load balancer's own.
                assert peer.tls.common_name == name
                writer.transport.abort()
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await writer.start_tls(context, server_hostname="localhost")
            assert hall.listener.status().turned_away == 1

    timed(steps())


def test_before_a_websocket(tmp_path: Path) -> None:
    async def steps() -> None:
        authority = Authority()
        pair = KeyPair(*authority.issue("server", dns=["localhost"], server=True).write(tmp_path, "server"))
        context = ssl.create_default_context(cadata=authority.pem().decode())
        for kind, files in (("ws", None), ("wss", TlsFiles((pair,), NONE))):
            async with Hall(listen=place(kind, files=files)) as hall:
                reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
                writer.write(SIX)
                if files is not None:
                    await writer.start_tls(context, server_hostname="localhost")
                writer.write(request(more="X-Forwarded-For: 203.0.113.9\r\n"))
                assert (await read_answer(reader))[0] == 101
                peer = await came(hall)
                assert (peer.address, peer.port) == ("2001:db8::7", 50123)
                assert ("x-forwarded-for", "203.0.113.9") in peer.headers
                writer.transport.abort()

    timed(steps())


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True), ("127.0.0.2", False), ("10.1.2.3", True), ("11.0.0.1", False), ("::1", True),
        ("::2", False), ("", False), ("/run/door.sock", False),
    ],
)  # fmt: skip
def test_load_balancers_are_trusted_by_their_network(address: str, expected: bool) -> None:
    networks = (ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert trusted(networks, Peer(address)) is expected
