"""The client's side of one MQTT session with a server, over all its connections. MQTT 3.1, 3.1.1 and 5.0.

It knows the states of a connection and which part handles each packet: ``Outgoing`` sends messages, ``Incoming``
receives them, ``Requests`` are SUBSCRIBE and UNSUBSCRIBE, ``KeepAlive`` watches the time. It must never know a socket,
a journal, or what messages mean. ``received`` takes the server's bytes, ``output`` returns bytes for the server; the
program decides and keeps things through the base classes in ``application``. What always holds:

* only ``_step`` changes the state, as the table in ``clientstate`` allows;
* only CONNECT is sent before CONNACK, and nothing after this side has ended the connection;
* a server that breaks the protocol, refuses, closes or becomes silent ends the connection, not the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mesh.session.application import ClientEvents, Receiver, Sender
from mesh.session.clientstate import (
    ACCEPTED,
    CONNECTING,
    DISCONNECTED,
    ENDED,
    LOST,
    OPENED,
    STATES,
    UP,
    IllegalCall,
    after,
)
from mesh.session.incoming import Incoming
from mesh.session.keepalive import DEAD, PING, KeepAlive
from mesh.session.line import Line
from mesh.session.message import Message
from mesh.session.outbound import Delivery, Outbound
from mesh.session.outgoing import Outgoing
from mesh.session.requests import Request, Requests
from mesh.wire.decode import CLIENT, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PUBREC,
    PUBREL,
    UNSUBACK,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import CLIENT_DISCONNECT_REASONS, PROTOCOL_ERROR, SUCCESS, is_error, name_of

CONNACK_WAIT: Final = 15.0  # seconds from CONNECT to CONNACK: a starting server may still be recovering its sessions
_UNLIMITED: Final = 0xFFFF  # the default receive maximum, section 3.2.2.3.3
_PING: Final = encode(Ping(PINGREQ), MQTT5)


@final
class ClientSession:
    """``outbound`` holds the messages for the server; its window at construction is the most that this client keeps in
    flight. ``limits`` bound what the server may send. ``clock`` returns seconds since 1970."""

    __slots__ = (
        "_clean", "_clock", "_events", "_incoming", "_keep_alive", "_limits", "_line", "_outbound", "_outgoing",
        "_requests", "_state", "greeting", "reader",
    )  # fmt: skip

    def __init__(
        self,
        events: ClientEvents,
        sender: Sender,
        receiver: Receiver,
        outbound: Outbound,
        limits: PacketLimits,
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._outbound = outbound
        self._limits = limits
        self._clock = clock
        self._state = DISCONNECTED
        self._line = Line()
        self._keep_alive = KeepAlive()
        self._requests = Requests()
        self._incoming = Incoming(receiver, self._line)
        self._outgoing = Outgoing(sender, outbound, self._requests, self._line, clock)
        self._clean = False
        self.greeting: Properties | None = None  # the properties of the last CONNACK with success
        self.reader = Reader(limits, CLIENT, MQTT5)  # of the present connection

    @property
    def state(self) -> int:
        """The state of the connection, one of ``clientstate.STATES``."""
        return self._state

    @property
    def up(self) -> bool:
        """Whether the server has accepted the connection."""
        return self._state == UP

    @property
    def sent(self) -> int:
        """The number of PUBLISH packets sent."""
        return self._outgoing.sent

    def _step(self, event: int) -> None:
        self._state = after(self._state, event)

    def restore(self, packet_id: int, position: int) -> None:
        """Restore a QoS 2 identifier that ``Receiver.keep`` kept at ``position``."""
        self._incoming.restore(packet_id, position)

    # The connection

    def opened(self, connect: Connect) -> None:
        """The socket is open: send ``connect``."""
        self._step(OPENED)
        self._clean = connect.clean_start
        self._line.protocol = connect.protocol
        self._line.max_packet = 0
        self._incoming.opened(connect)
        self.reader = Reader(self._limits, CLIENT, connect.protocol)
        self._keep_alive.begin(self._clock(), connect.keep_alive)
        self._line.out.append(encode(connect, connect.protocol))

    def received(self, data: bytes) -> None:
        """Handle bytes from the server. In state CLOSING they are ignored."""
        if self._state == DISCONNECTED:
            raise IllegalCall("bytes were received without a connection")
        self._keep_alive.heard(self._clock())
        for packet in self.reader.feed(data):
            self._handle(packet)
            self._events.handled()
        error = self.reader.error
        if error is not None and (self._state == UP or self._state == CONNECTING):
            self.close(error.reason, f"broke the protocol: {error}")
        self._send_ready()

    def advance(self, durable: int) -> None:
        """The journal is durable up to ``durable``: send what waited for it."""
        self._line.durable = durable
        self._send_ready()

    def _send_ready(self) -> None:
        if self._state != UP:
            return
        reason = self._incoming.settle()
        if reason != SUCCESS:
            self._fail(reason)
            return
        self._outgoing.release()
        self._send_requests()
        self._outgoing.pump()

    def tick(self) -> None:
        """Call once a second: checks whether the server is alive and whether a PINGREQ is due."""
        now = self._clock()
        if self._state == CONNECTING:
            if self._keep_alive.silence(now) > CONNACK_WAIT:
                self._end("did not answer CONNECT")
        elif self._state == UP:
            due = self._keep_alive.check(now)
            if due == PING:
                self._line.out.append(_PING)
            elif due == DEAD:
                self._end("is silent")

    def close(self, reason: int, why: str) -> None:
        """End the connection from this side, with DISCONNECT if the protocol has one for ``reason``. For ``why`` see
        ``ClientEvents.closing``."""
        protocol = self._line.protocol
        if self._state == UP and (
            reason == SUCCESS or (protocol == MQTT5 and reason in CLIENT_DISCONNECT_REASONS)
        ):
            self._line.out.append(encode(Disconnect(reason), protocol))
        self._end(why)

    def _fail(self, reason: int) -> None:
        self.close(reason, f"sent a PUBLISH that cannot be accepted: {name_of(reason)}")

    def _end(self, why: str) -> None:
        self._step(ENDED)
        self._events.closing(why)

    def lost(self) -> None:
        """The socket is closed. Unacknowledged deliveries stay in flight until the next connection."""
        self._step(LOST)
        self._line.out.clear()
        self._outgoing.lost()
        self._incoming.lost()
        self._requests.abandon()

    def output(self) -> bytes:
        """Take the bytes to send now; empty if there are none. The program calls it once a turn, and again in the next
        turn if ``behind``."""
        if self._state == UP:
            self._outgoing.next_turn()
        out = self._line.out
        if not out:
            return b""
        self._keep_alive.wrote = True
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    @property
    def behind(self) -> bool:
        """Whether deliveries may leave that were left for the next turn."""
        return self._outgoing.behind

    def waits(self) -> bool:
        """Whether an answer or a request waits for the journal."""
        return self._incoming.waits() or self._outgoing.waits() or bool(self._requests.waiting)

    # Calls of the program

    def request(self, request: Request) -> None:
        """Subscribe or unsubscribe. Raises ``IllegalCall`` while the session is not up: make requests after
        ``ClientEvents.accepted``."""
        if self._state != UP:
            raise IllegalCall(f"a request is not possible while {STATES[self._state]}")
        self._requests.waiting.append(request)
        self._send_requests()

    def _send_requests(self) -> None:
        while True:
            packet = self._requests.next(self._line.durable, self._outbound.in_flight)
            if packet is None:
                return
            self._line.out.append(encode(packet, self._line.protocol))

    def pump(self) -> None:
        """Send the deliveries of ``outbound`` that may leave now."""
        if self._state == UP:
            self._outgoing.pump()

    def transmit(self, delivery: Delivery, message: Message) -> None:
        """Send a QoS 0 message now, without queuing it. The session must be up."""
        self._outgoing.transmit(delivery, message)

    # Packets from the server

    def _handle(self, packet: Packet) -> None:
        state = self._state
        if state == UP:
            if isinstance(packet, Ack):
                self._acknowledged(packet)
            elif isinstance(packet, Publish):
                reason = self._incoming.publish(packet)
                if reason != SUCCESS:
                    self._fail(reason)
            elif isinstance(packet, SubAck):
                self._suback(packet)
            elif isinstance(packet, Disconnect):
                self._end(f"closed the connection: {name_of(packet.reason)}")
            elif not isinstance(packet, Ping):
                self.close(PROTOCOL_ERROR, f"sent {type(packet).__name__} after CONNACK")
        elif state == CONNECTING:
            if isinstance(packet, Connack):
                self._connack(packet)
            else:
                self.close(PROTOCOL_ERROR, f"sent {type(packet).__name__} before CONNACK")  # [MQTT-3.2.0-1]

    def _connack(self, packet: Connack) -> None:
        if packet.reason != SUCCESS:
            code = name_of(packet.reason) if self._line.protocol == MQTT5 else f"return code {packet.reason}"
            self._end(f"refused the connection: {code}")
            return
        if packet.session_present and self._clean:
            self.close(PROTOCOL_ERROR, "reported a present session after Clean Start")  # [MQTT-3.2.2-2]
            return
        self._step(ACCEPTED)
        self.greeting = packet.properties
        receive_maximum = self._take_limits(packet)
        if not packet.session_present:
            self._incoming.discard_session()
        self._outgoing.accepted(packet.session_present, receive_maximum)
        self._events.accepted(packet.session_present)
        self.pump()

    def _take_limits(self, packet: Connack) -> int:
        """Store the server's limits; returns its receive maximum."""
        properties = packet.properties
        if properties is None:
            return _UNLIMITED
        if properties.maximum_packet_size is not None:
            self._line.max_packet = properties.maximum_packet_size
        if properties.server_keep_alive is not None:
            self._keep_alive.seconds = properties.server_keep_alive  # [MQTT-3.1.2-21]
        return _UNLIMITED if properties.receive_maximum is None else properties.receive_maximum

    def discard(self) -> None:
        """The server does not exist now: forget the QoS 2 identifiers of its messages."""
        self._incoming.discard_session()

    def widen(self, size: int) -> None:
        """The server takes packets of ``size`` bytes now, although its CONNACK may have said fewer."""
        if self._line.max_packet:
            self._line.max_packet = max(self._line.max_packet, size)

    def _acknowledged(self, packet: Ack) -> None:
        type, packet_id = packet.type, packet.packet_id
        if type == PUBREL:
            fault = self._incoming.release(packet_id)
            if fault != SUCCESS:
                self._fail(fault)
            return
        if type == PUBREC and not is_error(packet.reason):
            fits = self._outgoing.received(packet_id)
        else:
            fits = self._outgoing.finish(packet)
        if not fits:
            self.close(PROTOCOL_ERROR, "sent an acknowledgement that does not fit its message")

    def _suback(self, packet: SubAck) -> None:
        """SUBACK or UNSUBACK. One with an identifier that is not in use is ignored."""
        request = self._requests.open.pop(packet.packet_id, None)
        if request is None:
            return
        answers = packet.reasons
        if packet.type == UNSUBACK and self._line.protocol != MQTT5:
            answers = [SUCCESS]  # UNSUBACK has no reason codes before 5.0
        if len(answers) != 1 or (packet.type == UNSUBACK) != (request.subscription is None):
            request.abandoned()
            self.close(PROTOCOL_ERROR, "sent an answer that does not fit its request")  # [MQTT-3.8.4-6]
            return
        request.answered(answers[0])
        self._send_requests()
        self._outgoing.pump()
