"""The socket of one client until its session is ready, and the deadlines of its whole life.

It joins a ``Stream`` with a ``Lifecycle``. The front door's vehicle and the endpoint's client derive from it and add
only what follows CONNACK. It must never know sessions, topics or edges. What always holds:

* after accept a client has ``connect_timeout`` seconds for CONNECT and its proof, even if single bytes keep coming
  (CVE-2020-13849); after that it has ``answer_timeout`` seconds until CONNACK;
* after CONNACK a client that sends no whole packet for 1.5 times its keep alive is closed [MQTT-3.1.2-22], unless a
  packet came at ``packet_rate`` or faster in this time, this node does not read its socket, or the client is still
  reading what was written;
* without a keep alive a packet that has begun must come at that rate, measured over ``STALL`` seconds;
* the socket is not read while the client is looked up;
* until CONNECT and its proof are complete, a connection is one of the node's ``Pending``;
* what the client makes this node buffer is counted in the node's ``Buffers``, from the first byte to the end;
* a connection ends with the claim that it rests on, in each state that follows its identification;
* ``ended`` is called exactly once, whichever side ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import Future
from collections.abc import Coroutine
from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.broker.claim import Claim
from mesh.broker.notices import Notices
from mesh.transport.admission import Admission
from mesh.transport.authentication import Later
from mesh.transport.buffers import Buffering, Buffers
from mesh.transport.expiry import Expiry
from mesh.transport.frame import WINDOW
from mesh.transport.lifecycle import Lifecycle, Rejection
from mesh.transport.refusal import Refused
from mesh.transport.states import ACCEPT, CLOSE, HAND_OVER, IDENTIFYING, OPEN, WAITING
from mesh.transport.stream import HOLD_IDENTITY, HOLD_WRITING, StreamGroup
from mesh.transport.wheel import TICK
from mesh.wire.partial import LARGE, large
from mesh.wire.reasons import (
    KEEP_ALIVE_TIMEOUT,
    MAXIMUM_CONNECT_TIME,
    NOT_AUTHORIZED,
    QUOTA_EXCEEDED,
    SERVER_UNAVAILABLE,
)

KEEP_ALIVE_FACTOR: Final = 1.5  # [MQTT-3.1.2-22]
STALL: Final = 10.0  # seconds: longer than a phone network needs to change the cell
_OUTLIVED: Final = "what it proved its identity with has expired"
PACKET_RATE: Final = 256  # bytes a second: the slowest mobile network is ten times as fast

log = logging.getLogger(__name__)


@final
class ClientContext:
    """What all clients of one node have in common.

    ``connect_timeout`` and ``answer_timeout`` are in seconds; with an ``answer_timeout`` of 0 the first deadline
    applies until CONNACK. ``packet_rate`` is in bytes a second. ``buffers`` may be shared. ``rejected`` counts
    connections that ended before CONNACK because of the client or of this node.
    """

    __slots__ = (
        "admission",
        "answer_timeout",
        "buffers",
        "connect_timeout",
        "group",
        "name",
        "notices",
        "outlived",
        "packet_rate",
        "rejected",
        "silent",
    )

    def __init__(
        self,
        name: str,
        group: StreamGroup,
        admission: Admission,
        connect_timeout: float,
        answer_timeout: float = 0.0,
        packet_rate: int = PACKET_RATE,
        buffers: Buffers | None = None,
    ) -> None:
        self.name = name
        self.group = group
        self.admission = admission
        self.connect_timeout = connect_timeout
        self.answer_timeout = answer_timeout
        self.packet_rate = packet_rate
        self.buffers = buffers or Buffers()
        self.notices = Notices(log.warning, time.monotonic)
        self.rejected = 0
        self.silent = 0  # closed because of keep alive
        self.outlived = 0  # closed because their claims ended

    def in_force(self) -> dict[str, object]:
        """What holds for connections that open now, by name."""
        admission = self.admission
        return {
            "connections": admission.most, "redirect": admission.redirect, "packets": admission.limits.in_force(),
            "connect_timeout": self.connect_timeout, "answer_timeout": self.answer_timeout,
            "packet_rate": self.packet_rate, "buffers": self.buffers.limit, **admission.arrivals.in_force(),
        }  # fmt: skip


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientStream(Buffering):
    """Subclasses implement ``identify``, ``packets``, ``progress`` and ``fail``, and may override ``client``,
    ``buffered``, ``before_last`` and ``ended``. ``kept``: bytes of the packet in progress that are counted; ``unread``:
    those that the client has not read."""

    __slots__ = ("_context", "_endless", "_expiry", "_task", "_unread", "kept", "life", "unread")

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context.group)
        self.life = Lifecycle(context.admission)
        self.kept = 0
        self.unread = 0
        self._context = context
        self._endless = False  # the session has no keep alive
        self._expiry: Expiry | None = None  # of the claim
        self._task: asyncio.Task[None] | None = None
        self._unread = 0  # bytes that the client had not read when its deadline was last looked at

    # For subclasses

    def identify(self) -> None:
        """CONNECT is complete: identify the client, then call ``hand_over`` and ``established``, or ``refuse``. Pass
        work that waits to ``look_up``."""
        raise NotImplementedError

    def packets(self, data: bytes) -> bool:
        """Bytes came after ``hand_over``; their packets are not checked. Returns whether they complete a packet."""
        raise NotImplementedError

    def progress(self) -> int:
        """How many bytes of the packet in progress came since the last call; -1 if no packet is in progress."""
        raise NotImplementedError

    def fail(self, reason: int, why: str) -> None:
        """End an open connection, and tell a 5.0 client the reason code; ``why`` is for the log."""
        raise NotImplementedError

    def prove(self) -> None:
        """What the answer to the client's re-authentication had to wait for is ready (see ``answer_later``)."""
        raise NotImplementedError

    def client(self) -> str:
        return self.peer.address

    def buffered(self) -> int:
        """Bytes that are buffered for the client, besides ``kept`` and ``unread``."""
        return 0

    def before_last(self) -> None:
        """The connection is about to end: write what is pending."""

    def ended(self) -> None:
        """The connection is over; its socket may close later."""

    # For users

    def look_up(self, search: Coroutine[object, object, None]) -> None:
        """Run ``search``, and do not read the socket meanwhile. ``search`` ends with ``hand_over`` or ``refuse``; it is
        cancelled if the connection ends."""
        self.hold(HOLD_IDENTITY)
        self._task = self.group.loop.create_task(search)

    def answer_later(self, later: Later) -> None:
        """A re-authentication on an open connection has to wait: call ``prove`` when it is ready."""
        self._task = self.group.loop.create_task(self._prove_when(later.ready))

    def hand_over(self) -> bytes:
        """The session's server takes over the CONNECT. Returns the bytes that came after it."""
        self._task = None
        self.life.move(HAND_OVER)
        early = self.life.take_early()
        self.kept = 0
        self._context.buffers.count(self, 0)  # the client was not known before
        self.recount()  # not more than before, so it does not close this connection
        return early

    def established(self, keep_alive: int) -> None:
        """CONNACK with success is written; ``keep_alive`` is in seconds, 0 for none."""
        self.life.move(ACCEPT)
        self._endless = keep_alive == 0
        if self._endless and self.progress() >= 0:
            self.group.wheel.watch(self, STALL)
        else:
            self.group.wheel.watch(self, KEEP_ALIVE_FACTOR * keep_alive)

    def rest_on(self, claim: Claim | None) -> None:
        """End the connection when ``claim`` ends; in place of the claim before. It may have none."""
        moment, expiry = 0.0 if claim is None else claim.expires, self._expiry
        if self.life.ended():
            return
        if expiry is not None and moment:
            expiry.move(moment)
        elif expiry is not None:
            expiry.cancel()
            self._expiry = None
        elif moment:
            self._expiry = Expiry(self.group.wheel, moment, self._outlived)

    def refuse(self, refused: Refused) -> None:
        """Refuse the client and end the connection."""
        self.reject(self.life.rejected(refused))

    def reject(self, rejected: Rejection) -> None:
        """End the connection with the answer of ``rejected``."""
        self.drop(str(rejected), rejected.answer)

    def drop(self, why: str, last: bytes) -> None:
        """Write ``last``, end the connection, and log ``why``."""
        if self.life.ended():
            return
        context = self._context
        if self.life.state != OPEN:
            context.rejected += 1
        context.notices.warn("closed", "%s: connection of %s closed: %s", context.name, self.peer, why)
        self.close(last)

    def close(self, last: bytes = b"") -> None:
        """Write ``last`` and end the connection."""
        if self.life.ended():
            return
        self.before_last()
        if last:
            self.write(last)
        self.finish()
        self._end()

    def keep(self, size: int) -> None:
        """``size`` bytes of the packet in progress are buffered, 0 if they are few."""
        self.kept = size
        self.recount()
        if size and self.patience == 0:
            self._begun()

    def owe(self) -> None:
        """The client has not read all that was written, or has read it now. What this node has written beyond a window
        at once does not count: no client may be closed for that."""
        size = large(min(self.pending(), WINDOW))
        if size != self.unread:
            self.unread = size
            self.recount()

    def recount(self) -> None:
        """Count what is buffered. Afterwards the connection may be closed."""
        if not self.life.ended():
            self._context.buffers.count(self, self.kept + self.unread + self.buffered())

    def expel(self, reason: int, why: str) -> None:
        if self.life.state == OPEN:
            self.fail(reason, why)
        else:
            self.refuse(Refused(reason, why))

    def shed(self, why: str) -> None:
        self.expel(QUOTA_EXCEEDED, why)
        if self.pending() >= LARGE:
            self.abort()  # else the bytes would stay until the client has read them

    def dismiss(self) -> None:
        """The node stops: tell the client if its protocol allows that, and close."""
        self.close(self.life.farewell())

    # Stream

    def accepted(self) -> None:
        self.group.wheel.watch(self, self._context.connect_timeout)
        self._context.admission.arrivals.pending.add(self)

    def received(self, data: bytes) -> None:
        state = self.life.state
        if state == OPEN:
            if self.packets(data):
                self.heard = self.group.wheel.now
            elif self.patience == 0:
                self._begun()
        elif state == WAITING:
            self.packets(data)
        else:
            self._greet(data)

    def expired(self) -> None:
        state = self.life.state
        context = self._context
        if state == OPEN:
            self._inactive()
        elif state in (IDENTIFYING, WAITING):
            seconds = context.answer_timeout or context.connect_timeout
            self.refuse(Refused(SERVER_UNAVAILABLE, f"its session was not ready within {seconds:g} s"))
        else:
            self.drop(f"no complete CONNECT within {context.connect_timeout:g} s", b"")

    def lost(self, error: Exception | None) -> None:
        self._end()

    # Internal

    def _greet(self, data: bytes) -> None:
        """Bytes came before ``hand_over``."""
        life, before = self.life, self.life.state
        try:
            answer = life.receive(data, len(self.group.streams), self.peer)
        except Rejection as rejected:
            self.reject(rejected)
            return
        except Later as later:
            answer = later.answer
            self.look_up(self._greet_when(later.ready))
        if answer:
            self.write(answer)
        size = large(life.buffered())
        if size != self.kept:
            self.keep(size)
            if life.ended():
                return
        if life.state == IDENTIFYING and before != IDENTIFYING:
            self._context.admission.arrivals.pending.remove(self)
            if self._context.answer_timeout:
                self.group.wheel.watch(self, self._context.answer_timeout)
            try:
                self.identify()
            except Refused as refused:
                self.refuse(refused)

    async def _greet_when(self, ready: Future[None]) -> None:
        """Go on with a client whose proof has to wait."""
        await asyncio.wait([ready])
        if self.life.ended():
            return
        self._task = None
        self.release(HOLD_IDENTITY)
        if self.life.state < IDENTIFYING:  # else bytes that were read before have gone on with it
            self._greet(b"")

    async def _prove_when(self, ready: Future[None]) -> None:
        await asyncio.wait([ready])
        self._task = None
        if not self.life.ended():
            self.prove()

    def _begun(self) -> None:
        """A packet has begun on a connection without a deadline."""
        if not self.life.ended():
            self.group.wheel.watch(self, STALL)

    def _inactive(self) -> None:
        """No whole packet came for as long as the client may be silent."""
        context, came = self._context, self.progress()
        seconds = (self.patience - 1) * TICK
        if self._endless and came < 0:
            self.group.wheel.watch(self, 0)  # the packet that was watched is complete
        elif self._excused() or came >= context.packet_rate * seconds:
            self.group.wheel.watch(self, seconds)
        else:
            context.silent += 1
            slow = f"{came} bytes of its packet came in {seconds:g} s; the least is {context.packet_rate} a second"
            self.fail(KEEP_ALIVE_TIMEOUT, "it was silent for 1.5 times its keep alive" if came < 0 else slow)

    def _excused(self) -> bool:
        """Whether the silence is not the client's fault: this node does not read it, or it reads what was written."""
        if self.holds & ~HOLD_WRITING:
            return True
        unread, before = self.pending(), self._unread
        self._unread = unread
        return bool(self.holds & HOLD_WRITING) and (before == 0 or unread < before)

    def _outlived(self) -> None:
        """The claim has ended (MQTT 5.0 section 3.14.2.1: the maximum connection time that was authorized is over)."""
        self._context.outlived += 1
        if self.life.state == OPEN:
            self.fail(MAXIMUM_CONNECT_TIME, _OUTLIVED)
        else:
            self.refuse(Refused(NOT_AUTHORIZED, _OUTLIVED))

    def _end(self) -> None:
        if self.life.ended():
            return
        self.life.move(CLOSE)
        self._context.admission.arrivals.pending.remove(self)
        self._context.buffers.count(self, 0)
        expiry, self._expiry = self._expiry, None
        if expiry is not None:
            expiry.cancel()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self.ended()
