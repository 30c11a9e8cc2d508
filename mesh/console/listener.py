"""The console's listener, from start to stop.

Knows sockets and the application, and nothing of its answers. What always holds: the number of connections is bounded,
and each ends within a bounded time, even if its peer neither reads nor writes; a console that fails costs no message.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Final, cast, final

from aiohttp import web

from mesh.console.api import application
from mesh.console.source import VehicleSource
from mesh.console.status import ConsoleStatus
from mesh.topology.units import Address, is_loopback

if TYPE_CHECKING:
    from mesh.transport.tlsserving import ServingTls

log = logging.getLogger(__name__)

# A browser opens six connections at a time.
MAX_CONNECTIONS: Final = 64
# Seconds for a whole request and its answer; the API's own deadlines are shorter.
SECONDS: Final = 10.0
# Bytes of one line of a request, and of one header.
_LINE: Final = 4096


@final
class Console:
    """One console; ``tls`` if its clients show certificates. ``start`` raises ``OSError`` with one sentence."""

    def __init__(self, source: VehicleSource, address: Address, tls: ServingTls | None = None) -> None:
        self._source = source
        self.address = address
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None
        self._refused = 0
        self._serves = False

    @property
    def listens(self) -> bool:
        """Whether it has its address."""
        return self._server is not None

    @property
    def port(self) -> int:
        """The port, once it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, serve: bool = True) -> None:
        """Listen; without ``serve`` clients are refused until ``serve`` is called. After an error it may be called
        again."""
        self._serves = serve
        host = self.address.host
        if self._runner is None:
            self._runner = web.AppRunner(
                application(self._source, host, self.status), access_log=None, max_line_size=_LINE,
                max_field_size=_LINE, shutdown_timeout=1.0,
            )  # fmt: skip
            await self._runner.setup()
        if self._tls is not None and self._context is None:
            self._context = await self._tls.start()
        self._server = await asyncio.get_running_loop().create_server(
            self._connected, host, self.address.port, ssl=self._context,
            ssl_handshake_timeout=None if self._context is None else SECONDS,
        )  # fmt: skip
        if self._tls is None and not is_loopback(host):
            log.warning("every client that can reach the console at %s can see the mesh", self.address)

    def serve(self) -> None:
        """Answer clients from now on."""
        self._serves = True

    def _connected(self) -> asyncio.Protocol:
        assert self._runner is not None
        server = self._runner.server
        if server is None or not self._serves:
            return _Refusal()
        if len(server.connections) >= MAX_CONNECTIONS:
            self._refused += 1
            return _Refusal()
        handler = server()
        asyncio.get_running_loop().call_later(SECONDS, _end, handler)
        return handler

    async def stop(self, grace: float) -> None:
        """Stop listening, and close all connections within ``grace`` seconds."""
        if self._server is not None:
            self._server.close()
        if self._tls is not None:
            self._tls.stop()
        try:
            async with asyncio.timeout(grace):
                if self._runner is not None:
                    await self._runner.cleanup()
                await self._source.close()
        except TimeoutError:
            log.warning("the console's connections did not close within %.1f s", grace)

    def status(self) -> ConsoleStatus:
        """The figures for ``mesh status`` and the metrics."""
        server = None if self._runner is None else self._runner.server
        connections = 0 if server is None else len(server.connections)
        return ConsoleStatus(connections=connections, open=connections, refused=self._refused)


def _end(handler: web.RequestHandler) -> None:
    """Abort the connection. ``force_close`` would wait until the peer has read the buffered bytes, perhaps for ever."""
    if handler.transport is not None:
        handler.transport.abort()


@final
class _Refusal(asyncio.Protocol):
    """Closes a connection at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: the transports of uvloop are not of asyncio's classes.
        cast(asyncio.Transport, transport).abort()
