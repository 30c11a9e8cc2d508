"""The HTTP endpoint that Prometheus reads: GET /metrics and nothing else.

It knows as much HTTP/1.1 as that takes. What always holds: one request per connection, of bounded size and within a
bounded time, and only a few connections at once; whoever can reach the port can read the figures, so the port belongs
on an inner address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.telemetry.prometheus import CONTENT_TYPE

log = logging.getLogger("mesh.telemetry")

# A scraper uses one connection, a person with curl another.
MAX_CONNECTIONS: Final = 8
# Prometheus sends some 300 bytes of head.
MAX_HEAD: Final = 8192
# For the whole of a request and its answer; scrapers give up after ten by default.
SECONDS: Final = 5.0

_PLAIN: Final = "text/plain; charset=utf-8"


@final
class Exposition:
    """The endpoint from ``open`` to ``close``."""

    def __init__(self, render: Callable[[], Awaitable[bytes]]) -> None:
        self._render = render
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> int:
        """Listen; the port, which is a free one for 0. ``OSError`` if that cannot be."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            async with asyncio.timeout(SECONDS):
                writer.write(await self._answer(await _head(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            log.debug("a request for the figures broke off: %s", error)
        finally:
            writer.transport.abort()  # does nothing to one that is closed
            self._open.discard(task)

    async def _answer(self, head: bytes | None) -> bytes:
        if head is None:
            return _response("431 Request Header Fields Too Large", f"a request has {MAX_HEAD} bytes at most\n")
        method, target = _request_line(head)
        if not target:
            return _response("400 Bad Request", "this is no HTTP/1.1 request\n")
        if target.partition("?")[0] != "/metrics":
            return _response("404 Not Found", "there is nothing here but /metrics\n")
        if method != "GET":
            return _response("405 Method Not Allowed", "/metrics can only be read\n", "Allow: GET\r\n")
        return _framed("200 OK", CONTENT_TYPE, await self._render())


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """The head of a request, what came of it if the peer broke off, or ``None`` if it is too long."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        return None


def _request_line(head: bytes) -> tuple[str, str]:
    """Method and target, both empty if the head does not begin with a request line (RFC 9112 section 3)."""
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return (parts[0], parts[1]) if len(parts) == 3 and parts[2].startswith("HTTP/1.") else ("", "")


def _response(status: str, text: str, more: str = "") -> bytes:
    return _framed(status, _PLAIN, text.encode(), more)


def _framed(status: str, kind: str, body: bytes, more: str = "") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode() + body
