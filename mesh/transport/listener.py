"""A listening TCP socket, with a Unix socket beside it for nodes of the same machine.

It knows how many streams it let in and how many it turned away: never what they say. What always holds: at most
``limit`` streams are open; one more is closed at once and counted (a client that is closed can try elsewhere, one that
waits in the kernel's queue cannot). Only a listener that is ``shared`` lets another process of the same user listen on
its address: a dying predecessor must not take half of the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final, cast, final

from mesh.transport.listen import Listen
from mesh.transport.near import Near, nowhere
from mesh.transport.notices import Notices
from mesh.transport.status import ListenerStatus
from mesh.transport.stream import Stream, StreamGroup

SPARE: Final = 256  # of clients that are told that there is no room, for as long as a CONNECT takes

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
    """``factory`` makes the stream of a connection; ``port`` is the one really bound; ``near`` gives the path of the
    Unix socket for it. A TLS handshake has ``handshake`` seconds. ``spare`` connections beyond ``limit`` are accepted,
    so that their streams can tell them that there is no room."""

    __slots__ = (
        "_factory",
        "_handshake",
        "_label",
        "_near",
        "_near_server",
        "_notices",
        "_server",
        "group",
        "limit",
        "listen",
        "name",
        "port",
        "refused",
        "shared",
        "spare",
        "total",
    )

    def __init__(
        self,
        name: str,
        listen: Listen,
        group: StreamGroup,
        factory: Callable[[], Stream],
        limit: int,
        *,
        shared: bool = False,
        near: Near = nowhere,
        spare: int = 0,
        handshake: float = 10.0,
    ) -> None:
        self.name = name
        self.listen = listen
        self.port = listen.port
        self.group = group
        self.limit = limit
        self.shared = shared
        self.spare = spare
        self.total = 0
        self.refused = 0
        self._factory = factory
        self._handshake = handshake
        self._label = str(listen)
        self._near = near
        self._server: asyncio.Server | None = None
        self._near_server: asyncio.Server | None = None
        self._notices = Notices(log)

    async def start(self) -> None:
        """Listen. Raises ``OSError`` with the address in its text when that cannot be had."""
        listen = self.listen
        try:
            self._server = await self.group.loop.create_server(
                self._accept, listen.host, self.port, backlog=BACKLOG, reuse_address=True, reuse_port=self.shared,
                ssl=listen.tls, ssl_handshake_timeout=self._handshake if listen.tls is not None else None,
            )  # fmt: skip
        except OSError as error:
            reason = "in use by another program" if error.errno == errno.EADDRINUSE else str(error)
            raise OSError(error.errno, f"{self.name}: cannot listen on {listen.host}:{self.port}: {reason}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        await self._start_near()

    async def _start_near(self) -> None:
        path = self._near(self.port)
        if not path:
            return
        try:
            self._near_server = await self.group.loop.create_unix_server(self._accept, path, backlog=BACKLOG)
        except OSError as error:
            log.warning("%s: cannot listen on %s, so nodes of this machine use TCP, too: %s", self.name, path, error)

    def stop(self) -> None:
        """Listen no more. Open streams are their owner's business."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._near_server is not None:
            self._near_server.close()
            self._near_server = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._near(self.port))

    def status(self) -> ListenerStatus:
        """Figures for people and metrics."""
        return ListenerStatus(str(replace(self.listen, port=self.port)), self.total, self.refused)

    def _accept(self) -> asyncio.BaseProtocol:
        self.total += 1
        if len(self.group.streams) >= self.limit + self.spare:
            self.refused += 1
            self._notices.warn(
                "connection limit", "%s: connection refused: all %d connections are in use", self.name, self.limit
            )
            return Refusing()
        stream = self._factory()
        stream.accept(self._label)
        return cast(asyncio.BaseProtocol, stream)
