"""The engine that edges and cores run: packets of many connections in, packets for many connections out.

It decides what each packet means for sessions, subscriptions and messages, and leaves keeping to ``Keeper``, sending to
``Courier``, lifetimes to ``Sessions``. It must never touch a socket, a file or a clock of its own. What always holds:

* PUBACK and PUBREC leave after everything that the receipt waits for: the journal, and whoever the message was
  forwarded to;
* what came over a tier link never leaves over one (split horizon);
* nothing that a client sends raises: it is answered with a reason code, or the connection is closed with one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, final

from mypy_extensions import mypyc_attr

from mesh.broker.connection import Connection
from mesh.broker.courier import Courier
from mesh.broker.inbox import Inbox, InboxRules
from mesh.broker.keeper import Keeper
from mesh.broker.ledger import INSTANCE, Ledger
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Principal
from mesh.broker.retained import Retained
from mesh.broker.session import Interest, Session
from mesh.broker.sessions import Sessions
from mesh.broker.settings import Settings
from mesh.broker.store import Store
from mesh.broker.subscriptions import Gate, SharedGroup, Subscriptions, Target
from mesh.broker.trace import Span, Tracer
from mesh.session.inbound import Receipt
from mesh.session.message import Message, message_of, without_trace
from mesh.wire import reasons
from mesh.wire.encode import encode, encode_ack
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    SUBACK,
    UNSUBACK,
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
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.topics import is_shared

_V3_SUBSCRIBE_FAILURE: Final = 0x80
_ERROR: Final = 0x80
_PINGRESP: Final = encode(Ping(PINGRESP), MQTT5)


@mypyc_attr(allow_interpreted_subclasses=True)
class Forwarder:
    """Takes the publishes of back ends onwards. This one goes nowhere; the core's leads to the edges."""

    def forward(self, message: Message, receipt: Receipt | None) -> None:
        """Send ``message`` on. A receipt is told through ``pending``, ``position`` and ``note`` what it waits for."""


@final
class Broker:
    """``clock`` gives seconds since 1970. ``vehicle_of`` tells the vehicle of a topic, for traces."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Callable[[], float],
        tracer: Tracer,
        forwarder: Forwarder | None = None,
        inbox: InboxRules | None = None,
        vehicle_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.clock = clock
        self.tracer = tracer
        self.forwarder = forwarder or Forwarder()
        self.keeper = Keeper(store)
        self.courier = Courier(settings, self.keeper, clock, tracer)
        self.subscriptions = Subscriptions(settings.routes)
        self.sessions = Sessions(settings, self.keeper, self.subscriptions)
        self.retained = Retained(self.keeper, settings.max_retained)
        self.inbox = Inbox(inbox or InboxRules(), self.sessions, self.courier, settings.in_flight)
        self.counters = self.courier.counters
        self.dirty = self.courier.dirty  # connections with something to write; the node empties it at the end of a turn
        self.connections = 0
        self._touched: list[Session] = []  # whose ledgers are newer than the journal
        self._vehicle_of = vehicle_of or _nobody
        self._assigned = 0

    def recover(self, items: Iterable[Any]) -> list[Any]:
        """Take back what the journal kept; returns the items of kinds that belong to others. Call it once, first."""
        found = self.keeper.recover(items, self.settings.in_flight)
        for item, topic in found.retained:
            self.retained.restore(topic, item)
        self.sessions.restore(found, self.clock())
        return found.other

    # Coming

    def open(self, connect: Connect, principal: Principal, peer: str, shell: object) -> Connection:
        """A CONNECT: the connection that it opens, with the CONNACK in ``out``; a refused one has ``closing`` set."""
        connection = self._connection(connect, principal, peer, shell)
        reason = self._objection(connect, principal)
        if reason != reasons.SUCCESS:
            return self._refused(connection, reason)
        session, present = self._session_for(connect, connection)
        if session is None:
            return self._refused(connection, reasons.QUOTA_EXCEEDED)
        self._bind(connection, session)
        connection.will = connect.will
        session.will_delay = _will_delay(connect.will)
        session.will = None if connect.will is None else self._will_message(connect.will)
        if session.durable:
            self.keeper.keep_session(session)
        self._accept(connection, connect, session, present)
        return connection

    def _connection(self, connect: Connect, principal: Principal, peer: str, shell: object) -> Connection:
        settings = self.settings
        connection = Connection(principal, connect.protocol, peer, shell, settings.topic_aliases)
        connection.keep_alive = connect.keep_alive
        if connect.protocol == MQTT5 and settings.max_keep_alive < 0xFFFF:
            # Only a 5.0 client can be told of another keep alive [MQTT-3.1.2-21]; none (0) counts as longer than any.
            connection.keep_alive = min(connect.keep_alive or settings.max_keep_alive, settings.max_keep_alive)
        connection.receive_maximum = settings.receive_maximum
        if connect.properties is not None:
            connection.max_packet = connect.properties.maximum_packet_size or 0
        return connection

    def _objection(self, connect: Connect, principal: Principal) -> int:
        """Why a CONNECT is refused; SUCCESS if it is not."""
        if connect.properties is not None and connect.properties.auth_method is not None:
            return reasons.BAD_AUTHENTICATION_METHOD
        if not connect.client_id and connect.protocol != MQTT5 and not connect.clean_start:
            return reasons.CLIENT_IDENTIFIER_NOT_VALID  # [MQTT-3.1.3-8]
        if connect.will is not None and not principal.permissions.may_publish(connect.will.topic):
            return reasons.NOT_AUTHORIZED
        return reasons.SUCCESS

    def _refused(self, connection: Connection, reason: int) -> Connection:
        self.counters.refused += 1
        self.courier.write(connection, self.refuse(connection.protocol, reason))
        self._close(connection)
        return connection

    def refuse(self, protocol: int, reason: int) -> bytes:
        """The CONNACK that refuses a CONNECT with a 5.0 reason code, in the words of the client's version."""
        code = reason if protocol == MQTT5 else reasons.return_code(reason)
        return encode(Connack(False, code), protocol)

    def _session_for(self, connect: Connect, connection: Connection) -> tuple[Session | None, bool]:
        """The session that a CONNECT means, and whether it was there before."""
        principal = connection.principal
        client_id = connect.client_id
        if not client_id:
            self._assigned += 1
            client_id = connect.client_id = f"mesh-{int(self.clock() * 1000):x}-{self._assigned:x}"
            connection.assigned = True
        key = (principal.kind, principal.name, client_id)
        session = self.sessions.get(key)
        if session is not None:
            self._take_over(session, connect.clean_start)
            session = self.sessions.get(key)
        present = session is not None
        window = self._window(connect)
        if session is None:
            session = self.sessions.create(key, principal.vehicle, window)
            if session is None:
                return None, False
        session.outbound.window = window
        session.expiry = self._expiry(connect)
        session.durable = session.durable or session.expiry > 0 or self.settings.keep_all
        if principal.kind == TIER:
            self._open_ledger(session, connect)
        return session, present

    def _open_ledger(self, session: Session, connect: Connect) -> None:
        """The ledger of a core that says which process of it this is."""
        user = [] if connect.properties is None else connect.properties.user
        instances = [value for name, value in user if name == INSTANCE]
        if not instances:
            return
        ledger = session.ledger
        if ledger is None:
            session.ledger = Ledger(instances[0])
        elif ledger.instance != instances[0]:
            ledger.instance = instances[0]
            ledger.last = 0

    def _window(self, connect: Connect) -> int:
        properties = connect.properties
        asked = None if properties is None else properties.receive_maximum
        return self.settings.in_flight if asked is None else min(asked, self.settings.in_flight)

    def _expiry(self, connect: Connect) -> int:
        if connect.protocol != MQTT5:
            return 0 if connect.clean_start else self.settings.max_session_expiry
        asked = 0 if connect.properties is None else connect.properties.session_expiry or 0
        return min(asked, self.settings.max_session_expiry)

    def _take_over(self, session: Session, clean: bool) -> None:
        """A second CONNECT for a session: the first connection is closed [MQTT-3.1.4-3]; a clean start ends the
        session.
        """
        old = session.connection
        if old is not None:
            self.counters.takeovers += 1
            self._say_goodbye(old, reasons.SESSION_TAKEN_OVER)
            self._unbind(old)
            if session.will is not None and (clean or session.will_delay == 0):
                self._publish_will(session)
            self._close(old)
            if session.expiry == 0:
                clean = True
        elif clean and session.will is not None:
            self._publish_will(session)
        session.will = None
        session.will_due = 0.0
        session.ends = 0.0
        if clean:
            self.sessions.end(session)  # [MQTT-3.1.4-4]

    def _bind(self, connection: Connection, session: Session) -> None:
        connection.session = session
        session.connection = connection
        session.ends = 0.0
        session.will_due = 0.0
        self.connections += 1

    def _accept(self, connection: Connection, connect: Connect, session: Session, present: bool) -> None:
        """Answer CONNECT once the session is kept, and give the session what waits for it."""
        vehicle = connection.principal.kind == VEHICLE
        if vehicle and not connect.clean_start and not present:
            for subscription in self.inbox.subscribe(session):
                self._add_interest(session, subscription, 0)
        greeting = self._greeting(connection, connect, session)
        packet = encode(Connack(present, reasons.SUCCESS, greeting), connect.protocol)
        released = session.outbound.reconnect()
        position = self.store.position if session.durable else 0
        self.counters.connects += 1
        if position <= self.courier.durable:
            self._greet(connection, packet)
        else:
            connection.held.append((position, None, packet))
            self.courier.wait(connection)
        self.courier.release_again(connection, released)
        if vehicle and not connect.clean_start:
            self.inbox.hand_over(session)
        self.courier.pump(session, connection)

    def _greet(self, connection: Connection, packet: bytes) -> None:
        self.courier.write(connection, packet)
        connection.accepted = True

    def _greeting(self, connection: Connection, connect: Connect, session: Session) -> Properties | None:
        if connect.protocol != MQTT5:
            return None
        settings = self.settings
        answer = Properties()
        answer.receive_maximum = settings.receive_maximum
        answer.maximum_packet_size = settings.max_packet
        answer.topic_alias_maximum = settings.topic_aliases
        if connection.assigned:  # [MQTT-3.1.3-6]
            answer.assigned_client_id = connect.client_id
        if connection.keep_alive != connect.keep_alive:
            answer.server_keep_alive = connection.keep_alive
        asked = 0 if connect.properties is None else connect.properties.session_expiry or 0
        if session.expiry != asked:
            answer.session_expiry = session.expiry
        return answer

    def attach(
        self, connect: Connect, principal: Principal, peer: str, shell: object, unacked: list[int]
    ) -> Connection:
        """A connection that outlived its device link, or this process. Deliveries wait until ``live``.

        If the session is gone the connection comes back closing, so that the client connects anew.
        """
        connection = self._connection(connect, principal, peer, shell)
        session = self.sessions.get((principal.kind, principal.name, connect.client_id))
        if session is None:
            self._close(connection)
            return connection
        if session.connection is not None:
            self._unbind(session.connection)
        connection.accepted = True
        connection.live = False
        connection.will = connect.will
        session.outbound.resuming = True
        self._bind(connection, session)
        connection.unacked = unacked
        return connection

    def live(self, connection: Connection) -> None:
        """The replay is over: send what the client does not have."""
        session = connection.session
        if connection.live or session is None or connection.closing:
            return
        connection.live = True
        released = session.outbound.resume(connection.unacked)
        connection.unacked = []
        self.courier.release_again(connection, released)
        self.courier.pump(session, connection)

    # Going

    def fail(self, connection: Connection, reason: int) -> None:
        """A protocol error or a time-out: say why to a 5.0 client, publish the will, close."""
        self._say_goodbye(connection, reason)
        self._gone(connection, with_will=True)
        self._close(connection)

    def lost(self, connection: Connection) -> None:
        """The socket is gone without DISCONNECT [MQTT-3.1.2-8]."""
        self._gone(connection, with_will=True)
        connection.closing = True
        connection.out.clear()

    def stop(self, reason: int) -> None:
        """The node stops: every client is told, sessions stay."""
        for session in self.sessions.all():
            connection = session.connection
            if connection is not None:
                self._say_goodbye(connection, reason)
                self._unbind(connection)
                self.sessions.detach(session, self.clock())
                self._close(connection)

    def _say_goodbye(self, connection: Connection, reason: int) -> None:
        if connection.protocol == MQTT5 and connection.accepted:
            self.courier.write(connection, encode(Disconnect(reason), MQTT5))

    def _close(self, connection: Connection) -> None:
        self.courier.mark(connection)
        connection.closing = True

    def _unbind(self, connection: Connection) -> None:
        """Part connection and session; nobody waits for the connection's receipts any more."""
        session = connection.session
        if session is None:
            return
        connection.session = None
        session.connection = None
        self.connections -= 1
        for receipt in connection.inbound.receipts:
            receipt.closed = True
        connection.inbound.receipts.clear()
        connection.held.clear()
        self.courier.detached(session)

    def _gone(self, connection: Connection, with_will: bool) -> None:
        session = connection.session
        if session is None:
            return
        self._unbind(connection)
        now = self.clock()
        if not with_will:
            session.will = None  # [MQTT-3.14.4-3]
        elif session.will is not None:
            if session.will_delay == 0 or session.expiry == 0:
                self._publish_will(session)
            else:
                session.will_due = now + min(session.will_delay, session.expiry)  # [MQTT-3.1.3-9]
        if session.expiry == 0:
            self.sessions.end(session)
        else:
            self.sessions.detach(session, now)

    # Packets

    def receive(self, connection: Connection, packet: Packet) -> None:
        """One packet of a connection that was opened. What comes after the end of the connection is passed over."""
        session = connection.session
        if connection.closing or session is None:
            return
        if isinstance(packet, Publish):
            self._publish(connection, session, packet)
        elif isinstance(packet, Ack):
            self._acknowledged(connection, session, packet)
        elif isinstance(packet, Subscribe):
            self._subscribe(connection, session, packet)
        elif isinstance(packet, Unsubscribe):
            self._unsubscribe(connection, session, packet)
        elif isinstance(packet, Ping) and packet.type == PINGREQ:
            self.courier.write(connection, _PINGRESP)
        elif isinstance(packet, Disconnect):
            self._disconnect(connection, session, packet)
        else:
            self.fail(connection, reasons.PROTOCOL_ERROR)

    def _disconnect(self, connection: Connection, session: Session, packet: Disconnect) -> None:
        expiry = None if packet.properties is None else packet.properties.session_expiry
        if expiry is not None:
            if session.expiry == 0 and expiry > 0:
                self.fail(connection, reasons.PROTOCOL_ERROR)  # [MQTT-3.14.2-2]
                return
            session.expiry = min(expiry, self.settings.max_session_expiry)
        self._gone(connection, with_will=packet.reason == reasons.DISCONNECT_WITH_WILL)
        self._close(connection)

    def _acknowledged(self, connection: Connection, session: Session, packet: Ack) -> None:
        if packet.type == PUBACK or packet.type == PUBCOMP:
            self.courier.acknowledged(session, connection, packet.packet_id, packet.reason)
        elif packet.type == PUBREC:
            if packet.reason >= _ERROR:
                self.courier.acknowledged(session, connection, packet.packet_id, packet.reason)
            else:
                self.courier.received(session, connection, packet.packet_id)
        else:
            self._released(connection, session, packet.packet_id)

    def _released(self, connection: Connection, session: Session, packet_id: int) -> None:
        """PUBREL: forget the identifier, then say so, in that order also on disk, for the client will use it again."""
        item = session.incoming.pop(packet_id, None)
        reason = reasons.SUCCESS if item is not None else reasons.PACKET_IDENTIFIER_NOT_FOUND
        position = 0
        if item:
            self.keeper.drop(item)
            position = self.store.position
        self.courier.write_after(connection, position, encode_ack(PUBCOMP, packet_id, reason, connection.protocol))

    # PUBLISH

    def _publish(self, connection: Connection, session: Session, packet: Publish) -> None:
        reason = self._check_publish(connection, session, packet)
        if reason != reasons.SUCCESS:
            self._refuse_publish(connection, packet, reason)
            return
        self.counters.published += 1
        receipt = Receipt(packet.packet_id, packet.qos, connection) if packet.qos else None
        if receipt is not None:
            connection.inbound.receipts.append(receipt)
        if packet.qos == 2 and packet.packet_id in session.incoming:
            if receipt is not None:  # a repeat: answered again, not delivered again [MQTT-4.3.3-10]
                receipt.reason = reasons.SUCCESS
        elif packet.qos == 1 and packet.dup and session.ledger is not None and session.ledger.has(packet.packet_id):
            if receipt is not None:
                receipt.reason = reasons.SUCCESS
                receipt.position = self.store.position  # the first one may be on its way to the disk
        else:
            self._take(connection, session, packet, receipt)
        if receipt is not None:
            self.settle(connection)
            connection.congested = len(connection.inbound.receipts) >= connection.receive_maximum

    def _check_publish(self, connection: Connection, session: Session, packet: Publish) -> int:
        properties = packet.properties
        inbound = connection.inbound
        if properties is not None and properties.topic_alias is not None:
            topic = inbound.resolve(packet.topic, properties.topic_alias)
            if topic is None:
                return reasons.TOPIC_ALIAS_INVALID
            packet.topic = topic
        if not connection.principal.permissions.may_publish(packet.topic):
            return reasons.NOT_AUTHORIZED
        if connection.protocol == MQTT5 and packet.qos and len(inbound.receipts) >= connection.receive_maximum:
            return reasons.RECEIVE_MAXIMUM_EXCEEDED  # [MQTT-3.3.4-7]
        if packet.qos == 2 and len(session.incoming) >= 0xFFFF:
            return reasons.RECEIVE_MAXIMUM_EXCEEDED
        return reasons.SUCCESS

    def _refuse_publish(self, connection: Connection, packet: Publish, reason: int) -> None:
        """5.0 has a code for one publish that is not allowed; before, closing is the only honest answer [MQTT-3.3.5-2].
        """
        if connection.protocol == MQTT5 and packet.qos and reason == reasons.NOT_AUTHORIZED:
            receipt = Receipt(packet.packet_id, packet.qos, connection)
            receipt.note(reason)
            connection.inbound.receipts.append(receipt)
            self.settle(connection)
        else:
            self.fail(connection, reason)

    def _take(self, connection: Connection, session: Session, packet: Publish, receipt: Receipt | None) -> None:
        from_tier = session.key[0] == TIER
        message = message_of(packet, self.clock(), from_tier)
        span = self._ingress(connection, message, packet) if self.tracer.enabled else None
        reason = self.route(message, session, receipt)
        if receipt is not None:
            receipt.note(reason)
            if packet.qos == 2 and reason < _ERROR:
                self._open_identifier(session, packet.packet_id, receipt)
            if packet.qos == 1 and session.ledger is not None:
                self._note(session, session.ledger, 0 if reason >= _ERROR else packet.packet_id)
        if session.key[0] == BACKEND:
            self.forwarder.forward(message, receipt)
        if span is not None:
            if receipt is None:
                span.end()
            else:
                receipt.span = span

    def _note(self, session: Session, ledger: Ledger, packet_id: int) -> None:
        ledger.last = packet_id
        if not ledger.touched:
            ledger.touched = True
            self._touched.append(session)

    def keep_ledgers(self) -> None:
        """Write the ledgers that changed; call it before the journal's buffer is handed over, so that they become
        durable together with what they tell of."""
        for session in self._touched:
            ledger = session.ledger
            if ledger is not None and ledger.touched and self.sessions.get(session.key) is session:
                self.keeper.keep_ledger(session, ledger)
        self._touched.clear()

    def _open_identifier(self, session: Session, packet_id: int, receipt: Receipt) -> None:
        item = self.keeper.keep_incoming(session, packet_id) if session.durable else 0
        session.incoming[packet_id] = item
        if item > receipt.position:
            receipt.position = item

    def vehicle_of(self, topic: str) -> str:
        """The vehicle that a topic is about; empty if none."""
        return self._vehicle_of(topic) or ""

    def _ingress(self, connection: Connection, message: Message, packet: Publish) -> Span | None:
        vehicle = connection.principal.vehicle or self.vehicle_of(message.topic)
        span = self.tracer.ingress(packet, vehicle, trusted=connection.principal.kind == TIER)
        if span is not None:
            message.trace = span.context
            if packet.properties is not None:
                message.properties = without_trace(packet.properties)
        return span

    def route(self, message: Message, source: Session | None, receipt: Receipt | None) -> int:
        """Give ``message`` to everybody who is to have it here; returns the reason code for its publisher."""
        if not self._retain(message, receipt):
            return reasons.QUOTA_EXCEEDED
        return self._fan_out(message, source, receipt, self.subscriptions.route(message.topic).groups)

    def deliver_upstream(
        self, message: Message, receipt: Receipt | None, plain: bool, shared: list[SharedGroup]
    ) -> int:
        """What an edge sent to this core: for the plain subscribers, for members of some shared groups, or both."""
        if plain:
            if not self._retain(message, receipt):
                return reasons.QUOTA_EXCEEDED
            return self._fan_out(message, None, receipt, shared)
        result = reasons.NO_MATCHING_SUBSCRIBERS
        for group in shared:
            chosen = group.choose()
            if chosen is not None:
                result = self._deliver(chosen, message, receipt)
        return result

    def refresh_retained(self, message: Message, receipt: Receipt | None, filter: str) -> int:
        """A retained message that an edge has for ``filter``: for those subscribed to it, if it is news here."""
        known = self.retained.get(message.topic)
        if known is not None and (known.payload, known.properties) == (message.payload, message.properties):
            return reasons.SUCCESS
        if not self._retain(message, receipt):
            return reasons.QUOTA_EXCEEDED
        for target in self.subscriptions.route(message.topic).targets:
            interest = target.session.interests.get(filter)
            if interest is not None:
                identifiers = (interest.identifier,) if interest.identifier else ()
                qos = min(message.qos, interest.subscription.qos)
                self.courier.offer(target.session, message, qos, True, identifiers, receipt)
        return reasons.SUCCESS

    def forget_retained(self, filter: str) -> None:
        """Nobody is subscribed to ``filter`` any more, so what edges retain for it is not followed: forget it here."""
        self.retained.forget_upstream(filter, self.subscriptions.filters())

    def _retain(self, message: Message, receipt: Receipt | None) -> bool:
        if message.retain:
            position = self.retained.keep(message)
            if position < 0:
                return False
            if receipt is not None and position > receipt.position:
                receipt.position = position
        return True

    def _fan_out(
        self, message: Message, source: Session | None, receipt: Receipt | None, groups: list[SharedGroup]
    ) -> int:
        route = self.subscriptions.route(message.topic)
        targets = self._receivers(route.targets, message, source)
        for shared in groups:
            chosen = shared.choose()
            if chosen is not None and not (message.from_tier and chosen.session.key[0] == TIER):
                targets = [*targets, chosen]
        if message.qos and len(targets) > 1 and sum(target.session.durable for target in targets) > 1:
            self.keeper.share(message)
        result = reasons.NO_MATCHING_SUBSCRIBERS
        refused = reasons.SUCCESS
        for target in targets:
            reason = self._deliver(target, message, receipt)
            if reason >= _ERROR:
                refused = reason
            else:
                result = reasons.SUCCESS
        if message.body:
            self.keeper.unshare(message)
        if message.from_tier and not any(target.session.key[0] == VEHICLE for target in targets):
            reason = self.inbox.offer(message, receipt)
            result = reason if result != reasons.SUCCESS else result
        return refused if refused != reasons.SUCCESS else result

    def _receivers(self, targets: list[Target], message: Message, source: Session | None) -> list[Target]:
        """Those of a route who get this message: No Local [MQTT-3.8.3-3] and split horizon."""
        from_tier = message.from_tier
        for target in targets:
            if (from_tier and target.session.key[0] == TIER) or (target.no_local and target.session is source):
                return [
                    target
                    for target in targets
                    if not (from_tier and target.session.key[0] == TIER)
                    and not (target.no_local and target.session is source)
                ]
        return targets

    def _deliver(self, target: Target, message: Message, receipt: Receipt | None) -> int:
        retain = message.retain and target.retain_as_published  # [MQTT-3.3.1-12] [MQTT-3.3.1-13]
        qos = message.qos if message.qos < target.qos else target.qos
        return self.courier.offer(target.session, message, qos, retain, target.identifiers, receipt)

    def settle(self, connection: Connection) -> None:
        """Answer the publishes that may be answered now, in their order."""
        inbound = connection.inbound
        durable = self.courier.durable
        while True:
            receipt = inbound.settled(durable)
            if receipt is None:
                break
            self._answer(connection, receipt)
        receipts = inbound.receipts
        if receipts and receipts[0].pending == 0:
            self.courier.wait(connection)
        if connection.congested and len(receipts) < connection.receive_maximum // 2:
            connection.congested = False
            self.courier.mark(connection)

    def _answer(self, connection: Connection, receipt: Receipt) -> None:
        reason = receipt.reason
        self.end_span(receipt)
        if reason >= _ERROR and connection.protocol != MQTT5:
            self.fail(connection, reason)  # MQTT 3 cannot say no, and an acknowledgement would be a lie
            return
        type = PUBACK if receipt.qos == 1 else PUBREC
        self.courier.write(connection, encode_ack(type, receipt.packet_id, reason, connection.protocol))

    def end_span(self, receipt: Receipt) -> None:
        """The message of a sampled receipt has been taken in, and its publisher is being told."""
        span = receipt.span
        if span is not None:
            assert isinstance(span, Span)
            span.end(receipt.reason)

    # SUBSCRIBE, UNSUBSCRIBE

    def _subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> None:
        identifiers = [] if packet.properties is None else packet.properties.subscription_ids
        identifier = identifiers[0] if identifiers else 0
        codes: list[int] = []
        fresh: list[tuple[Subscription, bool]] = []
        gate: Gate | None = None
        for subscription in packet.subscriptions:
            if subscription.no_local and is_shared(subscription.filter):
                self.fail(connection, reasons.PROTOCOL_ERROR)  # [MQTT-3.8.3-4]
                return
            code = self._may_subscribe(connection, session, subscription)
            if code < _ERROR:
                known = subscription.filter in session.interests
                self._add_interest(session, subscription, identifier)
                gate = self.subscriptions.listener.gate(subscription.filter) or gate
                fresh.append((subscription, known))
            codes.append(code if connection.protocol == MQTT5 or code < _ERROR else _V3_SUBSCRIBE_FAILURE)
        position = self.store.position if session.durable else 0
        answer = encode(SubAck(SUBACK, packet.packet_id, codes), connection.protocol)
        self.courier.write_after(connection, position, answer, gate)
        for subscription, known in fresh:
            self._send_retained(session, subscription, known, identifier)
        if connection.principal.kind == VEHICLE:
            self.inbox.hand_over(session)
        self.courier.pump(session, connection)

    def _may_subscribe(self, connection: Connection, session: Session, subscription: Subscription) -> int:
        if not connection.principal.permissions.may_subscribe(subscription.filter):
            return reasons.NOT_AUTHORIZED
        full = len(session.interests) >= self.settings.max_subscriptions
        if full and subscription.filter not in session.interests:
            return reasons.QUOTA_EXCEEDED
        return subscription.qos

    def _add_interest(self, session: Session, subscription: Subscription, identifier: int) -> None:
        old = session.interests.get(subscription.filter)
        interest = Interest(session, subscription, identifier)
        if session.durable:
            self.keeper.keep_interest(interest)
        if old is not None:
            self.subscriptions.replace(old, interest)  # [MQTT-3.8.4-3]
            self.keeper.forget_interest(old)
        else:
            self.subscriptions.add(interest)
        session.interests[subscription.filter] = interest

    def _send_retained(self, session: Session, subscription: Subscription, known: bool, identifier: int) -> None:
        if subscription.retain_handling == 2 or (subscription.retain_handling == 1 and known):
            return  # [MQTT-3.3.1-10] [MQTT-3.3.1-11]
        if is_shared(subscription.filter):
            return  # section 4.8.2
        identifiers = (identifier,) if identifier else ()
        for message in self.retained.matching(subscription.filter, self.clock()):
            if not (message.from_tier and session.key[0] == TIER):
                self.courier.offer(session, message, min(message.qos, subscription.qos), True, identifiers, None)

    def _unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> None:
        codes: list[int] = []
        for filter in packet.filters:
            interest = session.interests.pop(filter, None)
            if interest is None:
                codes.append(reasons.NO_SUBSCRIPTION_EXISTED)
                continue
            self.subscriptions.remove(interest)
            self.keeper.forget_interest(interest)
            codes.append(reasons.SUCCESS)
        position = self.store.position if session.durable else 0
        answer = SubAck(UNSUBACK, packet.packet_id, codes if connection.protocol == MQTT5 else [])
        self.courier.write_after(connection, position, encode(answer, connection.protocol))

    # Wills

    def _will_message(self, will: Will) -> Message:
        properties = will.properties
        publish = Publish(will.topic, will.payload, will.qos, will.retain, False, 0, properties)
        return message_of(publish, self.clock())

    def _publish_will(self, session: Session) -> None:
        will = session.will
        session.will = None
        session.will_due = 0.0
        if will is None:
            return
        now = self.clock()
        if will.expires:
            will.expires += now - will.received  # its lifetime begins when it is published
        will.received = now
        self.route(will, session, None)
        if session.key[0] == BACKEND:
            self.forwarder.forward(will, None)

    # Time and the journal

    def pause(self, connection: Connection) -> None:
        """The client does not read fast enough: its session queues."""
        connection.writable = False

    def resume(self, connection: Connection) -> None:
        """The client reads again."""
        connection.writable = True
        if connection.session is not None:
            self.courier.pump(connection.session, connection)

    def opened(self) -> None:
        """A gate may have opened: release what waited for it."""
        self.durable(self.courier.durable)

    def durable(self, position: int) -> None:
        """The journal reached ``position``: release what waited for it."""
        courier = self.courier
        courier.durable = position
        waiting = courier.waiting
        courier.waiting = []
        for connection in waiting:
            connection.waiting = False
            self._advance(connection, position)

    def _advance(self, connection: Connection, position: int) -> None:
        held = connection.held
        while held and held[0][0] <= position:
            gate = held[0][1]
            if gate is not None and gate.pending > 0:
                break
            packet = held.popleft()[2]
            if connection.accepted:
                self.courier.write(connection, packet)
            else:
                self._greet(connection, packet)
        if held:
            self.courier.wait(connection)
        if connection.inbound.receipts:
            self.settle(connection)
        session = connection.session
        if session is not None:
            self.courier.pump(session, connection)

    def tick(self) -> None:
        """Once a second: wills and sessions whose time has come."""
        now = self.clock()
        for session in self.sessions.due(now):
            if session.will is not None and session.will_due and session.will_due <= now:
                self._publish_will(session)
                if session.durable:
                    self.keeper.keep_session(session)
            if session.ends and session.ends <= now:
                if session.will is not None:
                    self._publish_will(session)  # [MQTT-3.1.2-8]: at the session's end at the latest
                self.sessions.end(session)


def _will_delay(will: Will | None) -> int:
    if will is None or will.properties is None:
        return 0
    return will.properties.will_delay or 0



def _nobody(topic: str) -> str | None:
    return None
