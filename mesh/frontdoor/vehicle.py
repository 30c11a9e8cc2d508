"""One vehicle's socket at the front door.

``ClientStream`` reads CONNECT; this finds the vehicle's edge and passes whole packets on. Of their content it reads
only what PINGREQ, AUTH, topic aliases and traces need. It must never know sessions, what is stored, or how its edge is
reached. What always holds:

* packets that come before CONNACK keep their order, and nothing is sent to the vehicle before CONNACK [MQTT-3.2.0-1];
* PINGREQ is answered here, whether or not the edge is connected;
* a vehicle is not read while its path holds as many bytes as it may;
* bytes that the vehicle reads are given back to the edge as credit, so at most one window of bytes is under way to it.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.trace import CLIENT, RELAY
from mesh.frontdoor.context import DoorContext, Owner
from mesh.frontdoor.edgepath import EdgePath, VehicleConnection
from mesh.session.span import Span
from mesh.transport.authentication import Later
from mesh.transport.frame import CREDIT_STEP
from mesh.transport.refusal import Refused
from mesh.transport.states import OPEN, WAITING
from mesh.transport.stream import HOLD_IDENTITY, HOLD_LINK, HOLD_WRITING
from mesh.wire.aliases import AliasTable
from mesh.wire.encode import encode
from mesh.wire.frames import Framer, ack_packet_id, connect_client_id, publish_packet_id, publish_topic
from mesh.wire.packets import AUTH, MQTT5, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, Ping
from mesh.wire.partial import large
from mesh.wire.reasons import (
    ADMINISTRATIVE_ACTION,
    BANNED,
    NOT_AUTHORIZED,
    QUOTA_EXCEEDED,
    SERVER_UNAVAILABLE,
    UNSPECIFIED_ERROR,
    farewell_code,
)
from mesh.wire.tracecontext import TraceContext

_PINGREQ: Final = encode(Ping(PINGREQ), MQTT5)
_PINGRESP: Final = encode(Ping(PINGRESP), MQTT5)

_EXPELLED: Final = {
    BANNED: "it is banned",
    ADMINISTRATIVE_ACTION: "an operator ended its connection",
    NOT_AUTHORIZED: "this vehicle is not admitted now",
}


@final
class Vehicle(VehicleConnection):
    """One vehicle's connection."""

    __slots__ = ("_aliases", "_door", "_framer", "_out", "_path", "_pings", "_spans")

    def __init__(self, door: DoorContext) -> None:
        super().__init__(door.clients)
        self._door = door
        self._framer: Framer | None = None
        self._path: EdgePath | None = None
        self._out: list[bytes] | None = None  # written at the end of this turn
        self._aliases: AliasTable | None = None
        self._pings = 0  # PINGREQs that are not answered yet
        self._spans: dict[int, Span] | None = None
        self.since = time.time_ns() // 1_000_000

    # ClientStream

    def identify(self) -> None:
        found = self._door.identify(self.life.connect(), self.peer, self.life.claim())
        if isinstance(found, Claim):
            record = self._identified(found)
            if record is not None:
                self._join(record.edge, record.epoch)
            else:
                self.look_up(self._route())
        else:
            self.look_up(self._wait(found))

    async def _wait(self, found: Coroutine[object, object, Claim]) -> None:
        """Wait for the claim."""
        try:
            record = self._identified(await found)
        except Refused as refused:
            self.refuse(refused)
            return
        if record is None:
            await self._route()
        else:
            self._join(record.edge, record.epoch)
            self.release(HOLD_IDENTITY)

    def _identified(self, claim: Claim) -> Owner | None:
        """The vehicle is known; returns its owner if that is cached. Raises ``Refused``."""
        door, life = self._door, self.life
        door.flap(claim.name)
        self.claim = claim
        self.rest_on(claim)
        self.name = claim.name
        self.roles = door.roles_of(claim)
        self.connect = self._onward(claim)
        if life.protocol == MQTT5 and door.settings.topic_aliases:
            self._aliases = AliasTable(door.settings.topic_aliases)
        return door.map.cached(claim.name)

    def _onward(self, claim: Claim) -> bytes:
        """The CONNECT for the edge: without a password, which is the business of this door only."""
        connect = self.life.connect()
        if self._door.settings.set_username:
            connect.username = claim.name
        elif connect.password is None:
            return self.life.connect_packet()
        connect.password = None
        return encode(connect, MQTT5)

    async def _route(self) -> None:
        """Look up the vehicle in the map, and claim an edge for a vehicle that has no record."""
        map, name = self._door.map, self.name
        try:
            record = await map.lookup(name)
            if record is None:
                record = await map.claim(name)
        except Exception as error:  # noqa: BLE001  any error of the map refuses the vehicle
            self.refuse(Refused(SERVER_UNAVAILABLE, f"the map has no edge for {name}: {error}"))
            return
        self._join(record.edge, record.epoch)
        self.release(HOLD_IDENTITY)

    def _join(self, edge: str, epoch: int) -> None:
        door = self._door
        self.epoch = epoch
        early = self.hand_over()
        self._framer = Framer(door.clients.admission.limits.max_packet_size)
        self._path = door.join(edge, self)
        if early:
            self.packets(early)

    def packets(self, data: bytes) -> bool:
        framer = self._framer
        if framer is None:
            return False
        packets = framer.feed(data)
        if packets:
            self._up(packets)
            self._door.turn.relayed(len(packets))
        error = framer.error
        if error is not None and not self.life.ended():
            self.drop(str(error), self.life.goodbye(error.reason, str(error)))
        if framer.kept != self.kept:
            self.keep(framer.kept)
        return len(packets) > 0

    def progress(self) -> int:
        return -1 if self._framer is None else self._framer.progress()

    def fail(self, reason: int, why: str) -> None:
        self.drop(f"{self.name}: {why}", self.life.goodbye(reason))

    def end(self, reason: int, why: str) -> None:
        """End the connection for a reason that has nothing to do with what the vehicle sent."""
        if self.life.state == OPEN:
            self.fail(reason, why)
        else:
            self.refuse(Refused(reason, f"{self.name}: {why}"))

    def expelled(self, reason: int) -> None:
        """An operator, or a change of what admitted the vehicle, ends the connection. The will of a banned vehicle is
        not published: its edge gets a DISCONNECT in its name, which is kept for an edge that is away as any packet
        is."""
        if reason == BANNED and self._path is not None:
            self._path.conclude()
        self.end(farewell_code(reason) if self.life.state == OPEN else reason, _EXPELLED[reason])

    def client_id(self) -> str:
        """The client id, also one that the edge assigned; empty if it is not known yet."""
        own = connect_client_id(self.connect) if self.connect else ""
        return own if own or self._path is None else self._path.assigned()

    def client(self) -> str:
        return self.name or self.peer.address

    def buffered(self) -> int:
        if self.life.state < WAITING:
            return 0  # the CONNECT is still counted with the first packet
        aliases = self._aliases
        return large(len(self.connect)) + (0 if aliases is None else large(aliases.size))

    def before_last(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            self.write(b"".join(out))

    def ended(self) -> None:
        path, self._path = self._path, None
        self._framer = None  # and what it buffers
        self._aliases = None
        if path is not None:
            path.leave()
        spans, self._spans = self._spans, None
        for span in (spans or {}).values():
            span.end(UNSPECIFIED_ERROR)

    # Stream

    def congested(self) -> None:
        self.hold(HOLD_WRITING)  # a vehicle that does not read its answers is not read either

    def relieved(self) -> None:
        self.release(HOLD_WRITING)
        self.owe()
        if self.uncredited >= CREDIT_STEP:
            self._give_credit()

    # From the edge

    def welcome(self, keep_alive: int, connack: bytes) -> None:
        if self.life.state != WAITING:
            return
        self._door.counters.accepted += 1
        self._write(connack)
        self.established(keep_alive)
        self._pong()

    def down(self, data: bytes, size: int, count: int) -> None:
        self._door.counters.packets_down += count
        if data:
            self._write(data)
        self.uncredited += size

    def traced(self, context: TraceContext, publish: bytes, client_id: str) -> None:
        if self.life.ended():
            return
        client = client_id or connect_client_id(self.connect)
        span = self._door.tracer.start(RELAY, context, publish_topic(publish), self.name, client, self.peer, CLIENT)
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
        """Read the socket again if the path accepts more packets."""
        if self.holds & HOLD_LINK and self._path is not None and self._path.free():
            self.release(HOLD_LINK)

    def shut(self) -> None:
        self._path = None
        self.close()

    # The turn

    def flush(self) -> None:
        """Write the output of this turn."""
        out = self._out
        if out is not None:
            self._out = None
            self.write(out[0] if len(out) == 1 else b"".join(out))
        if self.holds & HOLD_WRITING:
            self.owe()
        elif self.uncredited >= CREDIT_STEP:
            self._give_credit()

    # After CONNECT

    def _up(self, packets: list[bytes]) -> None:
        path = self._path
        if path is None:
            return
        if self.life.proves():
            packets = self._prove_again(packets)
        if self._aliases is not None:
            framer = self._framer
            self._resolve(packets, self._aliases, 0 if framer is None else framer.largest)
        if self._spans:
            self._settle(packets)
        self._door.counters.packets_up += len(packets)
        packets = self._without_pings(packets)
        if self.life.ended() or not packets:
            return
        if not path.carry(packets):
            self.hold(HOLD_LINK)

    def _prove_again(self, packets: list[bytes]) -> list[bytes]:
        """Answer the AUTHs of an open connection (MQTT 5.0 section 4.12.1); returns the other packets."""
        others: list[bytes] = []
        for raw in packets:
            if raw[0] >> 4 != AUTH:
                others.append(raw)
                continue
            try:
                self._proven(self.life.prove_again_raw(raw))
            except Later as later:
                self.answer_later(later)
            except Refused as refused:
                self._disproven(refused)
                return []
        return others

    def prove(self) -> None:
        try:
            self._proven(self.life.prove_later())
        except Refused as refused:
            self._disproven(refused)

    def _proven(self, answer: bytes) -> None:
        self._write(answer)
        claim = self.claim = self.life.claim()
        self.rest_on(claim)
        if claim is not None:
            self.entitle(claim)

    def entitle(self, claim: Claim) -> None:
        """Tell the edge if the vehicle has other roles than before."""
        roles = self._door.roles_of(claim)
        if roles != self.roles:
            self.roles = roles
            if self._path is not None:
                self._path.entitle()

    def _disproven(self, refused: Refused) -> None:
        self.drop(f"its re-authentication failed: {refused}", self.life.goodbye(refused.reason))

    def _resolve(self, packets: list[bytes], aliases: AliasTable, largest: int) -> None:
        """Replace topic aliases by topic names: aliases belong to the connection, which outlives its edge. ``largest``:
        bytes of a packet of this connection."""
        size = aliases.size
        aliases.grown = 0
        for index, raw in enumerate(packets):
            if raw[0] >> 4 == PUBLISH:
                packets[index] = aliases.plain(raw)
                if aliases.grown > largest:  # a few bytes must not expand into many on the link
                    why = "its topic aliases stand for too many bytes at once"
                    self.drop(why, self.life.goodbye(QUOTA_EXCEEDED, why))
                    return
        if aliases.size != size:
            self.recount()

    def _without_pings(self, packets: list[bytes]) -> list[bytes]:
        """The packets that are not PINGREQ; PINGREQs are answered."""
        pings = 0
        for raw in packets:
            if raw[0] >> 4 == PINGREQ and raw == _PINGREQ:
                pings += 1
        if pings == 0:
            return packets
        self._pings += pings
        self._pong()
        return [raw for raw in packets if raw != _PINGREQ]

    def _pong(self) -> None:
        if self._pings and self.life.state == OPEN:
            pings, self._pings = self._pings, 0
            self._write(_PINGRESP * pings)

    def _settle(self, packets: list[bytes]) -> None:
        """End the spans of the messages that the vehicle acknowledges."""
        spans = self._spans
        for raw in packets:
            if spans and raw[0] >> 4 in (PUBACK, PUBCOMP):
                span = spans.pop(ack_packet_id(raw), None)
                if span is not None:
                    span.end()

    def _write(self, data: bytes) -> None:
        if self.life.ended():
            return
        if self._out is None:
            self._out = [data]
            self._door.turn.mark(self)
        else:
            self._out.append(data)

    def _give_credit(self) -> None:
        size, self.uncredited = self.uncredited, 0
        if self._path is not None:
            self._path.credit(size)
