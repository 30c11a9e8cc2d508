"""The client's side of one MQTT session with a server, over all its connections. MQTT 3.1, 3.1.1 and 5.0.

It knows the life of a connection and which part each packet is for: ``Outgoing`` sends messages, ``Incoming`` takes
them, ``Requests`` are SUBSCRIBE and UNSUBSCRIBE, ``KeepAlive`` watches the time. It never knows a socket, a journal, or
what messages mean. Bytes of the server go into ``received``, bytes for it come from ``output``; what the program has to
decide or to keep it is asked through the base classes in ``application``. What always holds:

* the state changes in ``_step`` alone, as the table in ``clientstate`` allows;
* nothing but CONNECT is sent before CONNACK, and nothing after this side has ended the connection;
* a server that breaks the protocol, refuses, closes or falls silent ends the connection, not the session.
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
    PUBACK,
    PUBCOMP,
    PUBREC,
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
from mesh.wire.reasons import CLIENT_DISCONNECT_REASONS, PROTOCOL_ERROR, SUCCESS, is_error, name_of

CONNACK_WAIT: Final = 15.0  # seconds from CONNECT to CONNACK: a server that is starting may still recover its sessions
_UNLIMITED: Final = 0xFFFF  # the receive maximum where none is given, section 3.2.2.3.3
_PING: Final = encode(Ping(PINGREQ), MQTT5)


@final
class ClientSession:
    """``outbound`` holds the messages for the server; its window at this moment is the most that this client has under
    way. ``limits`` bound what the server may send. ``clock`` gives seconds since 1970."""

    __slots__ = (
        "_clean", "_clock", "_events", "_incoming", "_keep_alive", "_limits", "_line", "_outbound", "_outgoing",
        "_reader", "_requests", "_state",
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
        self._reader = Reader(limits, CLIENT, MQTT5)

    @property
    def state(self) -> int:
        """The state of the connection, as ``clientstate`` names it."""
        return self._state

    @property
    def up(self) -> bool:
        """Whether the server has accepted the connection."""
        return self._state == UP

    @property
    def sent(self) -> int:
        """How many PUBLISHes were sent."""
        return self._outgoing.sent

    def _step(self, event: int) -> None:
        self._state = after(self._state, event)

    def restore(self, packet_id: int, position: int) -> None:
        """Take back a QoS 2 identifier that ``Receiver.keep`` had kept at ``position``."""
        self._incoming.restore(packet_id, position)

    # The connection

    def opened(self, connect: Connect) -> None:
        """The socket is open: send ``connect``."""
        self._step(OPENED)
        self._clean = connect.clean_start
        self._line.protocol = connect.protocol
        self._line.max_packet = 0
        self._incoming.opened(connect)
        self._reader = Reader(self._limits, CLIENT, connect.protocol)
        self._keep_alive.begin(self._clock(), connect.keep_alive)
        self._line.out.append(encode(connect, connect.protocol))

    def received(self, data: bytes) -> None:
        """Bytes of the server. While this side waits for the end of the connection they are ignored."""
        if self._state == DISCONNECTED:
            raise IllegalCall("bytes came without a connection")
        self._keep_alive.heard(self._clock())
        for packet in self._reader.feed(data):
            self._handle(packet)
            self._events.handled()
        error = self._reader.error
        if error is not None and (self._state == UP or self._state == CONNECTING):
            self.close(error.reason, f"sent what is not MQTT: {error}")
        self._go_on()

    def advance(self, durable: int) -> None:
        """The journal is durable up to ``durable``: send what waited for that."""
        self._line.durable = durable
        self._go_on()

    def _go_on(self) -> None:
        if self._state != UP:
            return
        reason = self._incoming.settle()
        if reason != SUCCESS:
            self._fail(reason)
            return
        self._outgoing.release()
        self._ask()
        self._outgoing.pump()

    def tick(self) -> None:
        """Once a second: is the server alive, and is a PINGREQ due?"""
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
        """End the connection from this side, with DISCONNECT where MQTT has one for ``reason``. ``why`` as in
        ``ClientEvents.closing``."""
        protocol = self._line.protocol
        if self._state == UP and (
            reason == SUCCESS or (protocol == MQTT5 and reason in CLIENT_DISCONNECT_REASONS)
        ):
            self._line.out.append(encode(Disconnect(reason), protocol))
        self._end(why)

    def _fail(self, reason: int) -> None:
        self.close(reason, f"sent a PUBLISH that cannot be taken: {name_of(reason)}")

    def _end(self, why: str) -> None:
        self._step(ENDED)
        self._events.closing(why)

    def lost(self) -> None:
        """The socket is closed. What was sent and not acknowledged stays in flight until the next connection."""
        self._step(LOST)
        self._line.out.clear()
        self._outgoing.lost()
        self._incoming.lost()
        self._requests.abandon()

    def output(self) -> bytes:
        """Take what is to be sent now; empty if there is nothing."""
        out = self._line.out
        if not out:
            return b""
        self._keep_alive.wrote = True
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    def waits(self) -> bool:
        """Whether an answer or a request waits for the journal."""
        return self._incoming.waits() or self._outgoing.waits() or bool(self._requests.waiting)

    # What the program wants

    def request(self, request: Request) -> None:
        """Subscribe or unsubscribe. Raises ``IllegalCall`` while the session is not up: what a server is to have
        is said when it has accepted."""
        if self._state != UP:
            raise IllegalCall(f"a request is not possible while {STATES[self._state]}")
        self._requests.waiting.append(request)
        self._ask()

    def _ask(self) -> None:
        while True:
            packet = self._requests.next(self._line.durable, self._outbound.in_flight)
            if packet is None:
                return
            self._line.out.append(encode(packet, self._line.protocol))

    def pump(self) -> None:
        """Send what may be sent of ``outbound``."""
        if self._state == UP:
            self._outgoing.pump()

    def transmit(self, delivery: Delivery, message: Message) -> None:
        """Send a QoS 0 message now, past the queue. The session must be up."""
        self._outgoing.transmit(delivery, message)

    # Packets of the server

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
                self._answered(packet)
            elif isinstance(packet, Disconnect):
                self._end(f"closed the connection: {name_of(packet.reason)}")
            elif not isinstance(packet, Ping):
                self.close(PROTOCOL_ERROR, f"sent {type(packet).__name__} after CONNACK")
        elif state == CONNECTING:
            if isinstance(packet, Connack):
                self._greeted(packet)
            else:
                self.close(PROTOCOL_ERROR, f"sent {type(packet).__name__} before CONNACK")  # [MQTT-3.2.0-1]

    def _greeted(self, packet: Connack) -> None:
        if packet.reason != SUCCESS:
            code = name_of(packet.reason) if self._line.protocol == MQTT5 else f"return code {packet.reason}"
            self._end(f"refused the connection: {code}")
            return
        if packet.session_present and self._clean:
            self.close(PROTOCOL_ERROR, "kept a session that was to begin anew")  # [MQTT-3.2.2-2]
            return
        self._step(ACCEPTED)
        receive_maximum = self._take_limits(packet)
        if not packet.session_present:
            self._incoming.begin_anew()
        self._outgoing.accepted(packet.session_present, receive_maximum)
        self._events.accepted(packet.session_present)
        self.pump()

    def _take_limits(self, packet: Connack) -> int:
        """The server's limits; returns its receive maximum."""
        properties = packet.properties
        if properties is None:
            return _UNLIMITED
        if properties.maximum_packet_size is not None:
            self._line.max_packet = properties.maximum_packet_size
        if properties.server_keep_alive is not None:
            self._keep_alive.seconds = properties.server_keep_alive  # [MQTT-3.1.2-21]
        return _UNLIMITED if properties.receive_maximum is None else properties.receive_maximum

    def _acknowledged(self, packet: Ack) -> None:
        type, packet_id, reason = packet.type, packet.packet_id, packet.reason
        if type in (PUBACK, PUBCOMP) or (type == PUBREC and is_error(reason)):
            self._outgoing.finish(packet_id, reason)
        elif type == PUBREC:
            self._outgoing.received(packet_id)
        else:
            fault = self._incoming.release(packet_id)
            if fault != SUCCESS:
                self._fail(fault)

    def _answered(self, packet: SubAck) -> None:
        """SUBACK or UNSUBACK. For an identifier that is not in use it means nothing."""
        request = self._requests.open.pop(packet.packet_id, None)
        if request is None:
            return
        answers = packet.reasons
        if packet.type == UNSUBACK and self._line.protocol != MQTT5:
            answers = [SUCCESS]  # it cannot fail
        if len(answers) != 1 or (packet.type == UNSUBACK) != (request.subscription is None):
            request.abandoned()
            self.close(PROTOCOL_ERROR, "answered a request with reason codes for another")  # [MQTT-3.8.4-6]
            return
        request.answered(answers[0])
        self._ask()
        self._outgoing.pump()
