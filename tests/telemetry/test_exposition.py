"""The HTTP endpoint of the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mesh.telemetry import exposition
from mesh.telemetry.exposition import Exposition
from tests.support.exchange import exchange


async def shown() -> bytes:
    return b"mesh_up 1\n"


def is_own(host: str) -> bool:
    return host == "x"


def serving(test: Callable[[int], Awaitable[None]], endpoint: Exposition | None = None) -> None:
    async def run() -> None:
        served = endpoint or Exposition(shown, is_own)
        port = await served.open("127.0.0.1", 0)
        try:
            await asyncio.wait_for(test(port), 20.0)
        finally:
            await served.close()

    asyncio.run(run())


async def ask(port: int, request: bytes) -> str:
    return (await exchange(port, request)).decode()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait until the peer closes or resets the connection; return whether it sent nothing before."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        (b"GET /metrics?name=x HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        (b"GET /metrics HTTP/1.1\r\nAccept: */*\r\nhOST:x \r\n\r\n", "200 OK"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421 Misdirected Request"),
        (b"GET /metrics HTTP/1.1\r\nHost: x.evil.example:9464\r\n\r\n", "421 Misdirected Request"),
        (b"GET /metrics HTTP/1.1\r\nX-Host: x\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nHost: evil.example\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\xff\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000, "431 Request Header Fields Too Large"),
    ],
)
def test_request_gets_its_status(request_head: bytes, status: str) -> None:
    async def test(port: int) -> None:
        answer = await ask(port, request_head)
        assert answer.startswith(f"HTTP/1.1 {status}\r\n")
        head, _, body = answer.partition("\r\n\r\n")
        assert f"Content-Length: {len(body)}" in head
        assert "Connection: close" in head
        if status == "200 OK":
            assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
            assert "mesh_up 1\n" in body

    serving(test)


def test_silent_peer_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "SECONDS", 0.05)

    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader)
        writer.close()
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).startswith("HTTP/1.1 200")

    serving(test)


def test_connections_above_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "MAX_CONNECTIONS", 1)

    async def test(port: int) -> None:
        first, first_writer = await asyncio.open_connection("127.0.0.1", port)
        second, second_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(second)
        second_writer.close()
        first_writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await first.read()).startswith(b"HTTP/1.1 200")
        first_writer.close()

    serving(test)


def test_close_ends_open_connections() -> None:
    async def run() -> None:
        endpoint = Exposition(shown, is_own)
        port = await endpoint.open("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0)
        await endpoint.close()
        assert await asyncio.wait_for(ended(reader), 10.0)
        writer.close()

    asyncio.run(run())
