"""A byte stream on a socket: bounded reading and writing, and a close with a deadline.

It knows bytes, watermarks and deadlines: never packets. Subclasses interpret the bytes. What always holds:

* the socket is read only while ``holds`` is 0; each of its bits is one reason, so that the end of one reason does not
  cancel another;
* ``congested`` is called when the write buffer grows beyond ``StreamGroup.high``, and ``relieved`` when it has fallen
  to a quarter of that; with 0, written bytes go to the kernel at once and not when the loop has handled all its events;
* ``finish`` writes what is pending, half-closes, reads on and discards what it reads (a close with unread bytes would
  send a reset, which can overtake the last packet), and aborts when ``linger`` has passed;
* a large read is handled in portions, one in a turn, and the socket is not read meanwhile;
* after the stream is closed every call is harmless, and ``lost`` has been called exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast, final

from mypy_extensions import mypyc_attr

from mesh.broker.peer import NOWHERE, Peer
from mesh.transport.peers import peer_of
from mesh.transport.status import Held
from mesh.transport.wheel import Timed, Wheel

HIGH: Final = 64 * 1024  # bytes of write buffer: a kernel's socket buffer takes as much at once, so no reader starves
EAGER: Final = 0  # for many small streams: their answers leave while their sockets are in the processor's cache
LINGER: Final = 2.0  # seconds that a peer has to read the last packet and to close

# Why a socket is not read.
HOLD_WRITING: Final = 1  # the peer does not read, so its requests are not read either
HOLD_BROKER: Final = 2  # too many of its requests are unanswered
HOLD_IDENTITY: Final = 4  # the peer is being looked up
HOLD_LINK: Final = 8  # the edge is disconnected or behind, and enough is held for it
HOLD_NODE: Final = 16  # the node reads no client: its journal cannot take more
HOLD_TURN: Final = 32  # a part of what was read is left for the next turns

# Bytes of one read of the socket that are handled in one turn. The loop reads up to 256 kB at once: that is 43,000 of
# the smallest PUBLISHes, which take 150 ms.
PORTION: Final = 32 * 1024
# The same for links between nodes, whose reads are large: a portion costs a wake-up and smaller writes. Messages on a
# link take more bytes than the smallest of clients, so this is about 20 ms.
LINK_PORTION: Final = 128 * 1024


@final
class StreamGroup:
    """What the streams of one kind share: the loop, the wheel, and the figures. ``streams`` holds those that are
    open; ``high`` is in bytes; ``portion``: bytes of one read that are handled in one turn."""

    __slots__ = ("bytes_in", "bytes_out", "high", "linger", "loop", "portion", "streams", "wheel")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wheel: Wheel,
        linger: float = LINGER,
        high: int = HIGH,
        portion: int = PORTION,
    ) -> None:
        self.portion = portion
        self.loop = loop
        self.wheel = wheel
        self.linger = linger
        self.high = high
        self.streams: set[Stream] = set()
        self.bytes_in = 0
        self.bytes_out = 0

    def held(self) -> Held:
        """How many streams are not read, by reason."""
        writing = broker = identity = link = node = turn = 0
        for stream in self.streams:
            holds = stream.holds
            if holds:
                writing += 1 if holds & HOLD_WRITING else 0
                broker += 1 if holds & HOLD_BROKER else 0
                identity += 1 if holds & HOLD_IDENTITY else 0
                link += 1 if holds & HOLD_LINK else 0
                node += 1 if holds & HOLD_NODE else 0
                turn += 1 if holds & HOLD_TURN else 0
        return Held(writing, broker, identity, link, node, turn)


@mypyc_attr(allow_interpreted_subclasses=True)
class Stream(Timed):
    """Has the methods of ``asyncio.Protocol``, but cannot derive from it: a compiled class needs a compiled base.

    Subclasses implement ``accepted``, ``opened``, ``received``, ``lost``, ``congested``, ``relieved`` and ``expired``.
    A stream that a listener accepted belongs to its group, and so counts, before it has a transport: a TLS handshake
    counts as a connection."""

    __slots__ = ("_linger", "_rest", "abandon", "finishing", "group", "holds", "peer", "transport")

    def __init__(self, group: StreamGroup) -> None:
        super().__init__()
        self.group = group
        self.transport: asyncio.Transport | None = None
        self.peer = NOWHERE
        self.holds = 0
        self.finishing = False
        self.abandon: Callable[[], None] | None = None  # ends what accepts it, until it has a transport
        self._linger: asyncio.TimerHandle | None = None
        self._rest = b""  # what was read and is not handled yet; then HOLD_TURN is set

    # For subclasses

    def accepted(self) -> None:
        """A listener has accepted the connection; the socket is not usable yet."""

    def opened(self) -> None:
        """The socket is connected."""

    def received(self, data: bytes) -> None:
        """Bytes came."""
        raise NotImplementedError

    def lost(self, error: Exception | None) -> None:
        """The socket is closed, by either end."""

    def congested(self) -> None:
        """The write buffer is above the high watermark."""

    def relieved(self) -> None:
        """The write buffer is below the low watermark again."""

    # For users

    def accept(self, peer: Peer) -> None:
        """A listener has accepted the connection; ``peer`` has only the listener's name."""
        self.peer = peer
        self.group.streams.add(self)
        self.accepted()

    def write(self, data: bytes) -> None:
        """Send bytes; does nothing when the stream is closed or finishing."""
        transport = self.transport
        if transport is None or self.finishing:
            return
        self.group.bytes_out += len(data)
        transport.write(data)

    def pending(self) -> int:
        """Bytes that the socket has not taken yet."""
        transport = self.transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def hold(self, reason: int) -> None:
        """Stop reading the socket, because of ``reason``."""
        before = self.holds
        self.holds = before | reason
        transport = self.transport
        if before == 0 and transport is not None and not self.finishing and not transport.is_closing():
            transport.pause_reading()

    def release(self, reason: int) -> None:
        """``reason`` is over; the socket is read again unless another reason is left."""
        before = self.holds
        self.holds = before & ~reason
        if self.holds == HOLD_TURN and before != HOLD_TURN:
            self.group.loop.call_soon(self._go_on)
            return
        transport = self.transport
        if before and self.holds == 0 and transport is not None and not self.finishing and not transport.is_closing():
            transport.resume_reading()

    def finish(self) -> None:
        """Write what is pending, then close."""
        transport = self.transport
        if self.finishing:
            return
        self.finishing = True
        self.group.wheel.forget(self)
        if transport is None:  # accepted, and not connected yet
            self.group.streams.discard(self)
            abandon, self.abandon = self.abandon, None
            if abandon is not None:
                abandon()
            return
        if transport.is_closing():
            return
        self._linger = self.group.loop.call_later(self.group.linger, self.abort)
        if self.holds:
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def abort(self) -> None:
        """Close at once and discard what is pending."""
        if self.transport is not None:
            self.transport.abort()

    def expel(self, reason: int, why: str) -> None:
        """End the connection: its other end may not have it now. ``reason`` is MQTT's, ``why`` is for the log."""
        self.finish()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.abandon = None
        self.transport = cast(asyncio.Transport, transport)
        if self.finishing:
            self.transport.abort()
            return
        self.peer = peer_of(self.transport, self.peer)
        # With TLS, the session's ticket is in the buffer already, and is not written while a full buffer stops reading.
        high = self.group.high if self.peer.tls is None else max(self.group.high, HIGH)
        self.transport.set_write_buffer_limits(high, high // 4)
        self.group.streams.add(self)
        self.opened()

    def data_received(self, data: bytes) -> None:
        self.group.bytes_in += len(data)
        if self.finishing:
            return
        if self.holds and self._rest:  # the transport had read it before it was paused
            self._rest += data
        elif len(data) <= self.group.portion:
            self.received(data)
        else:
            portion = self.group.portion
            self._rest = data[portion:]
            self.hold(HOLD_TURN)
            self.received(data[:portion])
            self._continue()

    def _continue(self) -> None:
        """Handle the next portion in the next turn, unless the stream is held for another reason too: then when that
        reason ends."""
        if self._rest and self.holds == HOLD_TURN:
            self.group.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        data = self._rest
        if self.finishing or not data or self.holds != HOLD_TURN:
            return
        portion = self.group.portion
        self._rest = data[portion:]
        if not self._rest:
            self.release(HOLD_TURN)
        try:
            self.received(data[:portion])
        except BaseException:
            self.abort()  # as the transport does when ``data_received`` fails
            raise
        self._continue()

    def eof_received(self) -> None:
        """The other end has half-closed: the transport closes once what is pending is written."""

    def pause_writing(self) -> None:
        self.congested()

    def resume_writing(self) -> None:
        self.relieved()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest and not self.finishing:
            self._flush_rest()
        self.transport = None
        self.finishing = True
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self.group.wheel.forget(self)
        self.group.streams.discard(self)
        self.lost(exc)

    def _flush_rest(self) -> None:
        """The other end is gone: what it sent before still counts. At its end there may be a DISCONNECT."""
        data, self._rest = self._rest, b""
        portion = self.group.portion
        for start in range(0, len(data), portion):
            if not self.finishing:
                self.received(data[start : start + portion])
