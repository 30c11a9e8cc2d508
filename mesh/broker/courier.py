"""Deliveries: queues a message in the session of its receiver, sends what the window allows, and takes the
acknowledgements.

It knows sessions, their queues and their connections: never topics or subscriptions; ``Room`` says whether a queue has
room. What always holds:

* a delivery that the journal keeps is sent only when the journal has it on disk;
* a message that a queue has no room for is refused with a reason code (``Refusals`` decides what becomes of it), or
  with QoS 0 dropped and counted; a queue grows past its limit only by the messages of cores that ``Pressure`` allows,
  and by ``offer_above``;
* a connection that is not writable gets nothing: its session queues, and no other session waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mypy_extensions import i64

from mesh.broker.counters import SAMPLED, BrokerCounters
from mesh.broker.deadletters import DeadLetters
from mesh.broker.notices import Notices, shortened
from mesh.broker.outbox import Outbox
from mesh.broker.persistence import Persistence
from mesh.broker.pressure import Pressure
from mesh.broker.principal import TIER
from mesh.broker.quotas import Quotas
from mesh.broker.room import Room
from mesh.broker.session import Connection, Session
from mesh.broker.settings import Settings
from mesh.broker.slowdown import BEHIND, BYTES_BEHIND, Slowdown
from mesh.broker.trace import PRODUCER, SEND, WAIT, Tracer
from mesh.broker.work import Work
from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import NEVER, Message, publish_packet
from mesh.session.outbound import RELEASED, Delivery, Outbound, packet_id_of
from mesh.session.span import Span
from mesh.wire.encode import encode_ack
from mesh.wire.packets import PUBREL, Ack
from mesh.wire.reasons import (
    PACKET_IDENTIFIER_NOT_FOUND,
    PACKET_TOO_LARGE,
    QUOTA_EXCEEDED,
    SUCCESS,
    UNSPECIFIED_ERROR,
    is_error,
)

# Deliveries of a connected session keep their message in memory until the session is behind (``slowdown``); the
# messages of the rest are read from the journal when they are sent.
_IN_MEMORY: Final = BEHIND
_BYTES_IN_MEMORY: Final = BYTES_BEHIND
_LONGEST_ALIASED: Final = 1024  # characters: what a connection remembers is bounded in bytes, too
_BATCH: Final = 64  # deliveries that are sent before the work of this turn is looked at
_LARGE: Final = 14  # a delivery counts as one more for each 2^14 bytes: to encode a megabyte takes as long as 64
_DELIVERY: Final = 4  # steps of one delivery, see ``work``


@final
class Courier:
    """Packets leave, or wait for the journal, through ``outbox``. ``refused`` is called with a delivery that a core
    has refused with a reason code, and ``lost`` with a session that has lost its connection."""

    __slots__ = (
        "_clock", "_counters", "_letters", "_notices", "_outbox", "_persistence", "_quotas", "_room", "_settings",
        "_spans", "_tracer", "_work", "backlog_due", "lost", "pressure", "refused", "slowdown",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        persistence: Persistence,
        outbox: Outbox,
        letters: DeadLetters,
        counters: BrokerCounters,
        clock: Callable[[], float],
        tracer: Tracer,
        quotas: Quotas,
        notices: Notices,
        work: Work,
        room: Room,
    ) -> None:
        self.pressure = Pressure(settings, outbox, clock)
        self.slowdown = Slowdown(settings, clock)
        self.refused: Callable[[Session, Delivery, int], None] = _ignore_refusal
        self.lost: Callable[[Session], None] = _ignore_loss
        self._letters = letters
        self._notices = notices
        self._settings = settings
        self._quotas = quotas
        self._work = work
        self._room = room
        self._persistence = persistence
        self._outbox = outbox
        self._counters = counters
        self._clock = clock
        self._tracer = tracer
        self.backlog_due: Fifo[Session] = Fifo()  # sessions with a retained backlog whose queue may have run low
        self._spans: dict[Delivery, Span] = {}  # of sampled messages that a receiver has not acknowledged

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
        """Queue ``message`` for a session. ``group``: the shared group that it gets the message for. Returns SUCCESS or
        QUOTA_EXCEEDED."""
        if qos == 0:
            self._offer_unreliable(session, message, retain, subscription_ids)
            return SUCCESS
        size = message.size()
        if not self._room.make_room(session, size) and not self._overshoots(session, message, size, receipt):
            return QUOTA_EXCEEDED
        self._queue(session, message, qos, retain, subscription_ids, receipt, group, size)
        return SUCCESS

    def offer_above(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,
        subscription_ids: tuple[int, ...],
        receipt: Receipt | None,
        group: str,
    ) -> Delivery:
        """Queue a message of QoS 1 or 2 though the queue is full. The caller bounds how many."""
        return self._queue(session, message, qos, retain, subscription_ids, receipt, group, message.size())

    def _queue(
        self,
        session: Session,
        message: Message,
        qos: int,
        retain: bool,
        subscription_ids: tuple[int, ...],
        receipt: Receipt | None,
        group: str,
        size: int,
    ) -> Delivery:
        outbound = session.outbound
        delivery = Delivery(message, qos, retain, subscription_ids, message.received, message.expires, size)
        delivery.group = group
        outbound.number(delivery)
        connection, durable = session.connection, session.durable
        if durable:
            self._persistence.keep(session, delivery, message)
            if receipt is not None and receipt.position < delivery.position:
                receipt.position = delivery.position
            if (
                connection is None
                or outbound.bytes > _BYTES_IN_MEMORY
                or not self._soon(outbound)
                or self._quotas.strained
            ):
                delivery.message = None
                if connection is not None and receipt is not None:
                    self.slowdown.wait(session, message.from_tier, receipt)
        outbound.push(delivery)
        if connection is not None:
            if durable:
                self._outbox.wait(connection)
            else:
                self.pump(session, connection)
                if outbound.waiting and receipt is not None and not self._soon(outbound):
                    self.slowdown.wait(session, message.from_tier, receipt)
        return delivery

    def lend(self, session: Session, message: Message, identifiers: tuple[int, ...], item: int) -> Delivery:
        """Queue a message that is kept elsewhere as journal item ``item`` (0: nowhere), and only for the present
        connection. ``Persistence.letter_read`` is called with the item when the receiver has acknowledged it."""
        delivery = Delivery(message, 1, False, identifiers, self._clock(), NEVER, message.size())
        session.outbound.number(delivery)
        delivery.body = delivery.position = item
        session.outbound.push(delivery)
        if session.connection is not None:
            self.pump(session, session.connection)  # which waits for the journal, if the item is not durable yet
        return delivery

    def _overshoots(self, session: Session, message: Message, size: int, receipt: Receipt | None) -> bool:
        """Whether a full queue takes a message all the same, because the core that sent it will be told. A message that
        was moved here from another queue (``receipt`` is None) stays there until there is room."""
        if receipt is None or not message.from_tier or not self.pressure.takes(session, size):
            return False
        return not self._room.refused_by_quota(session, size, False)

    def _soon(self, outbound: Outbound) -> bool:
        """Whether a delivery that is queued now is sent within about one window."""
        ahead = len(outbound.waiting)
        return ahead < _IN_MEMORY or ahead < outbound.window

    def _offer_unreliable(
        self, session: Session, message: Message, retain: bool, subscription_ids: tuple[int, ...]
    ) -> None:
        connection = session.connection
        if connection is None or connection.closing:
            self._counters.dropped_offline += 1
            return
        outbound = session.outbound
        if not outbound.waiting and connection.writable and connection.accepted and connection.live:
            delivery = Delivery(message, 0, retain, subscription_ids, message.received, message.expires)
            self._send(session, connection, delivery, message)
            return
        size = message.size()
        room = self._room
        full = len(outbound.waiting) >= self._settings.max_queue_messages
        if full or outbound.bytes + size > room.limits(session)[1] or room.refused_by_quota(session, size, False):
            self.dropped(message)
        else:
            outbound.push(Delivery(message, 0, retain, subscription_ids, message.received, message.expires, size))

    def dropped(self, message: Message) -> None:
        """A message of QoS 0 is dropped, because a queue or table is full."""
        self._counters.dropped_full += 1
        topic = shortened(message.topic)
        self._notices.warn("unreliable", "a message on %s is dropped: a queue or table is full", topic)

    # Sending

    def pump(self, session: Session, connection: Connection) -> None:
        """Send the deliveries that may be sent now."""
        if not (connection.writable and connection.accepted and connection.live) or connection.closing:
            return
        outbound = session.outbound
        durable = self._outbox.durable
        looked: i64 = 0
        while True:
            if looked >= _BATCH:
                work = self._work
                work.left -= looked * _DELIVERY
                looked = 0
                if work.left <= 0:
                    self._pump_later(session)
                    return
            delivery = outbound.take(durable)
            if delivery is None:
                break
            looked += 1 + (delivery.size >> _LARGE)
            if delivery.expires != NEVER and delivery.expires <= self._clock():
                self._letters.expired(session, delivery)
                self._abandon(session, delivery)  # [MQTT-3.3.2-5]
                continue
            self._send(session, connection, delivery, self._persistence.load(delivery))
            if not connection.writable:
                return
        if outbound.waiting and outbound.waiting.first().position > durable:
            self._outbox.wait(connection)
        if session.retained_backlog:
            self.resume_backlog(session)

    def _pump_later(self, session: Session) -> None:
        """Go on at the end of this turn or in the next: many sessions may resume at once, and one that was away for
        long may have any number of expired deliveries."""
        if not session.pumping:
            session.pumping = True
            self._work.start(self._pump_again(session))

    def _pump_again(self, session: Session) -> Iterator[int]:
        session.pumping = False
        before = self._work.left
        if session.connection is not None:
            self.pump(session, session.connection)
        yield max(before - self._work.left, 1)

    def resume_backlog(self, session: Session) -> None:
        """The session may have room for a portion of its retained backlog at the end of this turn."""
        if not session.backlog_due:
            session.backlog_due = True
            self.backlog_due.append(session)

    def next_backlog(self) -> Session:
        """The session that ``resume_backlog`` has marked before all others; its mark is removed."""
        session = self.backlog_due.popleft()
        session.backlog_due = False
        return session

    def _abandon(self, session: Session, delivery: Delivery) -> None:
        if delivery.qos:
            session.outbound.remove(delivery)
        self._persistence.forget(delivery)

    def _send(self, session: Session, connection: Connection, delivery: Delivery, message: Message) -> None:
        now = self._clock() if message.expires != NEVER else 0.0
        packet_id = packet_id_of(delivery.number) if delivery.qos else 0
        span = self._span(session, connection, delivery, message) if message.trace is not None else None
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
        counters = self._counters
        counters.delivered += 1
        if counters.delivered & SAMPLED == 0 and not delivery.retain:
            counters.deliver.record(self._clock() - delivery.since)
        connection.out.append(packet)
        if not connection.dirty:
            self._outbox.mark(connection)

    def _alias(self, connection: Connection, topic: str) -> tuple[int, bool]:
        """The alias of a topic on this connection, and whether the client knows it. The first topics get the aliases,
        as many as the client accepts: the topics of a connection recur, and to reassign an alias would cost as much as
        it saves."""
        aliases = connection.aliases
        if aliases is None:
            aliases = connection.aliases = {}
        alias = aliases.get(topic, 0)
        if alias:
            return alias, True
        if len(topic) > _LONGEST_ALIASED:
            return 0, False
        return (len(aliases) + 1, False) if len(aliases) < connection.alias_maximum else (0, False)

    def _too_large(self, session: Session, delivery: Delivery) -> None:
        """End a delivery whose packet exceeds the client's maximum, as if it was acknowledged [MQTT-3.1.2-25]. A dead
        letter stays where it is kept."""
        if delivery.body and not delivery.item:
            self.refused(session, delivery, PACKET_TOO_LARGE)
        else:
            self._counters.dropped_large += 1
        self._end_span(delivery, PACKET_TOO_LARGE)
        self._abandon(session, delivery)

    def _span(self, session: Session, connection: Connection, delivery: Delivery, message: Message) -> Span | None:
        """The spans of a sampled message: the time that it waited, and the delivery to this receiver."""
        parent = message.trace
        if parent is None or not self._tracer.enabled:
            return None
        topic, vehicle, client = message.topic, session.vehicle, session.key[2]
        begin, now = int(delivery.since * 1e9), int(self._clock() * 1e9)
        waited = self._tracer.record(WAIT, parent, topic, vehicle, client, begin, now)
        link = parent if message.fan_out else None
        span = self._tracer.start(SEND, waited, topic, vehicle, client, connection.peer, PRODUCER, link)
        if delivery.qos:
            self._spans[delivery] = span
        else:
            span.end()
        return span

    def _end_span(self, delivery: Delivery, reason: int) -> None:
        span = self._spans.pop(delivery, None)
        if span is not None:
            span.end(reason)

    # Acknowledgements of the receiver

    def acknowledged(self, session: Session, connection: Connection, packet: Ack) -> bool:
        """Handle PUBACK, PUBCOMP, or PUBREC with an error. Returns ``False`` if it does not fit the delivery with its
        identifier. An unknown identifier is ignored: a client may repeat the packet.
        """
        delivery = session.outbound.finish(packet.packet_id, packet.type)
        if delivery is None:
            return not session.outbound.misfit(packet.packet_id)
        if session.kind == TIER and is_error(packet.reason):
            self.refused(session, delivery, packet.reason)
        self._persistence.forget(delivery)
        if self._spans:
            self._end_span(delivery, packet.reason)
        self.pump(session, connection)
        return True

    def received(self, session: Session, connection: Connection, packet_id: int) -> bool:
        """Handle PUBREC: record it, then answer PUBREL [MQTT-4.3.3-4]. Returns ``False`` if a delivery of QoS 1 has its
        identifier."""
        delivery = session.outbound.received(packet_id)
        if delivery is None:
            if packet_id in session.outbound.in_flight:
                return not session.outbound.misfit(packet_id)
            reason = PACKET_IDENTIFIER_NOT_FOUND
            self._outbox.write(connection, encode_ack(PUBREL, packet_id, reason, connection.protocol))
            return True
        if delivery.state != RELEASED:
            self._persistence.release(session, delivery)
        packet = encode_ack(PUBREL, packet_id, SUCCESS, connection.protocol)
        self._outbox.write_after(connection, delivery.position, packet)
        return True

    def release_again(self, connection: Connection, released: list[Delivery]) -> None:
        """Send PUBREL again for deliveries that were released on an earlier connection [MQTT-4.4.0-1]."""
        for delivery in released:
            packet = encode_ack(PUBREL, packet_id_of(delivery.number), SUCCESS, connection.protocol)
            self._outbox.write_after(connection, delivery.position, packet)

    def detached(self, session: Session) -> None:
        """The session has lost its connection: end the open spans with an error, and keep its waiting messages in the
        journal only."""
        self.lost(session)
        for delivery in session.outbound.in_flight.values():
            if self._spans:
                self._end_span(delivery, UNSPECIFIED_ERROR)
        if session.durable:
            # Only deliveries near the head have their message in memory, see ``_soon``.
            outbound = session.outbound
            begin = outbound.waiting.begin()
            for place in range(begin, min(begin + _IN_MEMORY + 2 * outbound.window, outbound.waiting.end())):
                waits = outbound.waiting.at(place)
                if waits is not None and waits.item:
                    outbound.unload(waits)


def _ignore_refusal(_session: Session, _delivery: Delivery, _reason: int) -> None:
    """Nothing keeps a message that a core refuses."""


def _ignore_loss(_session: Session) -> None:
    """Nothing is lent to sessions."""
