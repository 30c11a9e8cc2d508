"""The tier link: this core's MQTT 5 session with one edge.

It knows the protocol towards the edge, what waits for it, and whom to tell: never where the edge is or how the socket
is opened (``dialer`` does). What always holds:

* a publish of a back end is answered when the edge has answered it, or when it is in the spool: as soon as the edge is
  away, does not answer in ``answer`` seconds, or has messages of its own still waiting in the spool, new ones are
  spooled;
* messages reach the edge in the order in which they came here, spooled or not;
* a message from the edge is acknowledged when the durable sessions that it is for have it on disk.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol, final

from mesh.broker.broker import Broker
from mesh.broker.gate import Gate
from mesh.broker.ledger import INSTANCE
from mesh.broker.trace import CLIENT, RELAY, SPOOL
from mesh.core.intake import Intake
from mesh.core.spool import TIER_FILTER, Spool
from mesh.core.upstream import PLAIN, Upstream
from mesh.session.inbound import Receipt
from mesh.session.message import NEVER, Message, publish_packet
from mesh.session.outbound import RELEASED, Delivery, Depth, Outbound, packet_id_of
from mesh.session.span import Span
from mesh.session.store import Item
from mesh.transport.turn import Turn
from mesh.wire import reasons
from mesh.wire.decode import CLIENT as CLIENT_ROLE
from mesh.wire.decode import Reader
from mesh.wire.encode import encode, encode_ack
from mesh.wire.limits import Limits
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from mesh.wire.properties import Properties
from mesh.wire.topics import is_shared

KEEP_ALIVE: Final = 10  # seconds; an edge that is silent for 1.5 times that is taken for dead
IN_FLIGHT: Final = 8192  # publishes with the edge; its own limit may be lower
_EXPIRY: Final = 7 * 86_400  # seconds that an edge keeps this core's session while the core is away
# Retain handling (MQTT 5.0 section 3.8.3.1).
_RETAINED: Final = 0
_RETAINED_IF_NEW: Final = 1
_NOTHING_RETAINED: Final = 2
_PING: Final = encode(Ping(PINGREQ), MQTT5)


class Wire(Protocol):
    """The socket, as the link sees it."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def finish(self) -> None:
        """Close."""


@final
class TierLink:
    """``limits`` bound what the edge may send. ``flush`` is called at the end of every turn."""

    def __init__(
        self, edge: str, core: str, password: bytes, broker: Broker, upstream: Upstream, spool: Spool, limits: Limits,
        answer: float,
    ) -> None:
        self.edge = edge
        self.spool = spool
        self.outbound = Outbound(Depth(), IN_FLIGHT)
        self.up = False
        self.wire: Wire | None = None
        self.out: list[bytes] = []
        self.sent = 0
        self.spooled = 0
        self.rejected = 0  # spooled messages that the edge refused after the back end had been answered
        self.last_error = ""
        self._core = core
        self._instance = secrets.token_hex(8)
        self._password = password
        self._broker = broker
        self._upstream = upstream
        self._limits = limits
        self._patience = answer
        self._reader = Reader(limits, CLIENT_ROLE, MQTT5)
        self._spans: dict[Delivery, Span] = {}
        self._spool_waiting = 0  # spooled deliveries in the queue: while there are any, new ones go behind them on disk
        self._slow = False
        self._direct = 0  # deliveries whose publisher waits
        self._heard = 0.0
        self._pinged = False
        self._next_request = 0
        self._requests: dict[int, tuple[list[str], bool, Gate | None]] = {}
        self._known: dict[str, int] = {}  # filters that the edge has, with their journal items
        self._releases: deque[tuple[int, int]] = deque()  # journal position to wait for, identifier to release
        self._intake = Intake(edge, broker, upstream, self._put)

    def restore(self, spooled: Iterable[Item], filters: dict[str, int], incoming: Iterable[Item]) -> None:
        """What the journal kept of this link."""
        self.spool.restore(spooled, self.outbound)
        self._spool_waiting = len(self.outbound.waiting)
        self._known = filters
        for item in incoming:
            self._intake.restore(item)

    def status(self) -> dict[str, object]:
        """Figures for people and metrics."""
        return {
            "state": "up" if self.up else "away",
            "in_flight": len(self.outbound.in_flight),
            "waiting": len(self.outbound.waiting),
            "spool": self.spool.messages,
            "spool_bytes": self.spool.bytes,
            "sent": self.sent,
            "arrived": self._intake.arrived,
            "spooled": self.spooled,
            "rejected": self.rejected,
            "last_error": self.last_error,
        }

    # From the router

    def send(self, message: Message, receipt: Receipt | None) -> None:
        """Bring ``message`` to the edge."""
        qos = message.qos
        delivery = Delivery(message, qos, message.retain, (), message.received, message.expires, message.size())
        if qos == 0:
            if self.up:
                self._transmit(delivery, message)
            return
        direct = self.up and qos == 1 and not self._slow and self._spool_waiting == 0
        if not direct and self.spool.full(delivery.size):
            if receipt is not None:
                receipt.note(reasons.QUOTA_EXCEEDED)
            return
        self.outbound.number(delivery)
        if direct:
            delivery.receipt = receipt
            if receipt is not None:
                receipt.pending += 1
                self._direct += 1
        else:
            self._to_spool(delivery, message, receipt)
            self._spool_waiting += 1
        self.outbound.push(delivery)
        self._pump()

    def _to_spool(self, delivery: Delivery, message: Message, receipt: Receipt | None) -> None:
        self.spool.keep(delivery, message)
        self.spooled += 1
        if not self.up:
            delivery.message = None
        if receipt is not None:
            receipt.note(reasons.SUCCESS)
            receipt.position = max(receipt.position, delivery.position)

    def _pump(self) -> None:
        if not self.up:
            return
        outbound = self.outbound
        durable = self._broker.outbox.durable
        while True:
            delivery = outbound.take(durable)
            if delivery is None:
                return
            if delivery.item:
                self._spool_waiting -= 1
            if delivery.expires != NEVER and delivery.expires <= self._broker.clock():
                self._finish(packet_id_of(delivery.number), reasons.SUCCESS)
                continue
            self._transmit(delivery, self.spool.load(delivery))

    def _transmit(self, delivery: Delivery, message: Message) -> None:
        now = self._broker.clock()
        delivery.started = now
        packet_id = packet_id_of(delivery.number) if delivery.qos else 0
        span = self._span(delivery, message, now) if message.trace is not None else None
        packet = publish_packet(
            message, MQTT5, delivery.qos, delivery.retain, delivery.dup, packet_id, now, (),
            None if span is None else span.context,
        )  # fmt: skip
        self.sent += 1
        self._put(packet)

    def _span(self, delivery: Delivery, message: Message, now: float) -> Span | None:
        tracer = self._broker.tracer
        parent = message.trace
        if parent is None or not tracer.enabled:
            return None
        topic = message.topic
        vehicle = self._broker.vehicle_of(topic)
        link = parent if message.fan_out else None
        if delivery.item:
            parent = tracer.record(SPOOL, parent, topic, vehicle, int(delivery.since * 1e9), int(now * 1e9))
        span = tracer.start(RELAY, parent, topic, vehicle, CLIENT, link)
        if delivery.qos:
            self._spans[delivery] = span
        else:
            span.end()
        return span

    def _put(self, packet: bytes) -> None:
        if self.wire is not None:
            self.out.append(packet)

    def waits(self) -> bool:
        """Whether something of this link waits for the journal."""
        return self._spool_waiting > 0 or bool(self._releases) or self._intake.waits()

    def flush(self) -> None:
        """Write what the turn has gathered."""
        if self.out and self.wire is not None:
            data = b"".join(self.out)
            self.out.clear()
            self.wire.write(data)

    # The connection

    def connected(self, wire: Wire) -> None:
        """The socket is open: say who this is."""
        self.wire = wire
        self._reader = Reader(self._limits, CLIENT_ROLE, MQTT5)
        self._heard = self._broker.clock()
        self._pinged = False
        properties = Properties()
        properties.session_expiry = _EXPIRY
        properties.receive_maximum = IN_FLIGHT
        properties.user = [(INSTANCE, self._instance)]
        self._put(encode(
            Connect(MQTT5, self._core, False, KEEP_ALIVE, self._core, self._password, None, properties), MQTT5
        ))  # fmt: skip

    def received(self, data: bytes, turn: Turn) -> None:
        """Bytes of the edge, in ``turn``."""
        self._heard = self._broker.clock()
        self._pinged = False
        for packet in self._reader.feed(data):
            self._handle(packet)
            turn.step()
        if self._reader.error is not None:
            self._give_up(f"the edge sent what is no MQTT: {self._reader.error}")
        self.advance()

    def advance(self) -> None:
        """The journal may have come further, or the edge has answered: send what waited for that."""
        self._intake.settle()
        durable = self._broker.outbox.durable
        while self._releases and self._releases[0][0] <= durable:
            self._put(encode_ack(PUBREL, self._releases.popleft()[1], reasons.SUCCESS, MQTT5))
        self._pump()

    def lost(self) -> None:
        """The socket is gone: what the edge has not answered goes to the spool, and its publishers get their answers.
        """
        self.wire = None
        self.up = False
        self.out.clear()
        self._releases.clear()
        self._intake.lost()
        for _, _, gate in self._requests.values():
            self._open(gate)
        self._requests.clear()
        self._shelter()
        for span in self._spans.values():
            span.end(reasons.SERVER_UNAVAILABLE)
        self._spans.clear()

    def _give_up(self, why: str) -> None:
        self.last_error = why
        if self.wire is not None:
            self.wire.finish()

    def tick(self) -> None:
        """Once a second: is the edge alive, and does it answer?"""
        if self.wire is None:
            return
        now = self._broker.clock()
        if now - self._heard > KEEP_ALIVE * 1.5:
            self._give_up("the edge is silent")
        elif now - self._heard > KEEP_ALIVE / 2 and not self._pinged:
            self._pinged = True
            self._put(_PING)
        if self._direct and self._oldest_direct() < now - self._patience:
            self._slow = True
            self._shelter()

    def _oldest_direct(self) -> float:
        for delivery in self.outbound.in_flight.values():
            if delivery.receipt is not None:
                return delivery.started
        return self._broker.clock()

    def _shelter(self) -> None:
        """Put all whose publishers wait into the spool; they stay in flight if they are."""
        if not self._direct:
            return
        flying = sorted(self.outbound.in_flight.items())
        waiting = self.outbound.waiting
        for _, delivery in flying:
            self._shelter_one(delivery)
        for delivery in waiting:
            if self._shelter_one(delivery):
                self._spool_waiting += 1
        self._direct = 0

    def _shelter_one(self, delivery: Delivery) -> bool:
        receipt, message = delivery.receipt, delivery.message
        if delivery.qos == 0 or delivery.item or message is None:
            return False
        delivery.receipt = None
        self._to_spool(delivery, message, None)
        if receipt is not None:
            receipt.pending -= 1
            receipt.note(reasons.SUCCESS)
            receipt.position = max(receipt.position, delivery.position)
            self._broker.answered(receipt)
        return True

    # Packets of the edge

    def _handle(self, packet: Packet) -> None:
        if isinstance(packet, Ack):
            self._acknowledged(packet)
        elif isinstance(packet, Publish):
            self._intake.publish(packet)
        elif isinstance(packet, SubAck):
            self._subscribed(packet)
        elif isinstance(packet, Connack):
            self._accepted(packet)
        elif isinstance(packet, Disconnect):
            self._give_up(f"the edge closed the link: {reasons.name_of(packet.reason)}")

    def _accepted(self, packet: Connack) -> None:
        if packet.reason != reasons.SUCCESS:
            self._give_up(f"the edge refused this core: {reasons.name_of(packet.reason)}")
            return
        self.up = True
        self._slow = False
        self.last_error = ""
        self._take_limits(packet.properties)
        if not packet.session_present:
            for item in self._known.values():
                self._broker.store.drop(item)
            self._known.clear()
            self._intake.forget()
        self._subscribe_all()
        for delivery in self.outbound.reconnect():
            self._releases.append((delivery.position, packet_id_of(delivery.number)))
        self._spool_waiting = sum(1 for delivery in self.outbound.waiting if delivery.item)
        self._pump()

    def _take_limits(self, properties: Properties | None) -> None:
        offered = None if properties is None else properties.receive_maximum
        self.outbound.window = min(IN_FLIGHT, 0xFFFF if offered is None else offered)

    def _subscribe_all(self) -> None:
        """Bring the edge's subscriptions for this core up to date."""
        wanted = self._upstream.filters()
        for filter, identifier in wanted.items():
            self._ask(filter, identifier, _RETAINED_IF_NEW, None)
        for filter in [name for name in self._known if name not in wanted]:
            self._ask_not(filter)

    def want(self, filter: str, identifier: int, gate: Gate) -> None:
        """A back end subscribes: tell the edge, and count it at the gate until it has answered."""
        if self.up:
            gate.pending += 1
            self._ask(filter, identifier, _RETAINED, gate)

    def unwant(self, filter: str) -> None:
        """Nobody is subscribed any more."""
        if self.up:
            self._ask_not(filter)

    def _request(self, filters: list[str], subscribe: bool, gate: Gate | None) -> int:
        self._next_request = self._next_request % 0xFFFF + 1
        self._requests[self._next_request] = (filters, subscribe, gate)
        return self._next_request

    def _ask(self, filter: str, identifier: int, retain_handling: int, gate: Gate | None) -> None:
        """Subscribe; a plain filter twice: for what is retained under its own identifier, then for what is new.

        Retain As Published, so that this core keeps what its back ends may ask for later.
        """
        if is_shared(filter):
            self._subscribe(Subscription(filter, 2, False, True), identifier, gate)
            return
        self._subscribe(Subscription(filter, 2, True, True, retain_handling), identifier, None)
        self._subscribe(Subscription(filter, 2, True, True, _NOTHING_RETAINED), PLAIN, gate)

    def _subscribe(self, subscription: Subscription, identifier: int, gate: Gate | None) -> None:
        properties = Properties()
        properties.subscription_ids = [identifier]
        packet_id = self._request([subscription.filter], True, gate)
        self._put(encode(Subscribe(packet_id, [subscription], properties), MQTT5))

    def _ask_not(self, filter: str) -> None:
        self._put(encode(Unsubscribe(self._request([filter], False, None), [filter]), MQTT5))

    def _subscribed(self, packet: SubAck) -> None:
        request = self._requests.pop(packet.packet_id, None)
        if request is None:
            return
        filters, subscribe, gate = request
        for filter, reason in zip(filters, packet.reasons, strict=True):
            if reasons.is_error(reason):
                self.last_error = f"the edge refused {filter}: {reasons.name_of(reason)}"
            elif subscribe and filter not in self._known:
                meta = f"{self.edge}\0{filter}".encode()
                self._known[filter] = self._broker.store.append(TIER_FILTER, 0, meta, b"")
            elif not subscribe and filter in self._known:
                self._broker.store.drop(self._known.pop(filter))
        self._open(gate)

    def _open(self, gate: Gate | None) -> None:
        if gate is not None:
            gate.pending -= 1
            if gate.pending == 0:
                self._broker.opened()

    def _acknowledged(self, packet: Ack) -> None:
        packet_id, reason = packet.packet_id, packet.reason
        if packet.type == PUBACK or packet.type == PUBCOMP or (packet.type == PUBREC and reasons.is_error(reason)):
            self._finish(packet_id, reason)
            self._pump()
        elif packet.type == PUBREC:
            delivery = self.outbound.received(packet_id)
            if delivery is not None and delivery.state != RELEASED:
                self.spool.release(delivery)
            # Sent before it is durable, a crash would be followed by the same PUBLISH with the same identifier, which
            # an edge that has seen the release would take for a new message.
            self._releases.append((0 if delivery is None else delivery.position, packet_id))
        elif packet.type == PUBREL:
            self._intake.release(packet_id)

    def _finish(self, packet_id: int, reason: int) -> None:
        delivery = self.outbound.finish(packet_id)
        if delivery is None:
            return
        span = self._spans.pop(delivery, None) if self._spans else None
        if span is not None:
            span.end(reason)
        receipt = delivery.receipt
        if delivery.item:
            self.spool.forget(delivery)
            if reasons.is_error(reason):
                self.rejected += 1
        elif receipt is not None:
            self._direct -= 1
            receipt.pending -= 1
            receipt.note(reason)
            self._broker.answered(receipt)
        if not self.outbound.in_flight:
            self._slow = False
