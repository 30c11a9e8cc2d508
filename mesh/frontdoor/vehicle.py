"""One vehicle's socket at the front door.

It reads CONNECT to learn who that is and where the vehicle's edge is; after that it passes whole packets on and looks
at no more than their types. It must never know topics, sessions or what is stored. What always holds:

* CONNECT is there within ``connect_timeout``, and answered within ``attach_timeout`` after it; what the vehicle sends
  before CONNACK is kept in order, and nothing is sent to it before CONNACK [MQTT-3.2.0-1];
* a vehicle that is silent for 1.5 times its keep alive is closed [MQTT-3.1.2-22], whether or not its edge is there;
  PINGREQ is answered here;
* what it sends is held up to ``held_per_vehicle`` until the edge confirms it; then its socket is not read;
* bytes that it reads are given back to the edge as credit, so the edge never has more than a window of bytes under way
  to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, final

from mesh.broker.trace import CLIENT, RELAY, Span
from mesh.frontdoor.link import EdgeLink
from mesh.transport.authentication import Authentication, GaveUp
from mesh.transport.frame import CREDIT_STEP, Opening
from mesh.transport.refusal import Refused, farewell, goodbye, malformed, maximum_of, refusal
from mesh.transport.stream import HOLD_IDENTITY, HOLD_LINK, HOLD_WRITING, Stream
from mesh.transport.wheel import TICK
from mesh.wire.aliases import AliasTable
from mesh.wire.decode import SERVER, Framer, Reader
from mesh.wire.encode import encode
from mesh.wire.frames import ack_packet_id, publish_packet_id, publish_topic
from mesh.wire.packets import (
    AUTH,
    CONNECT,
    MQTT5,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    Connect,
    Packet,
    Ping,
)
from mesh.wire.reasons import (
    KEEP_ALIVE_TIMEOUT,
    PACKET_TOO_LARGE,
    PROTOCOL_ERROR,
    QUOTA_EXCEEDED,
    SERVER_UNAVAILABLE,
    UNSPECIFIED_ERROR,
    ProtocolError,
    name_of,
)
from mesh.wire.tracecontext import TraceContext

if TYPE_CHECKING:
    from mesh.frontdoor.door import FrontDoor

KEEP_ALIVE_FACTOR: Final = 1.5  # [MQTT-3.1.2-22]

# What became of it.
NEW: Final = 0  # nothing came yet
CONNECTING: Final = 1  # a part of CONNECT came
ROUTING: Final = 2  # its edge is being found
WAITING: Final = 3  # the edge has not answered CONNECT yet
OPEN: Final = 4
CLOSED: Final = 5
PROVING: Final = 6  # packets of an enhanced authentication go back and forth

_PINGRESP: Final = encode(Ping(PINGRESP), MQTT5)

log = logging.getLogger(__name__)


@final
class Vehicle(Stream):
    """``name`` is the identity in the map; it is empty until CONNECT was read. ``answered``: the edge has accepted it;
    ``linked``: its OPEN or ATTACH is on the present link; ``gone``: its socket is closed."""

    __slots__ = (
        "_aliases", "_authentication", "_client_id", "_connect", "_credit", "_door", "_early", "_epoch", "_framer",
        "_link", "_maximum", "_opened", "_out", "_peer", "_pending", "_protocol", "_spans", "_stuck", "_task",
        "answered", "exchange", "gone", "linked", "name", "state",
    )  # fmt: skip

    def __init__(self, door: FrontDoor) -> None:
        super().__init__(door.home)
        self._door = door
        self._framer = Framer(door.limits.max_packet_size, door.limits.max_connect_size)
        self._out: list[bytes] = []
        self._early: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self._link: EdgeLink | None = None
        self._connect = b""
        self._pending: Connect | None = None  # CONNECT, as long as who sent it is being proven
        self._authentication: Authentication | None = None
        self._aliases: AliasTable | None = None
        self._client_id = ""
        self._peer = ""
        self._protocol = 0
        self._maximum = 0  # the largest packet that it takes; 0: any
        self._epoch = 0
        self._opened = 0
        self._credit = 0  # bytes that came from the edge since credit was given back
        self._stuck = 0
        self._spans: dict[int, Span] | None = None
        self.exchange = door.links.exchange()
        self.name = ""
        self.state = NEW
        self.answered = False
        self.gone = False
        self.linked = False

    # Stream

    def opened(self) -> None:
        self._opened = time.time_ns() // 1_000_000
        self._peer = self.peer()
        self.home.wheel.watch(self, self._door.settings.connect_timeout)

    def received(self, data: bytes) -> None:
        if self.state == NEW:
            if data[0] != CONNECT << 4:  # [MQTT-3.1.0-1]
                self._drop("its first packet is no CONNECT", b"")
                return
            self.state = CONNECTING
        if self.state == OPEN:
            self.heard = self.home.wheel.now
        packets = self._framer.feed(data)
        if self.state == CONNECTING:
            if packets:
                self._greeted(packets.pop(0))
            elif self._framer.error is not None:
                self._drop(str(self._framer.error), b"")
                return
        while packets and self.state == PROVING:
            self._prove(packets.pop(0))
        if packets:
            if self.state == ROUTING:
                self._early += packets
            elif self.state != CLOSED:
                self._up(packets)
        if self._framer.error is not None and self.state != CLOSED:
            self._violation(self._framer.error)

    def congested(self) -> None:
        self.hold(HOLD_WRITING)  # who does not read the answers need not ask

    def relieved(self) -> None:
        self.release(HOLD_WRITING)
        if self._credit >= CREDIT_STEP:
            self._give_credit()

    def expired(self) -> None:
        settings = self._door.settings
        if self.state == OPEN:
            if self._excused():
                self.home.wheel.watch(self, self.patience * TICK)
                return
            self._door.counters.silent += 1
            self._drop("it was silent for 1.5 times its keep alive", self._goodbye(KEEP_ALIVE_TIMEOUT))
        elif self.state in (ROUTING, WAITING):
            why = f"its edge was not there within {settings.attach_timeout:g} s"
            self._refuse(Refused(SERVER_UNAVAILABLE, why))
        else:
            self._drop(f"no whole CONNECT within {settings.connect_timeout:g} s", b"")

    def lost(self, error: Exception | None) -> None:
        self._end()

    # From the edge

    def opening(self) -> Opening:
        """The body of OPEN or ATTACH."""
        opening = Opening(self.name, self._epoch, self._opened, self._peer, self._connect)
        if self.answered:
            opening.client_id = self._client_id
            opening.unacked = self.exchange.unacked()
            opening.under_way = self._credit
        return opening

    def accept(self, keep_alive: int, client_id: str, connack: bytes) -> None:
        """The edge accepted the connection."""
        if self.state != WAITING:
            return
        self.state = OPEN
        self.answered = True
        self._client_id = client_id
        self._door.counters.accepted += 1
        self._write(connack)
        self._pong()
        self.home.wheel.watch(self, KEEP_ALIVE_FACTOR * keep_alive)

    def down(self, body: bytes, packets: list[bytes]) -> None:
        """Packets for the vehicle."""
        self._door.counters.packets_down += len(packets)
        data = self.exchange.down(body, packets)
        if data:
            self._write(data)
        self._credit += len(body)  # exactly what the edge has counted

    def traced(self, context: TraceContext, publish: bytes) -> None:
        """``publish``, which comes next, belongs to a sampled trace."""
        if self.gone:
            return
        span = self._door.tracer.start(RELAY, context, publish_topic(publish), self.name, CLIENT)
        packet_id = publish_packet_id(publish)
        if packet_id == 0:
            span.end()
            return
        if self._spans is None:
            self._spans = {}
        before = self._spans.get(packet_id)
        self._spans[packet_id] = span
        if before is not None:
            before.end(UNSPECIFIED_ERROR)

    def ease(self) -> None:
        """Less is held than before: read the socket again if nothing speaks against it."""
        if self.holds & HOLD_LINK and self._link is not None:
            low = self._door.settings.held_per_vehicle // 2
            if self.exchange.held <= low and not self._link.full(self):
                self.release(HOLD_LINK)

    def shut(self) -> None:
        """The edge ends the connection: write what is pending, then close."""
        if self.state == CLOSED:
            return
        self.state = CLOSED
        if not self._out:
            self._door.turn.mark(self)

    # The turn

    def flush(self) -> None:
        """Write what came in this turn."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            self._out = []
            self.write(data)
        if self.state == CLOSED:
            self.finish()
            self._end()
        elif self._credit >= CREDIT_STEP and not self.holds & HOLD_WRITING:
            self._give_credit()

    def dismiss(self) -> None:
        """The door stops: tell a client that can be told [MQTT 5.0 section 4.13], and close."""
        if self.state == OPEN:
            self._finish(farewell(self._protocol, self._door.admission.redirect, self._maximum))
        elif self.state in (ROUTING, WAITING):
            self._finish(refusal(self._protocol, SERVER_UNAVAILABLE))
        else:
            self._finish(b"")

    # CONNECT

    def _greeted(self, raw: bytes) -> None:
        reader = Reader(self._door.limits, SERVER)
        packets = reader.feed(raw)
        self._protocol = reader.protocol
        connect = packets[0] if packets else None
        if not isinstance(connect, Connect):
            error = reader.error
            reason = PACKET_TOO_LARGE if error is None else error.reason
            self._drop(str(error), malformed(reader.protocol, reason))
            return
        self._connect = raw
        self._maximum = maximum_of(connect)
        try:
            self._authentication = authentication = self._door.admission.check(connect, len(self.home.streams))
            if authentication is None:
                self._identified(connect, self._door.identify(connect, self._peer))
            else:
                self._answered(connect, authentication, authentication.begin())
        except Refused as refused:
            self._refuse(refused)

    def _answered(self, connect: Connect, authentication: Authentication, answer: bytes) -> None:
        """A step of the authentication is done: the next one, or who it is is proven. Raises ``Refused``."""
        if answer:
            self._pending = connect
            self.state = PROVING
            self.write(answer)
            return
        self._pending = None
        vehicle = self._door.proven(connect, authentication.identity)
        self._connect = encode(connect, MQTT5)  # the edge is not told the proof, but what CONNACK has to say of it
        self._identified(connect, vehicle)

    def _prove(self, raw: bytes) -> None:
        """A packet before CONNACK, while the vehicle proves who it is."""
        connect, authentication = self._pending, self._authentication
        if connect is None or authentication is None:
            return
        try:
            self._answered(connect, authentication, authentication.proceed(self._read(raw)))
        except GaveUp:
            self._drop("it gave up proving who it is", b"")
        except Refused as refused:
            self._refuse(refused)

    def _read(self, raw: bytes) -> Packet:
        """A whole packet that is for the door itself. Raises ``Refused`` if it is malformed."""
        reader = Reader(self._door.limits, SERVER, self._protocol)
        packets = reader.feed(raw)
        if not packets:
            error = reader.error
            raise Refused(PROTOCOL_ERROR if error is None else error.reason, str(error))
        return packets[0]

    def _prove_again(self, packets: list[bytes], authentication: Authentication) -> list[bytes]:
        """Answer the AUTHs among the packets of an open connection (MQTT 5.0 section 4.12.1); the others."""
        others: list[bytes] = []
        for raw in packets:
            if raw[0] >> 4 != AUTH:
                others.append(raw)
                continue
            try:
                self._write(authentication.again(self._read(raw)))
            except Refused as refused:
                self._drop(f"it did not prove who it is: {refused}", self._goodbye(refused.reason))
                return []
        return others

    def _identified(self, connect: Connect, vehicle: str) -> None:
        self.name = vehicle
        if connect.protocol == MQTT5 and self._door.settings.topic_aliases:
            self._aliases = AliasTable(self._door.settings.topic_aliases)
        self.state = ROUTING
        self.home.wheel.watch(self, self._door.settings.attach_timeout)
        record = self._door.map.cached(self.name)
        if record is not None:
            self._join(record.edge, record.epoch)
        else:
            self.hold(HOLD_IDENTITY)
            self._task = self.home.loop.create_task(self._route())

    async def _route(self) -> None:
        """Ask the map, and claim an edge for a vehicle that was never seen."""
        try:
            record = await self._door.map.lookup(self.name)
            if record is None:
                record = await self._door.map.claim(self.name)
        except Exception as error:  # noqa: BLE001  whatever fails at the map: the vehicle is told politely
            self._task = None
            self._refuse(Refused(SERVER_UNAVAILABLE, f"the map gives no edge for {self.name}: {error}"))
            return
        self._task = None
        if self.state == ROUTING:
            self._join(record.edge, record.epoch)
            self.release(HOLD_IDENTITY)

    def _join(self, edge: str, epoch: int) -> None:
        self._epoch = epoch
        self.state = WAITING
        self._link = self._door.links.get(edge)
        self._link.add(self)
        early, self._early = self._early, []
        if early:
            self._up(early)

    # After CONNECT

    def _up(self, packets: list[bytes]) -> None:
        link = self._link
        if link is None:
            return
        if self._authentication is not None:
            packets = self._prove_again(packets, self._authentication)
            if not packets:
                return
        if self._aliases is not None:
            self._resolve(packets, self._aliases)
            if self.state == CLOSED:
                return
        if self._spans:
            self._settle(packets)
        self._door.counters.packets_up += len(packets)
        entry = self.exchange.up(packets)
        if self.exchange.pings and self.state == OPEN:
            self._pong()
        if entry is None:
            return
        room = link.carry(self, entry)
        if not room or self.exchange.held > self._door.settings.held_per_vehicle:
            self.hold(HOLD_LINK)

    def _resolve(self, packets: list[bytes], aliases: AliasTable) -> None:
        """Put topic names in the place of aliases: those belong to the connection, which outlives its edge."""
        aliases.grown = 0
        for index, raw in enumerate(packets):
            if raw[0] >> 4 == PUBLISH:
                packets[index] = aliases.plain(raw)
                if aliases.grown > self._door.limits.max_packet_size:  # a few bytes must not become a flood inside
                    why = "its topic aliases stand for too many bytes at once"
                    self._drop(why, self._goodbye(QUOTA_EXCEEDED, why))
                    return

    def _pong(self) -> None:
        pings, self.exchange.pings = self.exchange.pings, 0
        if pings:
            self._write(_PINGRESP * pings)

    def _settle(self, packets: list[bytes]) -> None:
        """End the spans of what the vehicle acknowledges."""
        spans = self._spans
        for raw in packets:
            if spans and raw[0] >> 4 in (PUBACK, PUBCOMP):
                span = spans.pop(ack_packet_id(raw), None)
                if span is not None:
                    span.end()

    def _write(self, data: bytes) -> None:
        if self.gone:
            return
        if not self._out:
            self._door.turn.mark(self)
        self._out.append(data)

    def _give_credit(self) -> None:
        size, self._credit = self._credit, 0
        if self._link is not None:
            self._link.credit(self, size)

    def _excused(self) -> bool:
        """Whether the silence is ours: what it sent is not read, because of us, or because it is still reading what we
        wrote."""
        if self.holds & HOLD_LINK:
            return True
        pending, before = self.pending(), self._stuck
        self._stuck = pending
        return bool(self.holds & HOLD_WRITING) and (before == 0 or pending < before)

    # The end

    def _violation(self, error: ProtocolError) -> None:
        self._drop(str(error), self._goodbye(error.reason, str(error)))

    def _goodbye(self, reason: int, why: str = "") -> bytes:
        """The DISCONNECT for it, with what it may know of the reason; nothing before CONNACK [MQTT-3.2.0-1]."""
        return goodbye(self._protocol, reason, self._maximum, why) if self.state == OPEN else b""

    def _refuse(self, error: Refused) -> None:
        answer = refusal(self._protocol, error.reason, error.reference, self._maximum)
        self._drop(f"refused: {name_of(error.reason)}: {error}", answer)

    def _drop(self, why: str, last: bytes) -> None:
        if self.state == CLOSED:
            return
        if self.state != OPEN:
            self._door.counters.refused += 1
        self._door.notices.warn("closed", "%s: connection of %s closed: %s", self._door.name, self._peer, why)
        self._finish(last)

    def _finish(self, last: bytes) -> None:
        if self.state == CLOSED:
            return
        self.state = CLOSED
        if self._out:
            self.write(b"".join(self._out))
            self._out = []
        if last:
            self.write(last)
        self.finish()
        self._end()

    def _end(self) -> None:
        """The vehicle is gone for the rest of the mesh, whatever its socket still does."""
        if self.gone:
            return
        self.gone = True
        self.state = CLOSED
        self._early = []
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if self._link is not None:
            self._link.leave(self)
        spans, self._spans = self._spans, None
        for span in (spans or {}).values():
            span.end(UNSPECIFIED_ERROR)
