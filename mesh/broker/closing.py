"""The end of connections: after DISCONNECT, after an error or a time-out, with the socket, by an operator, and when
the node stops.

It knows connections, the sessions that they had, and wills: never how a connection opens, nor the packets before its
end. What always holds:

* a connection that has ended has no session, and no receipt of it is answered;
* the will is published when the connection ends or, with a delay, when that is over; never after a DISCONNECT with
  success [MQTT-3.14.4-3], nor when the client is banned;
* also after an error in this program, the session ends or expires, and the connection is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from mesh.broker.courier import Courier
from mesh.broker.dispatcher import Dispatcher
from mesh.broker.outbox import Outbox, explained
from mesh.broker.principal import TIER
from mesh.broker.session import Connection, Session
from mesh.broker.sessions import Sessions
from mesh.broker.settings import Settings
from mesh.broker.sharing import Sharing
from mesh.session.store import Store
from mesh.wire import reasons
from mesh.wire.packets import MQTT5, Disconnect


@final
class Closing:
    """``connections``: how many have a session. ``Opening`` counts those that get one."""

    __slots__ = ("_clock", "_courier", "_dispatcher", "_outbox", "_sessions", "_settings", "_sharing", "_store",
                 "connections")  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clock: Callable[[], float],
        outbox: Outbox,
        courier: Courier,
        sessions: Sessions,
        sharing: Sharing,
        dispatcher: Dispatcher,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._outbox = outbox
        self._courier = courier
        self._sessions = sessions
        self._sharing = sharing
        self._dispatcher = dispatcher
        self.connections = 0

    def fail(self, connection: Connection, reason: int, why: str = "") -> None:
        """Handle a protocol error or a time-out: tell a 5.0 client why, publish the will, close the connection."""
        try:
            if connection.session is not None:  # else the client has sent DISCONNECT
                self.send_disconnect(connection, reason, why)
                self.end(connection, with_will=True)
        finally:
            self._outbox.close(connection)

    def expel(self, connection: Connection, reason: int) -> None:
        """An operator ends the connection: tell a 5.0 client why, and publish the will unless the client is banned."""
        try:
            self.send_disconnect(connection, reasons.farewell_code(reason))
            self.end(connection, with_will=reason != reasons.BANNED)
        finally:
            self._outbox.close(connection)

    def disconnect(self, connection: Connection, session: Session, packet: Disconnect) -> None:
        """Handle DISCONNECT of the client."""
        expiry = None if packet.properties is None else packet.properties.session_expiry
        if expiry is not None:
            if session.expiry == 0 and expiry > 0:  # [MQTT-3.14.2-2]
                self.fail(connection, reasons.PROTOCOL_ERROR, "a session expiry of 0 cannot be raised at the end")
                return
            session.expiry = min(expiry, self._settings.max_session_expiry)
        kept = session.item
        self.end(connection, with_will=packet.reason != reasons.SUCCESS)  # [MQTT-3.14.4-3]
        # Close only when the end of the session is durable, so that no crash can undo it.
        self._outbox.close_after(connection, self._store.position if kept else 0)

    def lost(self, connection: Connection) -> None:
        """The socket was closed without DISCONNECT [MQTT-3.1.2-8], unless one waits behind a long packet."""
        session, later = connection.session, connection.later
        if later is not None and session is not None:
            for packet in later:
                if isinstance(packet, Disconnect):
                    self.disconnect(connection, session, packet)
                    break
        connection.closing = True
        connection.out.clear()
        self.end(connection, with_will=True)

    def stop(self, reason: int) -> None:
        """The node stops: send DISCONNECT to every client and keep the sessions."""
        for session in self._sessions.all():
            connection = session.connection
            if connection is not None:
                self.send_disconnect(connection, reason)
                self.unbind(connection)
                self._sessions.detach(session, self._clock())
                self._outbox.close(connection)

    def send_disconnect(self, connection: Connection, reason: int, why: str = "") -> None:
        """Send DISCONNECT to a client that knows it from servers."""
        if connection.protocol == MQTT5 and connection.accepted:
            self._outbox.write_fitting(connection, Disconnect(reason, explained(why)), Disconnect(reason))

    def unbind(self, connection: Connection) -> None:
        """Separate connection and session, and close the receipts of the connection."""
        session = connection.session
        if session is None:
            return
        connection.session = None
        session.connection = None
        self.connections -= 1
        if session.kind == TIER:
            self._courier.pressure.left(connection)
        for receipt in connection.inbound.receipts:
            receipt.close()
        connection.inbound.receipts.clear()
        connection.held.clear()
        self._courier.detached(session)

    def end(self, connection: Connection, with_will: bool) -> None:
        """Separate connection and session, which ends, or is kept until it expires."""
        session = connection.session
        if session is None:
            return
        self.unbind(connection)
        now = self._clock()
        try:
            if not with_will:
                session.will = None  # [MQTT-3.14.4-3]
            elif session.will is not None:
                if session.will_delay == 0 or session.expiry == 0:
                    self._dispatcher.publish_will(session)
                else:
                    session.will_due = now + min(session.will_delay, session.expiry)  # [MQTT-3.1.3-9]
        finally:  # also after an error in this program, the session expires
            if session.expiry == 0:
                self._sessions.end(session)
            else:
                self._sessions.detach(session, now)
                self._sharing.detached(session)
