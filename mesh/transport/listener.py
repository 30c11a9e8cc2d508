"""A listening TCP socket.

It knows how many streams it let in and how many it turned away: never what they say. What always holds: at most
``limit`` streams are open; one more is closed at once and counted (a client that is closed can try elsewhere, one that
waits in the kernel's queue cannot). Only a listener that is ``shared`` lets another process of the same user listen on
its address: a dying predecessor must not take half of the connections.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Final, cast, final

from mesh.transport.notices import Notices
from mesh.transport.stream import Home, Stream

BACKLOG: Final = 4096  # a city's vehicles come back at once; the kernel's own limit (somaxconn) still holds

log = logging.getLogger(__name__)


@final
class Refusing(asyncio.Protocol):
    """What a connection beyond the limit gets."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


@final
class Listener:
    """``factory`` makes the stream of a connection; ``port`` is the one really bound (0 asks for a free one)."""

    __slots__ = ("_factory", "_notices", "_server", "home", "host", "limit", "name", "port", "refused", "shared",
    "total")

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        home: Home,
        factory: Callable[[], Stream],
        limit: int,
        *,
        shared: bool = False,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.home = home
        self.limit = limit
        self.shared = shared
        self.total = 0
        self.refused = 0
        self._factory = factory
        self._server: asyncio.Server | None = None
        self._notices = Notices(log)

    async def start(self) -> None:
        """Listen. Raises ``OSError`` with the address in its text when that cannot be had."""
        try:
            self._server = await self.home.loop.create_server(
                self._accept, self.host, self.port, backlog=BACKLOG, reuse_address=True, reuse_port=self.shared
            )
        except OSError as error:
            reason = "in use by another program" if error.errno == errno.EADDRINUSE else str(error)
            raise OSError(error.errno, f"{self.name}: cannot listen on {self.host}:{self.port}: {reason}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Listen no more. Open streams are their owner's business."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _accept(self) -> asyncio.BaseProtocol:
        self.total += 1
        if len(self.home.streams) >= self.limit:
            self.refused += 1
            self._notices.warn(
                "connection limit", "%s: connection refused: all %d connections are in use", self.name, self.limit
            )
            return Refusing()
        return cast(asyncio.BaseProtocol, self._factory())
