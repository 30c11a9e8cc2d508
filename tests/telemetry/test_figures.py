"""The figures, and the endpoint that shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mesh.telemetry import exposition, figures
from mesh.telemetry.exposition import Exposition
from mesh.telemetry.figures import Figures


def test_text_format() -> None:
    shown = Figures({"mesh": "demo"})
    messages = shown.counter("mesh_messages_total", "Messages taken in", {"way": "up"})
    shown.counts("mesh_messages_total", "Messages taken in", lambda: 7, {"way": "down"})
    shown.gauge("mesh_connections", "Connections\nnow \\", lambda: 2.5)
    messages.add()
    messages.add(2)
    assert shown.exposition() == (
        "# HELP mesh_connections Connections\\nnow \\\\\n"
        "# TYPE mesh_connections gauge\n"
        'mesh_connections{mesh="demo"} 2.5\n'
        "# HELP mesh_messages_total Messages taken in\n"
        "# TYPE mesh_messages_total counter\n"
        'mesh_messages_total{mesh="demo",way="up"} 3\n'
        'mesh_messages_total{mesh="demo",way="down"} 7\n'
    )
    assert shown.read() == {
        'mesh_messages_total{way="up"}': 3, 'mesh_messages_total{way="down"}': 7, "mesh_connections": 2.5
    }  # fmt: skip


def test_without_figures_and_without_labels() -> None:
    shown = Figures({})
    assert shown.exposition() == ""
    shown.gauge("mesh_up", "Whether it is up", lambda: float("nan"))
    shown.gauge("mesh_most", "", lambda: float("inf"))
    shown.gauge("mesh_least", "", lambda: float("-inf"))
    assert [line for line in shown.exposition().splitlines() if not line.startswith("#")] == [
        "mesh_least -Inf", "mesh_most +Inf", "mesh_up NaN"
    ]  # fmt: skip


def test_label_values_are_escaped() -> None:
    shown = Figures({})
    shown.gauge("mesh_up", "", lambda: 1, {"edge": 'a"b\\c\nd'})
    assert 'mesh_up{edge="a\\"b\\\\c\\nd"} 1' in shown.exposition()


def test_a_series_can_go() -> None:
    shown = Figures({"mesh": "demo"})
    for edge in ("edge-1", "edge-2"):
        shown.gauge("mesh_link_up", "Whether the link is up", lambda: 1, {"edge": edge})
    shown.remove("mesh_link_up", {"edge": "edge-1"})
    shown.remove("mesh_link_up", {"edge": "edge-1"})
    assert shown.read() == {'mesh_link_up{edge="edge-2"}': 1}
    shown.remove("mesh_link_up", {"edge": "edge-2"})
    assert shown.exposition() == ""
    shown.gauge("mesh_link_up", "Whether the link is up", lambda: 0, {"edge": "edge-1"})
    assert shown.read() == {'mesh_link_up{edge="edge-1"}': 0}


def test_what_cannot_be_shown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Figures({})
    shown.counter("mesh_messages_total", "")
    with pytest.raises(ValueError, match="exists already"):
        shown.counter("mesh_messages_total", "")
    with pytest.raises(ValueError, match="is a counter already"):
        shown.gauge("mesh_messages_total", "", lambda: 1, {"way": "up"})
    with pytest.raises(ValueError, match="ends in _total"):
        shown.counter("mesh_messages", "")
    with pytest.raises(ValueError, match="no name of a figure"):
        shown.gauge("mesh-up", "", lambda: 1)
    with pytest.raises(ValueError, match="no name of a label"):
        shown.gauge("mesh_up", "", lambda: 1, {"__name": "x"})
    monkeypatch.setattr(figures, "MAX_SERIES", 1)
    with pytest.raises(ValueError, match="at most 1 figures"):
        shown.gauge("mesh_up", "", lambda: 1)
    assert shown.read() == {"mesh_messages_total": 0}


def serving(test: Callable[[int], Awaitable[None]], endpoint: Exposition | None = None) -> None:
    async def run() -> None:
        shown = Figures({})
        shown.gauge("mesh_up", "Whether it is up", lambda: 1)
        served = endpoint or Exposition(shown.exposition)
        port = await served.open("127.0.0.1", 0)
        try:
            await asyncio.wait_for(test(port), 20.0)
        finally:
            await served.close()

    asyncio.run(run())


async def ask(port: int, request: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection, by an end or a reset; whether nothing came before."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        (b"GET /metrics?name=x HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\xff\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000, "431 Request Header Fields Too Large"),
    ],
)
def test_answers(request_head: bytes, status: str) -> None:
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


def test_a_peer_that_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "SECONDS", 0.05)

    async def test(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(reader)
        writer.close()
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 200")

    serving(test)


def test_more_connections_than_allowed_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "MAX_CONNECTIONS", 1)

    async def test(port: int) -> None:
        first, first_writer = await asyncio.open_connection("127.0.0.1", port)
        second, second_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await ended(second)
        second_writer.close()
        first_writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert (await first.read()).startswith(b"HTTP/1.1 200")
        first_writer.close()

    serving(test)


def test_closing_ends_what_is_open() -> None:
    async def run() -> None:
        endpoint = Exposition(lambda: "")
        port = await endpoint.open("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0)
        await endpoint.close()
        assert await asyncio.wait_for(ended(reader), 10.0)
        writer.close()

    asyncio.run(run())
