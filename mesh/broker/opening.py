"""The begin of connections: CONNECT of a client, and ATTACH of a connection that outlived its link.

It knows CONNECT, CONNACK, and which session a client gets: never the packets that follow. What always holds:

* a session has at most one connection: a second one closes the first [MQTT-3.1.4-3];
* CONNACK leaves when the session is durable, and nothing leaves before it [MQTT-3.2.0-1];
* a refused connection has no session; also after an error in this program, no session keeps a connection that did not
  open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from mesh.broker.closing import Closing
from mesh.broker.counters import BrokerCounters
from mesh.broker.courier import Courier
from mesh.broker.dispatcher import Dispatcher
from mesh.broker.enforcement import Enforcement
from mesh.broker.greeting import greeting_of
from mesh.broker.inbox import Inbox
from mesh.broker.ledger import INSTANCE, Ledger
from mesh.broker.notices import Notices, shortened
from mesh.broker.outbox import Outbox
from mesh.broker.peer import NOWHERE, Peer
from mesh.broker.persistence import Persistence
from mesh.broker.pressure import FOLLOW
from mesh.broker.principal import TIER, VEHICLE, Principal
from mesh.broker.session import Connection, Session
from mesh.broker.sessions import Sessions
from mesh.broker.settings import IGNORE, Settings
from mesh.broker.sharing import Sharing
from mesh.broker.shell import Flushable
from mesh.broker.subscriber import Subscriber
from mesh.wire import reasons
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Connack, Connect, Will


@final
class Opening:
    """``closing`` ends the connections that do not open, and those that another one takes over."""

    __slots__ = (
        "_assigned", "_clock", "_closing", "_counters", "_courier", "_dispatcher", "_enforcement", "_inbox", "_notices",
        "_outbox", "_persistence", "_sessions", "_settings", "_sharing", "_store", "_subscriber",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        persistence: Persistence,
        outbox: Outbox,
        courier: Courier,
        sessions: Sessions,
        sharing: Sharing,
        inbox: Inbox,
        dispatcher: Dispatcher,
        subscriber: Subscriber,
        closing: Closing,
        enforcement: Enforcement,
        counters: BrokerCounters,
        notices: Notices,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._persistence = persistence
        self._store = persistence.store
        self._outbox = outbox
        self._courier = courier
        self._sessions = sessions
        self._sharing = sharing
        self._inbox = inbox
        self._dispatcher = dispatcher
        self._subscriber = subscriber
        self._closing = closing
        self._enforcement = enforcement
        self._counters = counters
        self._notices = notices
        self._assigned = 0  # client ids

    def open(self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
        """Open the connection of a CONNECT. CONNACK is in its ``out``. A refused connection has ``closing`` set."""
        connection = self._connection(connect, principal, peer, shell)
        try:
            return self._opened(connect, connection)
        except Exception:
            # Else the session would have a connection for ever, or none and no end.
            self._closing.end(connection, with_will=False)
            session = self._sessions.get((principal.kind, principal.name, connect.client_id))
            if session is not None and session.connection is None:
                self._sessions.detach(session, self._clock())
            raise

    def _opened(self, connect: Connect, connection: Connection) -> Connection:
        principal = connection.principal
        reason = self._reason_to_refuse(connect, principal)
        if reason != reasons.SUCCESS:
            return self._refused(connection, reason)
        session, present, reason = self._session_for(connect, connection)
        if session is None:
            return self._refused(connection, reason)
        self._bind(connection, session)
        will = connect.will
        if will is not None and not _may_have(principal, will):
            will = None  # counted in ``_reason_to_refuse``
        session.will_delay = _will_delay(will)
        session.will = None if will is None else self._dispatcher.will_message(will)
        session.origin = NOWHERE if will is None else connection.peer
        self._sessions.weigh(session)
        if session.durable or session.will is not None:
            self._persistence.keep_session(session)  # a will survives a restart even if its session does not
        self._accept(connection, connect, session, present)
        return connection

    def _connection(self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
        settings = self._settings
        principal.permissions.name(connect.client_id)
        connection = Connection(principal, connect.protocol, peer, shell, settings.topic_aliases)
        connection.keep_alive = connect.keep_alive
        if connect.protocol == MQTT5 and settings.max_keep_alive < 0xFFFF:
            # Only a 5.0 client accepts another keep alive [MQTT-3.1.2-21]; none (0) counts as longer than any.
            connection.keep_alive = min(connect.keep_alive or settings.max_keep_alive, settings.max_keep_alive)
        connection.receive_maximum = settings.receive_maximum
        asked = connect.properties
        if asked is not None:
            connection.max_packet = asked.maximum_packet_size or 0
            connection.alias_maximum = min(asked.topic_alias_maximum or 0, settings.topic_aliases)
            connection.problem_info = asked.request_problem_info != 0
        return connection

    def _reason_to_refuse(self, connect: Connect, principal: Principal) -> int:
        """The reason code that refuses a CONNECT; SUCCESS if it is acceptable."""
        if not connect.client_id and connect.protocol != MQTT5 and not connect.clean_start:
            return reasons.CLIENT_IDENTIFIER_NOT_VALID  # [MQTT-3.1.3-8]
        will = connect.will
        return reasons.SUCCESS if will is None else self._reason_to_refuse_will(connect, will, principal)

    def _reason_to_refuse_will(self, connect: Connect, will: Will, principal: Principal) -> int:
        """A will that the client may not publish refuses a 5.0 client with the reason code. Before 5.0 the client could
        not learn why, and would never be accepted: its will is dropped instead."""
        if will.properties is not None and will.properties.response_topic == "":
            return reasons.PROTOCOL_ERROR  # section 3.1.3.2.7: it is a topic name [MQTT-4.7.3-1]
        if _may_have(principal, will):
            return reasons.SUCCESS
        self._counters.forbidden_wills += 1
        topic = shortened(will.topic)
        self._notices.warn(
            "forbidden will", "%s (client %s) may not publish its will to %s", principal, connect.client_id, topic
        )
        ignored = connect.protocol != MQTT5 and self._settings.on_refusal == IGNORE
        return reasons.SUCCESS if ignored else principal.permissions.reason

    def _refused(self, connection: Connection, reason: int) -> Connection:
        self._counters.refused += 1
        answer = _refusal(connection.protocol, reason)
        if connection.max_packet == 0 or len(answer) <= connection.max_packet:  # [MQTT-3.1.2-24]
            self._outbox.write(connection, answer)
        self._outbox.close(connection)
        return connection

    def _session_for(self, connect: Connect, connection: Connection) -> tuple[Session | None, bool, int]:
        """The session for a CONNECT, whether it existed before, and the reason code that refuses it."""
        principal = connection.principal
        client_id = connect.client_id
        if not client_id:
            self._assigned += 1
            client_id = connect.client_id = f"mesh-{int(self._clock() * 1000):x}-{self._assigned:x}"
            connection.assigned = True
            principal.permissions.name(client_id)
        key = (principal.kind, principal.name, client_id)
        session = self._sessions.get(key)
        again = session is not None
        if session is not None:
            self._enforcement.entitle(session, principal.permissions)  # before its last will is judged
            self._take_over(session, connect.clean_start)
            session = self._sessions.get(key)
        present = session is not None
        window = self._window(connect)
        if session is None:
            reason = self._sessions.refuses(key, again)
            if reason != reasons.SUCCESS:
                return None, False, reason
            if principal.kind == VEHICLE and not connect.clean_start:
                session = self._inbox.adopt(key, principal.vehicle)
            if session is None:
                session = self._sessions.create(key, principal.vehicle, window)
        session.outbound.window = window
        session.expiry = self._expiry(connect)
        session.durable = session.durable or session.expiry > 0 or self._settings.keep_all
        if principal.kind == TIER:
            self._open_ledger(session, connect)
        return session, present, reasons.SUCCESS

    def _open_ledger(self, session: Session, connect: Connect) -> None:
        """Give the session of a core its ledger, if CONNECT names the core's process."""
        user = [] if connect.properties is None else connect.properties.user
        instances = [value for name, value in user if name == INSTANCE]
        if not instances:
            return
        ledger = session.ledger
        if ledger is None:
            session.ledger = Ledger(instances[0])
        elif ledger.instance != instances[0]:
            ledger.instance = instances[0]
            ledger.forget()

    def _window(self, connect: Connect) -> int:
        properties = connect.properties
        asked = None if properties is None else properties.receive_maximum
        return self._settings.in_flight if asked is None else min(asked, self._settings.in_flight)

    def _expiry(self, connect: Connect) -> int:
        if connect.protocol != MQTT5:
            return 0 if connect.clean_start else self._settings.max_session_expiry
        asked = 0 if connect.properties is None else connect.properties.session_expiry or 0
        return min(asked, self._settings.max_session_expiry)

    def _take_over(self, session: Session, clean: bool) -> None:
        """Handle a second CONNECT for a session: close the first connection [MQTT-3.1.4-3]. A clean start ends the
        session.
        """
        old = session.connection
        clean = clean or session.expiry == 0  # it ends with its connection, also if a crash ended that
        if old is not None:
            self._counters.takeovers += 1
            self._closing.send_disconnect(old, reasons.SESSION_TAKEN_OVER)
            self._closing.unbind(old)
            self._outbox.close(old)
            if session.will is not None and (clean or session.will_delay == 0):
                self._dispatcher.publish_will(session)
        elif clean and session.will is not None:
            self._dispatcher.publish_will(session)
        session.will = None
        session.will_due = 0.0
        session.ends = 0.0
        if clean:
            self._sessions.end(session)  # [MQTT-3.1.2-4]

    def _bind(self, connection: Connection, session: Session) -> bool:
        """Returns whether the session has other roles than before."""
        connection.session = session
        session.connection = connection
        session.ends = 0.0
        session.will_due = 0.0
        session.attached = False
        session.provider = connection.principal.provider
        changed = self._enforcement.entitle(session, connection.principal.permissions)
        self._closing.connections += 1
        if session.kind == TIER:
            self._courier.pressure.joined(connection)
        else:
            self._courier.pressure.bound(session)
        return changed

    def remember(self, session: Session) -> None:
        """The roles of a session have changed: neither a restart of this node nor a later right of all clients brings
        back what they allowed."""
        if session.durable or session.will is not None:
            self._persistence.keep_session(session)

    def _accept(self, connection: Connection, connect: Connect, session: Session, present: bool) -> None:
        """Answer CONNECT once the session is durable, and give the session the messages that wait for it."""
        vehicle = connection.principal.kind == VEHICLE
        greeting = greeting_of(connection, connect, session, self._settings)
        if greeting is not None and session.kind == TIER and len(self._courier.pressure):
            greeting.user.append((FOLLOW, "1"))
        packet = encode(Connack(present, reasons.SUCCESS, greeting), connect.protocol)
        if connection.max_packet and len(packet) > connection.max_packet:  # no answer fits [MQTT-3.1.2-24]
            self._counters.dropped_large += 1
            if not present and len(session.outbound):
                self._inbox.take_back(session)
            self._closing.end(connection, with_will=False)
            self._outbox.close(connection)
            return
        if vehicle and not connect.clean_start and not present:
            for subscription in self._inbox.subscribe(session):
                self._subscriber.add(session, subscription, 0)
        released = session.outbound.reconnect()
        position = self._store.position if session.item else 0
        self._counters.connects += 1
        self._outbox.accept_after(connection, position, packet)
        self._courier.release_again(connection, released)
        if vehicle and not connect.clean_start:
            self._inbox.hand_over(session)  # to a session that was present
        self._sharing.arrived(session)
        self._courier.pump(session, connection)

    def attach(
        self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable, unacked: list[int]
    ) -> Connection:
        """Attach a connection that outlived its device link, or a restart of the edge. Deliveries wait until ``live``.

        If the session has ended, the connection returned has ``closing`` set, so that the client connects again.
        """
        connection = self._connection(connect, principal, peer, shell)
        session = self._sessions.get((principal.kind, principal.name, connect.client_id))
        if session is None:
            self._outbox.close(connection)
            return connection
        if session.connection is not None:
            self._closing.unbind(session.connection)
        if session.will is not None:
            session.origin = peer
        connection.accepted = True
        connection.live = False
        session.outbound.resuming = True
        try:
            changed = self._bind(connection, session)
            if session.durable and session.outbound.next_number > session.outbound.reserved:
                # what came before ATTACH is about to be sent with these numbers
                self._persistence.keep_session(session)
            elif changed:
                self.remember(session)
        except Exception:
            self._closing.end(connection, with_will=True)  # else the session would have a connection for ever
            raise
        connection.unacked = unacked
        return connection

    def live(self, connection: Connection) -> None:
        """The replay is complete: send what the client does not have."""
        session = connection.session
        if connection.live or session is None or connection.closing:
            return
        connection.live = True
        released = session.outbound.resume(connection.unacked)
        connection.unacked = []
        self._courier.release_again(connection, released)
        self._courier.pump(session, connection)
        if session.kind == VEHICLE and session.interests:
            self._inbox.hand_over(session)  # a crash may have ended it half way


def _refusal(protocol: int, reason: int) -> bytes:
    """The CONNACK that refuses a CONNECT with a 5.0 reason code, encoded for the client's protocol version."""
    code = reason if protocol == MQTT5 else reasons.return_code(reason)
    return encode(Connack(False, code), protocol)


def _may_have(principal: Principal, will: Will) -> bool:
    return principal.permissions.may_publish(will.topic, will.qos, will.retain, True)


def _will_delay(will: Will | None) -> int:
    if will is None or will.properties is None:
        return 0
    return will.properties.will_delay or 0
