"""From a message to a receiver: queues it in the session, sends what the window allows, and takes the acknowledgements.

It knows sessions and connections, never topics or who subscribed to what. What always holds:

* a delivery that the journal keeps is sent only when the journal has it on disk;
* a queue that is full says so (a reason code or a dropped message that is counted), and never grows past its limit;
* a connection that cannot be written to is left alone: its session queues, nobody else waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, final

from mesh.broker.gate import Gate
from mesh.broker.keeper import Keeper
from mesh.broker.principal import TIER
from mesh.broker.session import Connection, Session
from mesh.broker.settings import DROP_OLDEST, Settings
from mesh.broker.trace import PRODUCER, SEND, WAIT, Span, Tracer
from mesh.session.inbound import Receipt
from mesh.session.message import NEVER, Message, publish_packet
from mesh.session.outbound import RELEASED, Delivery, Outbound, packet_id_of
from mesh.wire.encode import encode, encode_ack
from mesh.wire.packets import PUBREL, Packet
from mesh.wire.properties import Properties
from mesh.wire.reasons import PACKET_IDENTIFIER_NOT_FOUND, PACKET_TOO_LARGE, QUOTA_EXCEEDED, SUCCESS

# Deliveries of a connected session keep their message in memory as far as its next window reaches, and up to so many
# bytes; the rest are read from the journal when their turn comes.
_IN_MEMORY: Final = 64
_BYTES_IN_MEMORY: Final = 1 << 20
_HELD: Final = 1024  # answers of a connection that wait for the journal


def explained(why: str) -> Properties | None:
    """The properties of an answer that says why."""
    if not why:
        return None
    properties = Properties()
    properties.reason_string = why
    return properties


@final
class Counters:
    """What the courier and the engine count; the node shows it."""

    FIELDS: ClassVar[tuple[str, ...]] = (
        "answered", "connects", "delivered", "dropped_expired", "dropped_full", "dropped_large", "dropped_offline",
        "expired", "published", "received", "refused", "rejected", "takeovers",
    )  # fmt: skip
    __slots__ = FIELDS

    def __init__(self) -> None:
        self.connects = 0
        self.received = 0  # packets of all kinds
        self.answered = 0  # packets sent that are no PUBLISH
        self.expired = 0  # sessions that ended without a connection
        self.refused = 0
        self.takeovers = 0
        self.published = 0
        self.delivered = 0
        self.rejected = 0  # publishes answered with "quota exceeded"
        self.dropped_full = 0  # oldest messages dropped to make room, and QoS 0 to a receiver that does not keep up
        self.dropped_expired = 0
        self.dropped_large = 0  # more than the receiver's maximum packet size
        self.dropped_offline = 0  # QoS 0 to a session without a connection


@final
class Courier:
    """``durable`` is the journal's durable position; ``mark`` puts a connection on the engine's dirty list."""

    __slots__ = (
        "_spans", "clock", "counters", "dirty", "durable", "hungry", "keeper", "settings", "tracer", "waiting",
    )  # fmt: skip

    def __init__(self, settings: Settings, keeper: Keeper, clock: Callable[[], float], tracer: Tracer) -> None:
        self.settings = settings
        self.keeper = keeper
        self.clock = clock
        self.tracer = tracer
        self.counters = Counters()
        self.durable = 0
        self.dirty: list[Connection] = []
        self.waiting: list[Connection] = []  # connections with something that waits for the journal
        self.hungry: list[Session] = []  # sessions with arrears (see catchup.py) whose queue may have run low
        self._spans: dict[Delivery, Span] = {}  # of sampled messages that are with a receiver

    # Writing

    def mark(self, connection: Connection) -> None:
        """The connection has something to write."""
        if not connection.dirty:
            connection.dirty = True
            self.dirty.append(connection)

    def write(self, connection: Connection, packet: bytes) -> None:
        """Put a packet out, unless the connection is closing; behind CONNACK, if that waits for the journal
        [MQTT-3.2.0-1]."""
        if connection.held and not connection.accepted:
            connection.held.append((0, None, packet))
        elif not connection.closing:
            self.counters.answered += 1
            connection.out.append(packet)
            self.mark(connection)

    def write_after(self, connection: Connection, position: int, packet: bytes, gate: Gate | None = None) -> None:
        """Put a packet out when the journal has reached ``position`` and ``gate`` is open, behind those that wait
        already.
        """
        if position <= self.durable and not connection.held and gate is None:
            self.write(connection, packet)
        else:
            connection.held.append((position, gate, packet))
            self.wait(connection)

    def write_fitting(self, connection: Connection, packet: Packet, plain: Packet) -> None:
        """Put out ``packet``, or ``plain``, which says less, if the client takes no packet as large as that
        [MQTT-3.1.2-24]; nothing if even that is too large."""
        for candidate in (packet, plain):
            data = encode(candidate, connection.protocol)
            if connection.max_packet == 0 or len(data) <= connection.max_packet:
                self.write(connection, data)
                return
        self.counters.dropped_large += 1

    def wait(self, connection: Connection) -> None:
        """Look at the connection again when the journal has come further."""
        if not connection.waiting:
            connection.waiting = True
            self.waiting.append(connection)

    def strain(self, connection: Connection) -> None:
        """See whether so much of a connection waits for its answer that the shell must not read it, or may again."""
        unanswered, most = len(connection.inbound.receipts), connection.receive_maximum
        if unanswered >= most or len(connection.held) >= _HELD:
            connection.congested = True
        elif connection.congested and unanswered <= most // 2 and len(connection.held) <= _HELD // 2:
            connection.congested = False
            self.mark(connection)

    # Queueing

    def offer(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,
        subscription_ids: tuple[int, ...],
        receipt: Receipt | None,
        group: str = "",
    ) -> int:
        """Queue ``message`` for a session, which may get it as a member of a shared group; returns SUCCESS or
        QUOTA_EXCEEDED."""
        if qos == 0:
            self._offer_unreliable(session, message, retain, subscription_ids)
            return SUCCESS
        outbound = session.outbound
        size = message.size()
        if not self.make_room(session, size):
            self.counters.rejected += 1
            return QUOTA_EXCEEDED
        delivery = Delivery(message, qos, retain, subscription_ids, message.received, message.expires, size)
        delivery.group = group
        outbound.number(delivery)
        connection = session.connection
        if session.durable:
            self.keeper.keep(session, delivery, message)
            if receipt is not None and receipt.position < delivery.position:
                receipt.position = delivery.position
            if connection is None or outbound.bytes > _BYTES_IN_MEMORY or not self._soon(outbound):
                delivery.message = None
        outbound.push(delivery)
        if connection is not None:
            if session.durable:
                self.wait(connection)
            else:
                self.pump(session, connection)
        return SUCCESS

    def _soon(self, outbound: Outbound) -> bool:
        """Whether what is queued now is sent within a window or so."""
        ahead = len(outbound.waiting)
        return ahead < _IN_MEMORY or ahead < outbound.window

    def _offer_unreliable(
        self, session: Session, message: Message, retain: bool, subscription_ids: tuple[int, ...]
    ) -> None:
        connection = session.connection
        if connection is None or connection.closing:
            self.counters.dropped_offline += 1
            return
        outbound = session.outbound
        if not outbound.waiting and connection.writable and connection.accepted and connection.live:
            delivery = Delivery(message, 0, retain, subscription_ids, message.received, message.expires)
            self._send(session, connection, delivery, message)
        elif len(outbound.waiting) >= self.settings.max_queue_messages:
            self.counters.dropped_full += 1
        else:
            size = message.size()
            outbound.push(Delivery(message, 0, retain, subscription_ids, message.received, message.expires, size))

    def limits(self, session: Session) -> tuple[int, int]:
        """How many messages may wait for a session, and how many bytes it may hold."""
        settings = self.settings
        if session.inbox:
            return settings.inbox_messages, settings.inbox_bytes
        if session.kind == TIER:
            return settings.tier_queue_messages, settings.tier_queue_bytes
        return settings.max_queue_messages, settings.max_queue_bytes

    def make_room(self, session: Session, size: int) -> bool:
        """Whether a message of ``size`` bytes can be queued for a session, once what need not be kept is gone."""
        settings = self.settings
        messages, limit = self.limits(session)
        outbound = session.outbound
        if len(outbound.waiting) >= messages or outbound.bytes + size > limit:
            for expired in outbound.take_expired(self.clock()):
                self.keeper.forget(expired)
                self.counters.dropped_expired += 1
        # What is within the window of a connected receiver is on its way, and does not count as waiting.
        while len(outbound.waiting) >= messages or (outbound.bytes + size > limit and outbound.waiting):
            if not session.inbox or settings.inbox_when_full != DROP_OLDEST:
                return False
            oldest = outbound.drop_head()
            if oldest is None:
                return False
            self.keeper.forget(oldest)
            self.counters.dropped_full += 1
        return True

    # Sending

    def pump(self, session: Session, connection: Connection) -> None:
        """Send what may be sent now."""
        if not (connection.writable and connection.accepted and connection.live) or connection.closing:
            return
        outbound = session.outbound
        while True:
            delivery = outbound.take(self.durable)
            if delivery is None:
                break
            if delivery.expires != NEVER and delivery.expires <= self.clock():
                self.counters.dropped_expired += 1
                self._abandon(session, delivery)  # [MQTT-3.3.2-5]
                continue
            self._send(session, connection, delivery, self.keeper.load(delivery))
            if not connection.writable:
                return
        if outbound.waiting and outbound.waiting.first().position > self.durable:
            self.wait(connection)
        if session.arrears:
            self.hunger(session)

    def hunger(self, session: Session) -> None:
        """The session may have room for a portion of its arrears, at the end of this turn."""
        if not session.hungry:
            session.hungry = True
            self.hungry.append(session)

    def _abandon(self, session: Session, delivery: Delivery) -> None:
        if delivery.qos:
            session.outbound.finish(packet_id_of(delivery.number))
        self.keeper.forget(delivery)

    def _send(self, session: Session, connection: Connection, delivery: Delivery, message: Message) -> None:
        now = self.clock() if message.expires != NEVER else 0.0
        packet_id = packet_id_of(delivery.number) if delivery.qos else 0
        span = self._span(session, delivery, message) if message.trace is not None else None
        alias, known = 0, False
        if connection.alias_maximum:
            alias, known = self._alias(connection, message.topic)
        packet = publish_packet(
            message, connection.protocol, delivery.qos, delivery.retain, delivery.dup, packet_id, now,
            delivery.subscription_ids, None if span is None else span.context, alias, known,
        )  # fmt: skip
        if connection.max_packet and len(packet) > connection.max_packet:
            self._too_large(session, delivery)
            return
        if alias and not known and connection.aliases is not None:
            connection.aliases[message.topic] = alias
        if span is not None:
            connection.traced.append((len(connection.out), span.context))
        self.counters.delivered += 1
        connection.out.append(packet)
        if not connection.dirty:
            connection.dirty = True
            self.dirty.append(connection)

    def _alias(self, connection: Connection, topic: str) -> tuple[int, bool]:
        """The alias of a topic on this connection, and whether the client knows it. The first topics get one, as many
        as the client takes: those of a connection recur, and taking one away would cost as much as it saves."""
        aliases = connection.aliases
        if aliases is None:
            aliases = connection.aliases = {}
        alias = aliases.get(topic, 0)
        if alias:
            return alias, True
        return (len(aliases) + 1, False) if len(aliases) < connection.alias_maximum else (0, False)

    def _too_large(self, session: Session, delivery: Delivery) -> None:
        """More than the client takes: as if it had been sent and acknowledged [MQTT-3.1.2-25]. Its span ends here."""
        self.counters.dropped_large += 1
        self._ended(delivery, PACKET_TOO_LARGE)
        self._abandon(session, delivery)

    def _span(self, session: Session, delivery: Delivery, message: Message) -> Span | None:
        """The spans of a sampled message: the time that it waited, and its way to this receiver."""
        parent = message.trace
        if parent is None or not self.tracer.enabled:
            return None
        vehicle = session.vehicle
        now = self.clock()
        waited = self.tracer.record(WAIT, parent, message.topic, vehicle, int(delivery.since * 1e9), int(now * 1e9))
        span = self.tracer.start(SEND, waited, message.topic, vehicle, PRODUCER)
        if delivery.qos:
            self._spans[delivery] = span
        else:
            span.end()
        return span

    def _ended(self, delivery: Delivery, reason: int) -> None:
        span = self._spans.pop(delivery, None)
        if span is not None:
            span.end(reason)

    # Acknowledgements of the receiver

    def acknowledged(self, session: Session, connection: Connection, packet_id: int, reason: int) -> None:
        """PUBACK, or PUBCOMP, or PUBREC with an error. One for nothing that is known is ignored, as the client may
        repeat it.
        """
        delivery = session.outbound.finish(packet_id)
        if delivery is None:
            return
        self.keeper.forget(delivery)
        if self._spans:
            self._ended(delivery, reason)
        self.pump(session, connection)

    def received(self, session: Session, connection: Connection, packet_id: int) -> None:
        """PUBREC: keep that it came, then answer PUBREL [MQTT-4.3.3-4]."""
        delivery = session.outbound.received(packet_id)
        if delivery is None:
            reason = PACKET_IDENTIFIER_NOT_FOUND
            self.write(connection, encode_ack(PUBREL, packet_id, reason, connection.protocol))
            return
        if delivery.state != RELEASED:
            self.keeper.release(session, delivery)
        self.write_after(connection, delivery.position, encode_ack(PUBREL, packet_id, SUCCESS, connection.protocol))

    def release_again(self, connection: Connection, released: list[Delivery]) -> None:
        """Send PUBREL for what was released on an earlier connection [MQTT-4.4.0-1]."""
        for delivery in released:
            packet = encode_ack(PUBREL, packet_id_of(delivery.number), SUCCESS, connection.protocol)
            self.write_after(connection, delivery.position, packet)

    def detached(self, session: Session) -> None:
        """The session's connection is gone: no span can end well any more, and the journal alone holds what waits."""
        for delivery in session.outbound.in_flight.values():
            if self._spans:
                self._ended(delivery, QUOTA_EXCEEDED)
        if session.durable:
            for delivery in session.outbound.waiting:
                if delivery.item:
                    delivery.message = None
