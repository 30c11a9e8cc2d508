"""The publishes of clients: checks them, passes them to the dispatcher, and answers them in order.

It knows PUBLISH, PUBREL and the receipts of connections: never the receivers of a message, which ``Dispatcher`` finds.
What always holds:

* PUBACK and PUBREC leave after everything that the receipt waits for: the journal, and the nodes that the message was
  forwarded to;
* an identifier of QoS 2 is open from the acceptance of its message until its PUBREL. It goes into the journal together
  with the message: before that, a crash would lose the message and answer its repeat;
* a refused publish is never acknowledged as if it had been accepted, with one exception: a publish that is not allowed,
  of a client before 5.0 and with ``on_refusal`` IGNORE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mesh.broker.counters import SAMPLED, BrokerCounters
from mesh.broker.dispatcher import Dispatcher, Forwarder
from mesh.broker.ledger import Ledger
from mesh.broker.notices import Notices, shortened
from mesh.broker.outbox import Outbox, explained
from mesh.broker.persistence import Persistence
from mesh.broker.principal import BACKEND, GIVEN, TIER
from mesh.broker.refusals import Refusals
from mesh.broker.session import Connection, Session
from mesh.broker.sessions import Sessions
from mesh.broker.settings import HOLD, IGNORE, Settings
from mesh.broker.trace import Tracer
from mesh.broker.versions import take_version
from mesh.session.inbound import Receipt
from mesh.session.message import message_of, without_trace
from mesh.session.span import Span
from mesh.wire import reasons
from mesh.wire.encode import encode_ack
from mesh.wire.packets import MQTT5, PUBACK, PUBCOMP, PUBREC, Ack, Publish

_WHY: Final = {
    reasons.IMPLEMENTATION_SPECIFIC_ERROR: "the owner of the vehicle cannot be determined now",
    reasons.PROTOCOL_ERROR: "a response topic must not be empty",
    reasons.NOT_AUTHORIZED: "this client may not publish to this topic",
    reasons.QUOTA_EXCEEDED: "a queue or table of the server is full",
    reasons.RECEIVE_MAXIMUM_EXCEEDED: "more publishes are unanswered than the receive maximum allows",
    reasons.TOPIC_ALIAS_INVALID: "the topic alias is unknown on this connection, or exceeds the maximum",
}


@final
class Intake:
    """Passes the publishes of back ends also to ``forwarder``. ``fail`` closes a connection with a reason code;
    ``vehicle_of`` gives the vehicle of a topic, for traces (empty: none)."""

    def __init__(
        self,
        settings: Settings,
        dispatcher: Dispatcher,
        forwarder: Forwarder,
        sessions: Sessions,
        persistence: Persistence,
        outbox: Outbox,
        counters: BrokerCounters,
        tracer: Tracer,
        clock: Callable[[], float],
        fail: Callable[[Connection, int, str], None],
        vehicle_of: Callable[[str], str],
        notices: Notices,
        refusals: Refusals,
    ) -> None:
        self._settings = settings
        self._notices = notices
        self._refusals = refusals
        self._dispatcher = dispatcher
        self._forwarder = forwarder
        self._sessions = sessions
        self._persistence = persistence
        self._store = persistence.store
        self._outbox = outbox
        self._counters = counters
        self._tracer = tracer
        self._clock = clock
        self._fail = fail
        self._vehicle_of = vehicle_of
        self._touched: list[Session] = []  # sessions whose ledgers are newer than the journal
        # Unplaced messages of QoS 2: their sessions, and by session and identifier the receipts of their repeats.
        self._unplaced: dict[Receipt, Session] = {}
        self._repeats: dict[tuple[int, int], list[Receipt]] = {}

    def publish(self, connection: Connection, session: Session, packet: Publish) -> None:
        reason = self._check_publish(connection, session, packet)
        if reason != reasons.SUCCESS:
            self._trace_refused(connection, session, packet, reason)
            why = _WHY.get(reason, "")
            self._notices.warn("publish", "%s (client %s): %s", connection.principal, session.key[2], why)
            self._fail(connection, reason, why)
            return
        if not connection.principal.permissions.may_publish(packet.topic, packet.qos, packet.retain):
            if packet.topic == GIVEN and session.kind == TIER:
                self._note_given(connection, session, packet)
                return
            if self._answer_repeat(connection, session, packet):
                return
            self._trace_refused(connection, session, packet, connection.principal.permissions.reason)
            self._refuse_publish(connection, session, packet)
            return
        counters = self._counters
        counters.published += 1
        receipt = Receipt(packet.packet_id, packet.qos, connection) if packet.qos else None
        if receipt is not None:
            if counters.published & SAMPLED == 0:
                receipt.since = self._clock()
            connection.inbound.receipts.append(receipt)
        # A repeat is answered again and not delivered again. The first one may not be on disk yet.
        if packet.qos == 2 and packet.packet_id in session.incoming:
            if receipt is not None:  # [MQTT-4.3.3-10]
                receipt.reason = reasons.SUCCESS
                receipt.position = self._store.position
                if self._repeats:
                    self._join_unplaced(session, receipt)
        elif packet.qos == 1 and packet.dup and session.ledger is not None and session.ledger.has(packet.packet_id):
            if receipt is not None:
                receipt.reason = reasons.SUCCESS
                receipt.position = self._store.position
        else:
            self._take(connection, session, packet, receipt)
        if receipt is not None:
            self.settle(connection)
            self._outbox.update_congestion(connection)

    def _check_publish(self, connection: Connection, session: Session, packet: Publish) -> int:
        properties = packet.properties
        inbound = connection.inbound
        if properties is not None:
            if properties.topic_alias is not None:
                topic = inbound.resolve(packet.topic, properties.topic_alias)
                if topic is None:
                    return reasons.TOPIC_ALIAS_INVALID
                packet.topic = topic
            # A journal of an earlier version may have such a message, and a core must not be closed for passing it on.
            if properties.response_topic == "" and session.kind != TIER:
                return reasons.PROTOCOL_ERROR  # section 3.3.2.3.5: it is a topic name [MQTT-4.7.3-1]
        if connection.protocol == MQTT5 and packet.qos and inbound.unanswered() >= connection.receive_maximum:
            if not inbound.is_open(packet.packet_id):  # a repeated QoS 2 message does not count twice
                return reasons.RECEIVE_MAXIMUM_EXCEEDED  # [MQTT-3.3.4-7] [MQTT-3.3.4-8]
        if packet.qos == 2 and len(session.incoming) >= 0xFFFF:
            return reasons.RECEIVE_MAXIMUM_EXCEEDED
        return reasons.SUCCESS

    def _note_given(self, connection: Connection, session: Session, packet: Publish) -> None:
        """A core has given this node all that it keeps for every edge; what came before this packet is taken."""
        connection.given = True
        if packet.qos == 1:
            if session.ledger is not None:
                self._update_ledger(session, session.ledger, packet.packet_id, reasons.SUCCESS)
            receipt = Receipt(packet.packet_id, packet.qos, connection)
            receipt.reason = reasons.SUCCESS
            receipt.position = self._store.position
            self._append(connection, receipt)

    def _refuse_publish(self, connection: Connection, session: Session, packet: Publish) -> None:
        """Refuse a publish that is not allowed. 5.0 has a reason code for QoS 1 and 2. All else can only be answered as
        usual and dropped, or closes the connection [MQTT-3.3.5-2]."""
        principal = connection.principal
        reason = principal.permissions.reason
        self._counters.forbidden += 1
        client_id, topic = session.key[2], shortened(packet.topic)
        self._notices.warn("forbidden", "%s (client %s) may not publish to %s", principal, client_id, topic)
        told = connection.protocol == MQTT5 and packet.qos > 0
        if not told and self._settings.on_refusal != IGNORE:
            self._fail(connection, reason, _WHY[reasons.NOT_AUTHORIZED])
        elif packet.qos:
            receipt = Receipt(packet.packet_id, packet.qos, connection)
            receipt.reason = reason if told else reasons.SUCCESS
            if packet.qos == 1 and session.ledger is not None:
                self._update_ledger(session, session.ledger, packet.packet_id, reason)
            self._append(connection, receipt)

    def _answer_repeat(self, connection: Connection, session: Session, packet: Publish) -> bool:
        """Answer a publish that is not allowed as the repeat of one that was taken, if it is: what the client may
        publish has changed meanwhile, and the message was delivered. Returns whether it is one."""
        receipt = Receipt(packet.packet_id, packet.qos, connection)
        if packet.qos == 2 and packet.packet_id in session.incoming:
            self._join_unplaced(session, receipt)
        elif not (packet.qos == 1 and packet.dup and session.ledger and session.ledger.has(packet.packet_id)):
            return False
        receipt.reason = reasons.SUCCESS
        receipt.position = self._store.position
        self._append(connection, receipt)
        return True

    def _append(self, connection: Connection, receipt: Receipt) -> None:
        connection.inbound.receipts.append(receipt)
        self.settle(connection)
        self._outbox.update_congestion(connection)

    def set_aside(self, connection: Connection, session: Session, packet: Publish) -> None:
        """Acknowledge a PUBLISH in whose handling this process would end, and keep its message in the dead letters: it
        takes no other way."""
        reason = self._check_publish(connection, session, packet)
        if reason != reasons.SUCCESS:
            self._fail(connection, reason, _WHY.get(reason, ""))
            return
        if not connection.principal.permissions.may_publish(packet.topic, packet.qos, packet.retain):
            self._refuse_publish(connection, session, packet)
            return
        self._notices.warn(
            "poison", "%s (client %s): a message on %s is not handled: this process has ended twice in its handling",
            connection.principal, session.key[2], shortened(packet.topic),
        )  # fmt: skip
        if not packet.qos:
            self._counters.dropped_poison += 1
            return
        receipt = Receipt(packet.packet_id, packet.qos, connection)
        receipt.reason = reasons.SUCCESS
        connection.inbound.receipts.append(receipt)
        ledger = session.ledger
        known = packet.packet_id in session.incoming if packet.qos == 2 else (
            packet.dup and ledger is not None and ledger.has(packet.packet_id)
        )  # fmt: skip
        if known:
            receipt.position = self._store.position
        else:
            message = message_of(packet, self._clock(), session.kind == TIER)
            self._refusals.keep_poison(message, receipt, session)
            if packet.qos == 2:
                self._open_identifier(session, packet.packet_id, receipt)
            elif ledger is not None:
                self._update_ledger(session, ledger, packet.packet_id, reasons.SUCCESS)
        self.settle(connection)
        self._outbox.update_congestion(connection)

    def _take(self, connection: Connection, session: Session, packet: Publish, receipt: Receipt | None) -> None:
        from_tier = session.kind == TIER
        version = take_version(packet) if from_tier and packet.retain else None
        message = message_of(packet, self._clock(), from_tier)
        considered = self._tracer.considers(packet, from_tier)
        span = self._ingress(connection, session, packet) if considered else None
        if span is not None:
            message.trace = span.context
            if packet.properties is not None:
                message.properties = without_trace(packet.properties)
        settings = self._settings
        holds = settings.backend_when_full == HOLD or settings.dead_letter_when_full == HOLD
        withdrawn = version is not None and version.withdrawn  # no subscriber gets that
        if holds and receipt is not None and not withdrawn and not self._dispatcher.has_room(message, session):
            self._refuse_for_room(packet, session, receipt, span)
            return
        if version is None:
            reason = self._dispatcher.route(message, session, receipt)
        else:
            reason = self._dispatcher.take_versioned(message, session, receipt, version)
        if receipt is not None:
            receipt.note(reason)
            if packet.qos == 1 and session.ledger is not None:
                self._update_ledger(session, session.ledger, packet.packet_id, reason)
        if session.kind == BACKEND:
            self._forwarder.forward(message, receipt)
        if packet.qos == 2 and receipt is not None and not reasons.is_error(receipt.reason):
            if receipt.unplaced:
                session.incoming[packet.packet_id] = 0
                self._unplaced[receipt] = session
                self._repeats[session.id, packet.packet_id] = []
            else:
                self._open_identifier(session, packet.packet_id, receipt)
        if span is not None:
            if receipt is None:
                span.end(reason if reasons.is_error(reason) else reasons.SUCCESS)
            else:
                receipt.span = span

    def _refuse_for_room(self, packet: Publish, session: Session, receipt: Receipt, span: Span | None) -> None:
        receipt.note(reasons.QUOTA_EXCEEDED)
        receipt.span = span
        if packet.qos == 1 and session.ledger is not None:
            self._update_ledger(session, session.ledger, packet.packet_id, reasons.QUOTA_EXCEEDED)

    def _update_ledger(self, session: Session, ledger: Ledger, packet_id: int, reason: int) -> None:
        if reasons.is_error(reason):
            ledger.refuse(packet_id)
        else:
            ledger.take(packet_id)
        if not ledger.touched:
            ledger.touched = True
            self._touched.append(session)

    def keep_ledgers(self) -> None:
        """Write the ledgers that changed. Call it before the journal's buffer is handed over, so that a ledger becomes
        durable together with the messages that it records."""
        for session in self._touched:
            ledger = session.ledger
            if ledger is not None and ledger.touched and self._sessions.get(session.key) is session:
                self._persistence.keep_ledger(session, ledger)
        self._touched.clear()

    def _join_unplaced(self, session: Session, receipt: Receipt) -> None:
        """Let the receipt of a repeat wait as long as the first one, if that one's message is unplaced."""
        repeats = self._repeats.get((session.id, receipt.packet_id))
        if repeats is not None:
            receipt.pending += 1
            repeats.append(receipt)

    def placed(self, receipt: Receipt) -> list[Receipt]:
        """A message that was ``unplaced`` is where it belongs, or refused. Returns the receipts that may be answered:
        its own, and those of its repeats."""
        session = self._unplaced.pop(receipt, None)
        if session is None:
            return [receipt]
        packet_id = receipt.packet_id
        repeats = self._repeats.pop((session.id, packet_id))
        if session.incoming.get(packet_id) == 0 and not reasons.is_error(receipt.reason):
            self._open_identifier(session, packet_id, receipt)
        for repeat in repeats:
            repeat.pending -= 1
            repeat.reason = receipt.reason
            repeat.position = self._store.position
        return [receipt, *repeats]

    def _open_identifier(self, session: Session, packet_id: int, receipt: Receipt) -> None:
        item = self._persistence.keep_incoming(session, packet_id) if session.durable else 0
        session.incoming[packet_id] = item
        if item > receipt.position:
            receipt.position = item

    def _ingress(self, connection: Connection, session: Session, packet: Publish) -> Span | None:
        vehicle = connection.principal.vehicle or self._vehicle_of(packet.topic)
        return self._tracer.ingress(packet, vehicle, session.key[2], connection.peer, session.kind == TIER)

    def _trace_refused(self, connection: Connection, session: Session, packet: Publish, reason: int) -> None:
        """Record a span with the reason of a refused publish, if it is sampled."""
        if self._tracer.considers(packet, session.kind == TIER):
            span = self._ingress(connection, session, packet)
            if span is not None:
                span.end(reason)

    def settle(self, connection: Connection) -> None:
        """Answer the publishes that may be answered now, in order; none before CONNACK [MQTT-3.2.0-1]."""
        if not connection.accepted:
            self._outbox.wait(connection)
            return
        inbound = connection.inbound
        durable = self._outbox.durable
        while True:
            receipt = inbound.settled(durable)
            if receipt is None:
                break
            self._answer(connection, receipt)
        receipts = inbound.receipts
        if receipts and receipts.first().pending == 0:
            self._outbox.wait(connection)
        if connection.congested:
            self._outbox.update_congestion(connection)

    def _answer(self, connection: Connection, receipt: Receipt) -> None:
        reason = receipt.reason
        receipt.end_span()
        if reasons.is_error(reason):
            self._answer_error(connection, receipt)
            return
        if receipt.since:
            self._counters.acknowledge.record(self._clock() - receipt.since)
        type = PUBACK
        if receipt.qos == 2:
            type = PUBREC
            connection.inbound.opened(receipt.packet_id)
        self._outbox.write(connection, encode_ack(type, receipt.packet_id, reason, connection.protocol))

    def _answer_error(self, connection: Connection, receipt: Receipt) -> None:
        session = connection.session
        if receipt.qos == 2 and session is not None:  # no PUBREL comes [MQTT-4.3.3-4]; the identifier is used again
            item = session.incoming.pop(receipt.packet_id, 0)
            if item:
                self._persistence.drop(item)
        if connection.protocol != MQTT5:
            # MQTT 3 has no negative acknowledgement, and a positive one would be wrong. (A message that finds no room
            # is in the dead letters and has a positive one: see ``Refusals``.)
            self._fail(connection, receipt.reason, "")
            return
        why = _WHY.get(receipt.reason, "") if connection.problem_info else ""  # [MQTT-3.1.2-29]
        type = PUBACK if receipt.qos == 1 else PUBREC
        plain = Ack(type, receipt.packet_id, receipt.reason)
        full = Ack(type, receipt.packet_id, receipt.reason, explained(why))
        self._outbox.write_fitting(connection, full, plain)  # [MQTT-3.4.2-2] [MQTT-3.5.2-2]

    def released(self, connection: Connection, session: Session, packet_id: int) -> None:
        """Handle PUBREL: forget the identifier; answer PUBCOMP once that is durable, as the client will reuse it."""
        item = session.incoming.pop(packet_id, None)
        connection.inbound.closed(packet_id)
        # 0x92 is no error "during recovery" (MQTT 5.0 table 3-9), but a client whose connection outlived the link has
        # seen no recovery. In a replay the PUBREL may have been handled already, and its answer lost with the link.
        known = item is not None or not connection.live
        reason = reasons.SUCCESS if known else reasons.PACKET_IDENTIFIER_NOT_FOUND
        position = 0
        if item:
            self._persistence.drop(item)
            position = self._store.position
        self._outbox.write_after(connection, position, encode_ack(PUBCOMP, packet_id, reason, connection.protocol))
