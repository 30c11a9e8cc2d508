"""The HTTP endpoint that Prometheus reads: GET /metrics and nothing else.

It knows the part of HTTP/1.1 that this needs. What always holds: one request per connection, of bounded size and in
bounded time, and only a few connections at once; no answer to a request for another host. There is no login: any client
that reaches the port can read the metrics, so the port belongs on an internal address.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.telemetry.prometheus import CONTENT_TYPE

log = logging.getLogger("mesh.telemetry")

# A scraper uses one connection, a person with curl another.
MAX_CONNECTIONS: Final = 8
# The head of a request from Prometheus has some 300 bytes.
MAX_HEAD: Final = 8192
# For a whole request and its answer; scrapers time out after ten by default.
SECONDS: Final = 5.0

_PLAIN: Final = "text/plain; charset=utf-8"


@final
class Exposition:
    """The endpoint from ``open`` to ``close``."""

    def __init__(self, render: Callable[[], Awaitable[bytes]], is_own: Callable[[str], bool]) -> None:
        """``is_own``: whether a Host header names this endpoint; a request for another host is refused."""
        self._render = render
        self._is_own = is_own
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int, context: ssl.SSLContext | None = None) -> int:
        """Listen; return the port, which the system chooses for 0. Raises ``OSError``."""
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=MAX_HEAD, ssl=context,
            ssl_handshake_timeout=None if context is None else SECONDS,
        )  # fmt: skip
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self, grace: float = 0.0) -> None:
        """Stop listening; open connections end within ``grace`` seconds."""
        if self._server is not None:
            self._server.close()
        if self._open and grace:
            await asyncio.wait(self._open, timeout=grace)
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
            log.debug("a request for the metrics failed: %s", error)
        finally:
            writer.transport.abort()  # no effect on a closed connection
            self._open.discard(task)

    async def _answer(self, head: bytes | None) -> bytes:
        if head is None:
            return _response(
                "431 Request Header Fields Too Large", f"the head of a request must have at most {MAX_HEAD} bytes\n"
            )
        method, target = _request_line(head)
        if not target:
            return _response("400 Bad Request", "this is not an HTTP/1.1 request\n")
        hosts = _hosts(head)
        if len(hosts) != 1:  # RFC 9112 section 3.2
            return _response("400 Bad Request", f"a request has one Host header, and this one has {len(hosts)}\n")
        if not self._is_own(hosts[0]):
            sentence = "these metrics answer requests to localhost and loopback addresses only\n"
            return _response("421 Misdirected Request", sentence)
        if target.partition("?")[0] != "/metrics":
            return _response("404 Not Found", "the only path is /metrics\n")
        if method != "GET":
            return _response("405 Method Not Allowed", "the only method for /metrics is GET\n", "Allow: GET\r\n")
        return _framed("200 OK", CONTENT_TYPE, await self._render())


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """The head of a request; incomplete if the peer closed the connection, ``None`` if it is too long."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        return None


def _request_line(head: bytes) -> tuple[str, str]:
    """Method and target; both empty if the head does not begin with a request line (RFC 9112 section 3)."""
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return (parts[0], parts[1]) if len(parts) == 3 and parts[2].startswith("HTTP/1.") else ("", "")


def _hosts(head: bytes) -> list[str]:
    """The values of all Host headers of a request."""
    fields = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return [value.strip() for name, _, value in fields if name.lower() == "host"]


def _response(status: str, text: str, more: str = "") -> bytes:
    return _framed(status, _PLAIN, text.encode(), more)


def _framed(status: str, kind: str, body: bytes, more: str = "") -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close")
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode() + body
