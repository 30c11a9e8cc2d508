"""A listening TCP socket, with a Unix socket beside it for nodes of the same machine.

The event loop accepts at it; at a listener with TLS, PROXY protocol or WebSocket ``accept`` does, in stages.

It knows how many streams it accepted and how many it refused: never what they carry. What always holds: at most
``limit`` streams are open; one more is closed at once and counted (a closed client can try another server, one in the
kernel's queue cannot). Only a ``shared`` listener lets another process of the same user listen on its address: without
that rule a dying predecessor would take half of the connections. Between ``bind`` and ``serve`` the address is taken,
and the kernel refuses its clients. Other settings of the same address (``prepare``) are for new connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, cast, final

from mesh.broker.notices import Notices
from mesh.broker.peer import Peer
from mesh.transport.accept import Accepting, Arrive, Figures, Gate, Upper, anyone
from mesh.transport.listen import Listen
from mesh.transport.pace import Pace
from mesh.transport.status import ListenerStatus
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.unixsocket import UnixPath, no_unix_path
from mesh.transport.wheel import Timed
from mesh.wire.limits import PacketLimits

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
    the Unix socket for it. ``pace``: of its handshakes, shared by listeners; each connection has ``handshake`` seconds
    for it. ``spare`` connections beyond ``limit`` are accepted, so that their streams can answer that the limit is
    reached. ``limits`` bound the frames of WebSockets. ``arrive`` is asked before a handshake or an upgrade."""

    __slots__ = (
        "_accepting",
        "_arrive",
        "_factory",
        "_figures",
        "_limits",
        "_notices",
        "_pace",
        "_peer",
        "_probe",
        "_servers",
        "_tls",
        "_unix_path",
        "_unix_server",
        "group",
        "handshake",
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
        pace: Pace | None = None,
        limits: PacketLimits | None = None,
        arrive: Arrive = anyone,
    ) -> None:
        self.name = name
        self.listen = listen
        self.port = listen.port
        self.group = group
        self.limit = limit
        self.shared = shared
        self.spare = spare
        self.handshake = handshake
        self.total = 0
        self.refused = 0
        self.starved = 0
        self._probe = Probe(self)
        self._factory = factory
        self._pace = pace or Pace(group.loop)
        self._limits = limits or PacketLimits()
        self._arrive = arrive
        self._tls: Gate | None = None
        self._figures = Figures()
        self._peer = Peer()  # of a connection that has no transport yet
        self._unix_path = unix_path
        # One for each address that the host has, with the socket, which the server closes.
        self._servers: list[tuple[asyncio.Server, socket.socket]] = []
        self._accepting: list[tuple[Accepting, socket.socket]] = []
        self._unix_server: asyncio.Server | None = None
        self._notices = Notices(log.warning, time.monotonic)

    async def start(self) -> None:
        """Listen. Raises ``OSError``, which names the address, if that fails."""
        await self.bind()
        try:
            self.serve()
        except OSError:
            self.stop()
            raise

    async def bind(self) -> None:
        """Take the address, read the certificates, and accept no connection yet. Raises ``OSError``, which names the
        address or the file."""
        self._tls = await self.secure(self.listen)
        bound: list[socket.socket] = []
        try:
            for family, address in await self._addresses():
                bound.append(_bound(family, address, self.shared))
            self.port = bound[0].getsockname()[1]
            while bound and self.listen.staged:
                self._accepting.append((self._stages(bound[-1]), bound.pop()))
            while bound:
                server = await self.group.loop.create_server(
                    self._accept, sock=bound[-1], backlog=BACKLOG, start_serving=False
                )
                self._servers.append((server, bound.pop()))
        except OSError as error:
            self.stop()
            raise self._named(error) from error
        except BaseException:
            self.stop()
            raise
        finally:
            for left in bound:
                left.close()
        self._peer = Peer(listener=self.url)
        await self._bind_unix()

    async def secure(self, listen: Listen) -> Gate | None:
        """Read the files that other settings of this listener name. Raises ``OSError``, which names the file."""
        if listen.tls is None:
            return None
        await asyncio.to_thread(_load_tls)
        from mesh.transport.tlsfiles import WatchedTls

        protocol = "http/1.1" if listen.kind == "wss" else "mqtt"
        gate = WatchedTls(str(listen), listen.tls, protocol, self._streams, self._figures)
        await gate.read()
        return gate

    def _streams(self) -> Iterator[Stream]:
        """The open connections of this listener."""
        url = self.url
        return (stream for stream in self.group.streams if stream.peer.listener == url)

    def take(self, listen: Listen, tls: Gate | None) -> None:
        """Other settings from now on, for new connections; ``tls`` is what ``secure`` returned for them."""
        before, self._tls, self.listen = self._tls, tls, listen
        upper = self._upper()
        for accepting, _ in self._accepting:
            accepting.gate = tls
            accepting.proxy = listen.proxy
            accepting.upper = upper
        if listen.staged:
            self._restage()
        if before is not None:
            before.stop()
        if tls is not None:
            tls.start()

    def _restage(self) -> None:
        """Connections go through stages from now on, also where the event loop has accepted them so far."""
        servers, self._servers = self._servers, []
        for server, bound in servers:
            same = bound.dup()  # the queue of connections stays; the server closes its own
            server.close()
            self._accepting.append((self._stages(same), same))
            self._accepting[-1][0].start()

    def allow(self, limit: int, handshake: float) -> None:
        """Other limits from now on; of more connections none is closed."""
        self.limit = limit
        self.handshake = handshake
        for accepting, _ in self._accepting:
            accepting.seconds = handshake

    def _stages(self, bound: socket.socket) -> Accepting:
        return Accepting(
            self.group.loop, self.name, bound, self._new, self.starve, self._pace, self.handshake, self._tls,
            self._figures, self.listen.proxy, self._upper(), self._arrive,
        )  # fmt: skip

    def _upper(self) -> Upper | None:
        """What is between TLS and streams."""
        if self.listen.kind not in ("ws", "wss"):
            return None
        from mesh.transport.websocket import WebSockets  # its libraries take memory that most nodes need not have

        return WebSockets(self.group.loop, self.listen, self._limits)

    async def _addresses(self) -> list[tuple[int, tuple[object, ...]]]:
        """The families and addresses of the host, which may be a name. Raises ``OSError``."""
        found = await self.group.loop.getaddrinfo(
            self.listen.host, self.listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        return list(dict.fromkeys((family, address) for family, _, _, _, address in found))

    async def _bind_unix(self) -> None:
        path = self._unix_path(self.port)
        if not path:
            return
        try:
            self._unix_server = await self.group.loop.create_unix_server(
                self._accept, path, backlog=BACKLOG, start_serving=False
            )
        except OSError as error:
            log.warning("%s: cannot listen on %s, so nodes of this machine use TCP: %s", self.name, path, error)

    def serve(self) -> None:
        """Accept connections from now on. Raises ``OSError``, which names the address: between ``bind`` and this call
        another program may have listened there."""
        try:
            for server, bound in self._servers:
                bound.listen(BACKLOG)  # the event loop does it again, and does not say that it failed
                _serve(server)
            for accepting, bound in self._accepting:
                bound.listen(BACKLOG)
                accepting.start()
            if self._unix_server is not None:
                _serve(self._unix_server)
        except OSError as error:
            raise self._named(error) from error
        if self._tls is not None:
            self._tls.start()
        self.group.wheel.watch(self._probe, PROBE)

    def _named(self, error: OSError) -> OSError:
        in_use = error.errno == errno.EADDRINUSE
        reason = "in use by another program" if in_use else error.strerror or str(error)
        return OSError(error.errno, f"{self.name}: cannot listen on {self.listen.host}:{self.port}: {reason}")

    def stop(self) -> None:
        """Stop listening. Open streams stay open; their owner closes them."""
        self.group.wheel.forget(self._probe)
        servers, self._servers = self._servers, []
        for server, _ in servers:
            server.close()
        ways, self._accepting = self._accepting, []
        for accepting, _ in ways:
            accepting.stop()
        if self._tls is not None:
            self._tls.stop()
        if self._unix_server is not None:
            self._unix_server.close()
            self._unix_server = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._unix_path(self.port))

    @property
    def url(self) -> str:
        """The name of the listener, with the port that is really bound; ``Peer.listener`` of its connections."""
        return str(replace(self.listen, port=self.port))

    def status(self) -> ListenerStatus:
        """The status, for ``mesh status`` and metrics."""
        tls = self._tls
        return ListenerStatus(
            self.url, self.total, self.refused, self.starved, self._figures.turned_away,
            None if tls is None else tls.status(),
        )  # fmt: skip

    def detail(self) -> str:
        """What is wrong with its certificates, or will be soon, in one sentence; else empty."""
        return "" if self._tls is None else self._tls.detail()

    def starve(self, error: OSError) -> None:
        """This process can open no file: new connections are refused by the event loop."""
        self.starved += 1
        self._notices.warn("descriptors", "%s: connections are refused: no file can be opened: %s", self.name, error)

    def _accept(self) -> asyncio.BaseProtocol:
        stream = self._new()
        return Refusing() if stream is None else cast(asyncio.BaseProtocol, stream)

    def _new(self) -> Stream | None:
        """The stream of a connection that has come; ``None`` if there is no room for it."""
        self.total += 1
        if len(self.group.streams) >= self.limit + self.spare:
            self.refused += 1
            self._notices.warn(
                "connection limit", "%s: connection refused: all %d connections are in use", self.name, self.limit
            )
            return None
        stream = self._factory()
        stream.accept(self._peer)
        return stream


def _load_tls() -> None:
    """Load what listeners with TLS need. It takes 10 MB and a tenth of a second: most nodes have none, and those that
    get one while they serve must not stand still."""
    import mesh.transport.tlsfiles  # noqa: F401


def _bound(family: int, address: tuple[object, ...], shared: bool) -> socket.socket:
    """A socket with this address that does not listen yet. The event loop would report an address in use only when it
    listens. Raises ``OSError``."""
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def _serve(server: asyncio.Server) -> None:
    """``server.start_serving``, which listens before it waits for the first time, in this turn of the loop."""
    starting = server.start_serving()
    with contextlib.suppress(StopIteration), contextlib.closing(starting):
        starting.send(None)
