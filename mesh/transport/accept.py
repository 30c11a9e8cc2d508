"""Accepts connections that go through more than their socket before their stream has them: TLS first of all.

It knows sockets, stages and deadlines: never what streams carry, and no certificate. An ``Arrival`` is one accepted
connection on its way; these are the stages, in their order:

    socket -> [PROXY] -> [TLS] -> [WebSocket] -> Stream

``Arrival.run`` goes through them up to TLS while it still has the socket; ``Arrival.connection_made`` has the transport
then, and passes it on to the stream or to the stage above (``Upper``). What always holds:

* an arrival counts as a connection of its stream's group from the beginning, and has ``seconds`` until its stream has
  the transport; whatever ends it earlier closes the socket;
* at a listener with the PROXY protocol a connection begins with its header and comes from a network that is trusted;
* a client that may not come from where it comes from (``Arrive``) costs no handshake and no upgrade;
* each arrival has a task, which is owned; ``stop`` cancels it;
* a handshake takes processor time, so it starts only when the client's first bytes are there and ``Pace`` lets it: all
  connected clients are served between two that start, and networks take turns;
* while many wait, no further connection is accepted; but if most of them are of one network, and clients of others come
  too, these are accepted, and more of that network are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable
from itertools import islice
from typing import Final, cast, final

from mesh.broker.notices import Notices
from mesh.broker.peer import Peer, TlsFacts
from mesh.transport.origin import network_of
from mesh.transport.plaintext import attach
from mesh.transport.proxied import Networks, client_of, read_header, trusted
from mesh.transport.rates import Rates
from mesh.transport.refusal import Refused
from mesh.transport.rounds import Rounds
from mesh.transport.status import TlsStatus
from mesh.transport.stream import Stream
from mesh.wire.proxy import ProxyError

BATCH: Final = 16  # connections that are accepted in one turn
WAITING: Final = 1024  # arrivals that wait for their handshake; beyond that see ``Accepting._ready``
PENDING: Final = 1024  # handshakes that have begun and not ended
ENDED: Final = 8  # handshakes that give way in one turn
OLD: Final = 1.0  # seconds after which a handshake gives way to others: usual ones take a few round trips
SHARE: Final = 0.25  # of the time that passes, for handshakes that start
LONGEST: Final = 0.002  # seconds of handshakes that start in one turn
_LATER: Final = 0.05  # seconds until it is looked again whether one may start
MIXED: Final = 60.0  # seconds after the last client of another network in which such clients are expected
STARVED: Final = 1.0  # seconds until accept is tried again when no file can be opened

log = logging.getLogger(__name__)


Arrive = Callable[[Peer], None]
"""A connection begins, of which only the peer is known. Raises ``Refused`` if no client may come from there."""


def anyone(peer: Peer) -> None:
    """The ``Arrive`` of a listener that refuses no one at once."""


class Refusal(Exception):
    """A stage refuses the connection; the text is for the log."""


@final
class Pace:
    """When handshakes start, for all listeners of one kind of a node. In one turn they may take ``SHARE`` of the time
    since the turn before; at least one starts; the networks of clients take turns. When too many are pending, those
    that take long give way."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, rates: Rates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``rates`` bounds how often clients may begin one."""
        self.rates = rates or Rates()
        self._loop = loop
        self._clock = clock
        self._waiting: Rounds[tuple[asyncio.Future[None], float]] = Rounds()
        self._pending: dict[Arrival, float] = {}  # when each began, the oldest first
        self._timer: asyncio.Handle | None = None
        self._before = 0.0
        self._network = ""  # of the last client
        self._mixed = -MIXED  # when a client's network was another one than that of the client before

    @property
    def full(self) -> bool:
        """Whether so many wait that no further connection is to be accepted."""
        return len(self._waiting) >= WAITING

    @property
    def calm(self) -> bool:
        """Whether connections may be accepted again."""
        return len(self._waiting) <= WAITING // 2

    @property
    def one_sided(self) -> bool:
        """Whether most of those that wait are of one network, and clients come from others too. If all have one, as
        behind a load balancer, none is kept from waiting by others."""
        return self._clock() - self._mixed < MIXED and 2 * self._waiting.most() > len(self._waiting)

    def dominated(self, address: str) -> bool:
        """Whether most of those that wait are of the network of this address."""
        return 2 * self._waiting.of(network_of(address)) > len(self._waiting)

    async def turn(self, arrival: Arrival, address: str, cost: float) -> None:
        """Wait until the handshake of a client with this address may start, which takes ``cost`` seconds of processor
        time. Call ``over`` after it, whether or not this call has returned."""
        waiter, network = self._loop.create_future(), network_of(address)
        if network != self._network:
            self._mixed = self._clock() if self._network else self._mixed
            self._network = network
        self._waiting.add(network, (waiter, cost))
        if self._timer is None:
            self._timer = self._loop.call_soon(self._run)
        await waiter
        self._pending[arrival] = self._clock()

    def over(self, arrival: Arrival) -> None:
        """The handshake has ended."""
        self._pending.pop(arrival, None)

    def _run(self) -> None:
        self._timer = None
        now = self._clock()
        budget = min(SHARE * (now - self._before), LONGEST)
        self._before = now
        room = PENDING - len(self._pending)
        started = 0
        while self._waiting and started < max(room, 0):
            waiter, cost = self._waiting.next()
            if not waiter.done():  # done: its arrival has ended
                if started and cost > budget:
                    break
                waiter.set_result(None)
                started += 1
                budget -= cost
            self._waiting.take()
        if self._waiting:
            if room > 0 or self._give_way(now):
                self._timer = self._loop.call_soon(self._run)
            else:
                self._timer = self._loop.call_later(_LATER, self._run)

    def _give_way(self, now: float) -> bool:
        """End the oldest handshakes, if they are old: as many as wait, and few in one turn. Returns whether some
        ended."""
        most = min(len(self._waiting), ENDED)
        old = [arrival for arrival, began in islice(self._pending.items(), most) if now - began >= OLD]
        for arrival in old:
            self.over(arrival)
            arrival.give_way()
        return bool(old)


class Gate:
    """What a listener asks of a TLS connection; ``context`` and ``cost`` are those of the next one. ``start`` and
    ``stop`` begin and end what it does beside handshakes."""

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    @property
    def context(self) -> ssl.SSLContext:
        raise NotImplementedError

    @property
    def cost(self) -> float:
        """Seconds of processor time of one handshake."""
        raise NotImplementedError

    def admit(self, session: ssl.SSLObject) -> TlsFacts:
        """The facts of a handshake that has succeeded. Raises ``Refusal`` for a certificate that is not accepted."""
        raise NotImplementedError

    def status(self) -> TlsStatus:
        """The status, for ``mesh status`` and metrics."""
        raise NotImplementedError

    def detail(self) -> str:
        """What is wrong, or will be soon, in one sentence; else empty."""
        raise NotImplementedError


class Upper:
    """The stage between a transport and its stream."""

    def begin(self, transport: asyncio.Transport, stream: Stream) -> asyncio.Future[None]:
        """Take ``transport``. The result is set when the stream has its transport, or is a ``Refusal``."""
        raise NotImplementedError


@final
class Figures:
    """Of one listener. TLS handshakes: begun, done of a new session, resumed, failed. ``turned_away``: connections that
    ended before their stream had them, in whichever stage."""

    __slots__ = ("begun", "done", "failed", "resumed", "turned_away")

    def __init__(self) -> None:
        self.begun = 0
        self.done = 0
        self.failed = 0
        self.resumed = 0
        self.turned_away = 0


@final
class Arrival(asyncio.Protocol):
    """One accepted connection until its stream has it."""

    def __init__(self, door: Accepting, sock: socket.socket, stream: Stream) -> None:
        self._door = door
        self._socket: socket.socket | None = sock
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] | None = None
        self._refusal = ""
        self._slow = False
        self.secured = False
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Go through all stages."""
        door, tls = self._door, self._door.gate
        try:
            async with asyncio.timeout(door.seconds):
                if door.proxy:
                    await self._introduced(door.proxy)
                if tls is not None or door.upper is not None:  # else CONNECT costs little, and its client is answered
                    door.arrive(self._stream.peer)
                if tls is None:
                    await self._connect(None)
                else:
                    await self._shake_hands(tls)
                if self._refusal:
                    raise Refusal(self._refusal)
                if self._opened is not None:
                    await self._opened
        except TimeoutError:
            self._failed("deadline", f"not ready within {door.seconds:g} s")
        except asyncio.CancelledError:
            if not self._slow:
                raise
            self._failed("slow", "its handshake took long while others waited")
        except Refused as refused:  # its handshake was not to begin, so it has not failed
            door.turn_away("refused", self._stream, str(refused))
        except (Refusal, ProxyError) as refused:
            self._failed("refused", str(refused))
        except ssl.SSLError as error:
            self._failed("handshake", _reason(error))
        except OSError as error:
            self._failed("handshake", error.strerror or str(error))
        finally:
            if self._socket is not None:
                self._socket.close()
            if self._stream.transport is None:
                self._stream.abandon = None
                self._stream.finish()
                if self._transport is not None:
                    self._transport.abort()

    def _failed(self, subject: str, why: str) -> None:
        if self._door.gate is not None and not self.secured:
            self._door.figures.failed += 1
        self._door.turn_away(subject, self._stream, why)

    async def _introduced(self, networks: Networks) -> None:
        """Let the load balancer name its client."""
        sock, stream = self._socket, self._stream
        assert sock is not None
        if not trusted(networks, stream.peer):
            raise Refusal("its address is not among the listener's networks of load balancers (proxy)")
        stream.peer = client_of(await read_header(sock, self._readable), stream.peer)

    async def _shake_hands(self, tls: Gate) -> None:
        door = self._door
        door.pace.rates.check(self._stream.peer.address)
        await self._readable()
        try:
            await door.pace.turn(self, self._stream.peer.address, tls.cost)
            door.figures.begun += 1
            await self._connect(tls.context)
        finally:
            door.pace.over(self)

    async def _readable(self) -> None:
        """Wait for the client's first bytes: a client that sends none must cost no handshake."""
        sock, loop = self._socket, self._door.loop
        assert sock is not None
        with contextlib.suppress(BlockingIOError):
            sock.recv(1, socket.MSG_PEEK)
            return
        came = loop.create_future()
        loop.add_reader(sock.fileno(), _done, came)
        try:
            await came
        finally:
            loop.remove_reader(sock.fileno())

    async def _connect(self, context: ssl.SSLContext | None) -> None:
        """Give the socket to the loop, which owns it from now on."""
        sock, self._socket = self._socket, None
        assert sock is not None
        await self._door.loop.connect_accepted_socket(
            lambda: self, sock, ssl=context,
            ssl_handshake_timeout=None if context is None else self._door.seconds,
        )  # fmt: skip

    def give_way(self) -> None:
        """End the handshake for others that wait."""
        if self.task is not None:
            self._slow = True
            self.task.cancel()

    def abandon(self) -> None:
        """The stream has ended before it had the transport."""
        if self.task is not None:
            self.task.cancel()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake has succeeded."""
        ready = self._transport = cast(asyncio.Transport, transport)
        facts: TlsFacts | None = None
        if self._door.gate is not None:
            try:
                facts = self._admitted(self._door.gate, ready.get_extra_info("ssl_object"))
            except Refusal as refused:
                self._refusal = str(refused)
                ready.abort()
                return
        stream, known = self._stream, self._stream.peer
        # If a load balancer has said what its client's TLS is, ours is that of the load balancer.
        stream.peer = Peer(known.address, known.port, known.listener, known.tls or facts)
        if self._door.upper is not None:
            self._opened = self._door.upper.begin(ready, stream)
            return
        attach(ready, stream)
        stream.connection_made(ready)

    def _admitted(self, tls: Gate, session: ssl.SSLObject) -> TlsFacts:
        facts = tls.admit(session)
        self.secured = True
        figures = self._door.figures
        if facts.resumed:
            figures.resumed += 1
        else:
            figures.done += 1
        return facts


@final
class Accepting:
    """Accepts at one listening socket, which it owns. ``accept`` makes the stream of a new connection, which counts
    from then on; ``None`` if there is no room. ``gate`` is ``None`` without TLS, ``upper`` without WebSocket;
    ``proxy``: the networks of load balancers, empty without the PROXY protocol. ``starve`` is told when no file can be
    opened. ``arrive`` is asked before a handshake or an upgrade."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        listening: socket.socket,
        accept: Callable[[], Stream | None],
        starve: Callable[[OSError], None],
        pace: Pace,
        seconds: float,
        gate: Gate | None,
        figures: Figures,
        proxy: Networks = (),
        upper: Upper | None = None,
        arrive: Arrive = anyone,
    ) -> None:
        self.loop = loop
        self.pace = pace
        self.seconds = seconds
        self.gate = gate
        self.figures = figures
        self.proxy = proxy
        self.upper = upper
        self.arrive = arrive
        self._name = name
        self._socket = listening
        self._accept = accept
        self._starve = starve
        self._arrivals: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._notices = Notices(log.warning, time.monotonic)
        listening.setblocking(False)

    def start(self) -> None:
        """Accept from now on; the socket listens."""
        self.loop.add_reader(self._socket.fileno(), self._ready)

    def stop(self) -> None:
        """Close the listening socket, and all arrivals."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket.fileno() >= 0:
            self.loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for task in self._arrivals:
            task.cancel()

    def turn_away(self, subject: str, stream: Stream, why: str) -> None:
        """An arrival ended before its stream had it."""
        self.figures.turned_away += 1
        self._notices.warn(subject, "%s: connection of %s closed: %s", self._name, stream.peer, why)

    def _ready(self) -> None:
        """Accept, unless too many wait for their handshake. If most of these are of one network, others need not wait
        in the kernel's queue behind more of that network, which are closed. (Behind a load balancer the network of a
        client is not known yet.)"""
        crowded = self.pace.full
        if crowded and (self.proxy or not self.pace.one_sided):
            self._pause(_LATER)
            return
        for _ in range(BATCH):
            if not crowded and self.pace.full:
                return
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._starve(error)
                self._pause(STARVED)
                return
            if crowded and isinstance(address, tuple) and self.pace.dominated(str(address[0])):
                sock.close()
                self.figures.turned_away += 1
                self._notices.warn(
                    "crowded", "%s: connection of %s closed: its network has most of those that wait for a handshake",
                    self._name, address[0],
                )  # fmt: skip
                continue
            self._begin(sock, address)

    def _begin(self, sock: socket.socket, address: object) -> None:
        stream = self._accept()
        if stream is None:
            sock.close()
            return
        sock.setblocking(False)
        if isinstance(address, tuple):  # not of a Unix socket
            stream.peer = Peer(str(address[0]), int(address[1]), stream.peer.listener)
        arrival = Arrival(self, sock, stream)
        task = arrival.task = self.loop.create_task(arrival.run(), name=f"arrival at {self._name}")
        self._arrivals.add(task)
        task.add_done_callback(self._arrivals.discard)
        stream.abandon = arrival.abandon
        if stream.finishing:  # it has given way to others already
            task.cancel()

    def _pause(self, seconds: float) -> None:
        """Accept none for a while: those that come wait in the kernel's queue."""
        self.loop.remove_reader(self._socket.fileno())
        self._timer = self.loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._timer = None
        if self.pace.calm:
            self.start()
        else:
            self._timer = self.loop.call_later(_LATER, self._resume)


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _reason(error: ssl.SSLError) -> str:
    """What OpenSSL says, for people."""
    verify = getattr(error, "verify_message", "")
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return f"TLS: {reason}: {verify}" if verify else f"TLS: {reason}"
