"""Accepts connections that go through more than their socket before their stream has them: TLS first of all.

It knows sockets, stages and deadlines: never what streams carry, and no certificate. An ``Arrival`` is one accepted
connection on its way; these are the stages, in their order:

    transport -> [PROXY] -> [TLS] -> [WebSocket] -> Stream

The arrival is the transport's protocol up to the handshake; then ``Secured`` is, if there is TLS, and the stream or the
stage above (``Upper``) has what ``Secured`` or the transport brings. What always holds:

* an arrival counts as a connection of its stream's group from the beginning, and has ``seconds`` until its stream has
  a transport; whatever ends it earlier closes the connection;
* at a listener with the PROXY protocol a connection begins with its header and comes from a network that is trusted;
* a client that may not come from where it comes from (``Arrive``) costs no handshake and no upgrade;
* each arrival is owned; ``stop`` ends it;
* a handshake takes processor time, so it starts only when the client's first bytes are there and ``Pace`` lets it: all
  connected clients are served between two that start, and networks take turns;
* while many wait, no further connection is accepted; but if most of them are of one network, and clients of others come
  too, these are accepted, and more of that network are closed;
* until its handshake starts, at most ``FIRST`` bytes of a client are kept.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast, final

from mypy_extensions import mypyc_attr

from mesh.broker.notices import Notices
from mesh.broker.peer import Peer, TlsFacts
from mesh.transport.pace import Pace, Starting
from mesh.transport.proxied import Networks, client_of, trusted
from mesh.transport.refusal import Refused
from mesh.transport.secured import Secured
from mesh.transport.status import TlsStatus
from mesh.transport.stream import Stream
from mesh.wire.proxy import ProxyError, ProxyReader

BATCH: Final = 16  # connections that are accepted in one turn
FIRST: Final = 32 << 10  # bytes; a client sends one record, of 16 KiB at most, and waits for the answer
# Seconds until a session's ticket is sent alone, to a client that has got no answer yet. One with Nagle's algorithm
# sends its CONNECT when the end of its handshake is acknowledged: with the ticket, or by the kernel after 40 ms.
TICKET: Final = 0.005
_LATER: Final = 0.05  # seconds until it is looked again whether connections may be accepted
STARVED: Final = 1.0  # seconds until accept is tried again when no file can be opened

log = logging.getLogger(__name__)


Arrive = Callable[[Peer], None]
"""A connection begins, of which only the peer is known. Raises ``Refused`` if no client may come from there."""


def anyone(peer: Peer) -> None:
    """The ``Arrive`` of a listener that refuses no one at once."""


Opened = Callable[[str], None]
"""The stage above has ended; with a text, which is for the log, it refuses the connection."""


class Refusal(Exception):
    """A stage refuses the connection; the text is for the log."""


@mypyc_attr(allow_interpreted_subclasses=True)
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


@mypyc_attr(allow_interpreted_subclasses=True)
class Upper:
    """The stage between a transport and its stream."""

    def begin(self, transport: asyncio.Transport, stream: Stream, opened: Opened) -> asyncio.Protocol:
        """The protocol for ``transport``. It calls ``opened`` when the stream has its transport, or with the reason for
        which it refuses the connection."""
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
class Arrival(Starting):
    """One accepted connection until its stream has it. It has the methods of ``asyncio.Protocol``, but cannot derive
    from it: a compiled class has one base. ``over``: the stream has it, or it has ended. ``accepted`` is when, on the
    loop's clock."""

    __slots__ = (
        "_admitted", "_asked", "_door", "_first", "_gate", "_making", "_reader", "_secured", "_stream", "_transport",
        "_upper", "accepted",
    )  # fmt: skip

    def __init__(self, door: Accepting, stream: Stream) -> None:
        super().__init__()
        self._door = door
        self._gate = door.gate
        self._upper = door.upper
        self._stream = stream
        self._transport: asyncio.Transport | None = None
        self._making: Coroutine[Any, Any, object] | None = None
        self._reader = ProxyReader() if door.proxy else None  # until the load balancer has named its client
        self._first = b""  # bytes that came before the handshake starts
        self._asked = False  # for its handshake to start
        self._secured: Secured | None = None
        self._admitted = False
        self.accepted = door.loop.time()

    def adopt(self, sock: socket.socket) -> None:
        """Let the loop make the transport. Raises ``OSError``."""
        loop = self._door.loop
        # What a task would do, in a third of the time: it waits once, for ``connection_made``, which is called soon.
        self._making = making = loop.connect_accepted_socket(self._protocol, sock)
        future: asyncio.Future[object] = making.send(None)
        future.add_done_callback(self._made)

    def _protocol(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, self)

    def _made(self, future: asyncio.Future[object]) -> None:
        making, self._making = self._making, None
        if making is None:
            return
        try:
            making.send(None)
        except StopIteration:
            return
        except OSError as error:
            if not self.over:
                self._failed("handshake", error.strerror or str(error))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.over:
            self._transport.abort()
        else:
            self._go_on(self._begin, b"")

    def data_received(self, data: bytes) -> None:
        if not self.over:
            self._go_on(self._take, data)

    def eof_received(self) -> None:
        """The other end has half-closed: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over:
            self._failed("handshake", "it closed the connection before it was ready" if exc is None else str(exc))

    # For Pace and Accepting

    def start(self) -> None:
        """Its handshake may start."""
        self._go_on(self._start, b"")

    def give_way(self) -> None:
        """End the handshake for others that wait."""
        self._failed("slow", "its handshake took long while others waited")

    def expire(self) -> None:
        """Its time is over."""
        self._failed("deadline", f"not ready within {self._door.seconds:g} s")

    def end(self) -> None:
        """End it, also if nothing is wrong with it."""
        if self.over:
            return
        self._leave()
        self._stream.abandon = None
        if self._stream.transport is None:
            self._stream.finish()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    # Internal

    def _leave(self) -> None:
        self.over = True
        self._first = b""
        self._door.left(self)

    def _failed(self, subject: str, why: str) -> None:
        if self._gate is not None and not self._admitted:
            self._door.figures.failed += 1
        self._door.turn_away(subject, self._stream, why)
        self.end()

    def _go_on(self, step: Callable[[bytes], None], data: bytes) -> None:
        try:
            step(data)
        except Refused as refused:  # its handshake was not to begin, so it has not failed
            self._door.turn_away("refused", self._stream, str(refused))
            self.end()
        except (Refusal, ProxyError) as wrong:
            self._failed("refused", str(wrong))
        except ssl.SSLError as error:
            if self._transport is not None:
                self._transport.close()  # the other end is told
            self._failed("handshake", _reason(error))

    def _begin(self, data: bytes) -> None:
        """The transport is there. Raises as ``_take``."""
        if self._reader is None:
            self._introduced(b"")
        elif not trusted(self._door.proxy, self._stream.peer):
            raise Refusal("its address is not among the listener's networks of load balancers (proxy)")

    def _take(self, data: bytes) -> None:
        """Bytes came. Raises ``Refused``, ``Refusal``, ``ProxyError``, ``ssl.SSLError``."""
        reader, secured = self._reader, self._secured
        if reader is not None:
            end = reader.feed(data)
            if reader.header is not None:
                self._reader = None
                self._stream.peer = client_of(reader.header, self._stream.peer)
                self._introduced(data[end:])
        elif secured is not None:
            self._shake(secured, data)
        else:
            self._wait(data)

    def _introduced(self, rest: bytes) -> None:
        """It is known whose connection this is; ``rest`` came after that."""
        door, transport = self._door, self._transport
        assert transport is not None
        tls = self._gate is not None
        if tls or self._upper is not None:  # else CONNECT costs little, and its client is answered
            door.arrive(self._stream.peer)
        if tls:
            door.pace.rates.check(self._stream.peer.address)
            if rest:
                self._wait(rest)
        else:
            self._ready(transport)
            if rest:
                cast(asyncio.Protocol, transport.get_protocol()).data_received(rest)

    def _wait(self, data: bytes) -> None:
        """The client's first bytes are there: a client that sends none must cost no handshake."""
        assert self._gate is not None
        self._first += data
        if len(self._first) > FIRST:
            raise Refusal(f"it sent more than {FIRST} bytes before its handshake was answered")
        if not self._asked:
            self._asked = True
            self._door.pace.ask(self, self._stream.peer.address, self._gate.cost)

    def _start(self, _: bytes) -> None:
        transport, gate = self._transport, self._gate
        assert transport is not None
        assert gate is not None
        self._door.figures.begun += 1
        secured = self._secured = Secured(transport, gate.context)
        first, self._first = self._first, b""
        self._shake(secured, first)

    def _shake(self, secured: Secured, data: bytes) -> None:
        rest = secured.shake(data)
        if rest is None:
            return
        door, transport, stream = self._door, self._transport, self._stream
        gate = door.gate or self._gate  # the listener may have other files since the handshake began
        assert transport is not None
        assert gate is not None
        door.pace.over(self)
        facts = gate.admit(secured.session)
        self._admitted = True
        if facts.resumed:
            door.figures.resumed += 1
        else:
            door.figures.done += 1
        known = stream.peer
        # If a load balancer has said what its client's TLS is, ours is that of the load balancer.
        stream.peer = Peer(known.address, known.port, known.listener, known.tls or facts)
        transport.set_protocol(cast(asyncio.Protocol, secured))
        self._ready(cast(asyncio.Transport, secured))
        secured.data_received(rest)
        if secured.holds_back:
            door.flush_later(secured)

    def _ready(self, transport: asyncio.Transport) -> None:
        """Pass the connection on."""
        stream, upper = self._stream, self._upper
        if upper is not None:
            transport.set_protocol(upper.begin(transport, stream, self.opened))
            return
        self._leave()
        transport.set_protocol(cast(asyncio.Protocol, stream))
        stream.connection_made(transport)

    def opened(self, refusal: str) -> None:
        """The stage above has ended: the stream has its transport, or the stage has refused the connection."""
        if self.over:
            return
        if refusal:
            self._failed("refused", refusal)
        else:
            self._leave()


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
        self._batch = 1
        self._accept = accept
        self._starve = starve
        self._arrivals: dict[Arrival, None] = {}  # in the order in which they came
        self._deadline: asyncio.TimerHandle | None = None  # of the oldest arrival
        self._tickets: list[Secured] = []  # connections whose session's ticket is not sent yet
        self._flushing: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._notices = Notices(log.warning, time.monotonic)
        listening.setblocking(False)

    def start(self) -> None:
        """Accept from now on; the socket listens."""
        self.loop.add_reader(self._socket.fileno(), self._ready)

    def stop(self) -> None:
        """Close the listening socket, and all arrivals."""
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()
        if self._socket.fileno() >= 0:
            self.loop.remove_reader(self._socket.fileno())
            self._socket.close()
        for arrival in list(self._arrivals):
            arrival.end()

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
        for _ in range(self._batch):
            if not crowded and self.pace.full:
                return
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._batch = 1
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
        # An accept that finds none is as dear as one that does, so the next turn looks for few if this one found few.
        self._batch = min(2 * self._batch, BATCH)

    def flush_later(self, secured: Secured) -> None:
        """Send the session's ticket of a connection alone if nothing else is sent within ``TICKET``. One timer serves
        all connections that come meanwhile."""
        self._tickets.append(secured)
        if self._flushing is None:
            self._flushing = self.loop.call_later(TICKET, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        tickets, self._tickets = self._tickets, []
        for secured in tickets:
            secured.flush()

    def left(self, arrival: Arrival) -> None:
        """The stream has its transport, or the arrival has ended."""
        self._arrivals.pop(arrival, None)
        self.pace.over(arrival)

    def _begin(self, sock: socket.socket, address: object) -> None:
        stream = self._accept()
        if stream is None or stream.finishing:  # finishing: it has given way to others already
            sock.close()
            return
        sock.setblocking(False)
        if isinstance(address, tuple):  # not of a Unix socket
            stream.peer = Peer(str(address[0]), int(address[1]), stream.peer.listener)
        arrival = Arrival(self, stream)
        stream.abandon = arrival.end
        self._arrivals[arrival] = None
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, self._expire)
        try:
            arrival.adopt(sock)
        except OSError as error:
            sock.close()
            self.turn_away("adopt", stream, error.strerror or str(error))
            arrival.end()

    def _expire(self) -> None:
        """End the arrivals whose time is over."""
        self._deadline = None
        now = self.loop.time()
        due = []
        for arrival in self._arrivals:
            if now < arrival.accepted + self.seconds:
                break
            due.append(arrival)
        for arrival in due:
            arrival.expire()
        oldest = next(iter(self._arrivals), None)
        if oldest is not None:
            self._deadline = self.loop.call_at(oldest.accepted + self.seconds, self._expire)

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


def _reason(error: ssl.SSLError) -> str:
    """What OpenSSL says, for people."""
    verify = getattr(error, "verify_message", "")
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return f"TLS: {reason}: {verify}" if verify else f"TLS: {reason}"
