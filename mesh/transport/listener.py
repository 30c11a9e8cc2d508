"""A listening TCP socket, with a Unix socket beside it for nodes of the same machine.

It knows how many streams it accepted and how many it refused: never what they carry. What always holds: at most
``limit`` streams are open; one more is closed at once and counted (a closed client can try another server, one in the
kernel's queue cannot). Only a ``shared`` listener lets another process of the same user listen on its address: without
that rule a dying predecessor would take half of the connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, cast, final

from mesh.broker.notices import Notices
from mesh.broker.peer import Peer
from mesh.transport.listen import Listen
from mesh.transport.status import ListenerStatus
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.unixsocket import UnixPath, no_unix_path
from mesh.transport.wheel import Timed

SPARE: Final = 256  # connections beyond the limit that are open just long enough to answer their CONNECT

PROBE: Final = 1.0  # seconds

BACKLOG: Final = 4096  # a city's vehicles reconnect at once; the kernel's own limit (somaxconn) still applies

log = logging.getLogger(__name__)


@final
class Refusing(asyncio.Protocol):
    """The protocol of a connection beyond the limit: it closes at once."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


@final
class Probe(Timed):
    """Finds out whether this process can open a file, once in ``PROBE`` seconds. The event loop closes connections that
    it cannot accept for that reason, and tells no one."""

    __slots__ = ("_listener",)

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def expired(self) -> None:
        listener = self._listener
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            listener.starve(error)
        listener.group.wheel.watch(self, PROBE)


@final
class Listener:
    """``factory`` makes the stream of a connection; ``port`` is the one really bound; ``unix_path`` gives the path of
    the Unix socket for it. A TLS handshake has ``handshake`` seconds. ``spare`` connections beyond ``limit`` are
    accepted, so that their streams can answer that the limit is reached."""

    __slots__ = (
        "_factory",
        "_handshake",
        "_notices",
        "_peer",
        "_probe",
        "_server",
        "_unix_path",
        "_unix_server",
        "group",
        "limit",
        "listen",
        "name",
        "port",
        "refused",
        "shared",
        "spare",
        "starved",
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
        unix_path: UnixPath = no_unix_path,
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
        self.starved = 0
        self._probe = Probe(self)
        self._factory = factory
        self._handshake = handshake
        self._peer = Peer(listener=str(listen))  # of a connection that has no transport yet
        self._unix_path = unix_path
        self._server: asyncio.Server | None = None
        self._unix_server: asyncio.Server | None = None
        self._notices = Notices(log.warning, time.monotonic)

    async def start(self) -> None:
        """Listen. Raises ``OSError``, which names the address, if that fails."""
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
        await self._start_unix()
        self.group.wheel.watch(self._probe, PROBE)

    async def _start_unix(self) -> None:
        path = self._unix_path(self.port)
        if not path:
            return
        try:
            self._unix_server = await self.group.loop.create_unix_server(self._accept, path, backlog=BACKLOG)
        except OSError as error:
            log.warning("%s: cannot listen on %s, so nodes of this machine use TCP: %s", self.name, path, error)

    def stop(self) -> None:
        """Stop listening. Open streams stay open; their owner closes them."""
        self.group.wheel.forget(self._probe)
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._unix_server is not None:
            self._unix_server.close()
            self._unix_server = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unix_path(self.port))

    def status(self) -> ListenerStatus:
        """The status, for ``mesh status`` and metrics."""
        return ListenerStatus(str(replace(self.listen, port=self.port)), self.total, self.refused, self.starved)

    def starve(self, error: OSError) -> None:
        """This process can open no file: new connections are refused by the event loop."""
        self.starved += 1
        self._notices.warn("descriptors", "%s: connections are refused: no file can be opened: %s", self.name, error)

    def _accept(self) -> asyncio.BaseProtocol:
        self.total += 1
        if len(self.group.streams) >= self.limit + self.spare:
            self.refused += 1
            self._notices.warn(
                "connection limit", "%s: connection refused: all %d connections are in use", self.name, self.limit
            )
            return Refusing()
        stream = self._factory()
        stream.accept(self._peer)
        return cast(asyncio.BaseProtocol, stream)
