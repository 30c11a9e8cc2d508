"""The sending side of a client's session: sends messages as the server and the journal allow, until acknowledged.

It knows the queue, the acknowledgements and the server's limits; it must never know where a message comes from, or how
a delivery is kept. It is used while the session is up. What always holds:

* a message is sent when its delivery's position is durable, in order, within the server's receive maximum
  [MQTT-3.3.4-7] and maximum packet size [MQTT-3.2.2-15];
* PUBREL is sent when the release is durable: otherwise, after a crash, this client would repeat the PUBLISH with the
  same identifier, and a server that has received the PUBREL would take it for a new message;
* no message has the packet identifier of an unanswered request [MQTT-2.2.1-3].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mypy_extensions import i64

from mesh.session.application import Sender
from mesh.session.fifo import Fifo
from mesh.session.line import Line
from mesh.session.message import NEVER, Message, publish_packet
from mesh.session.outbound import RELEASED, Delivery, Outbound, packet_id_of
from mesh.session.requests import Requests
from mesh.wire.encode import encode_ack
from mesh.wire.packets import PUBREL, Ack
from mesh.wire.reasons import PACKET_TOO_LARGE, SUCCESS

# Deliveries that leave, or have expired, in one turn of the program. After a server was away there may be any number,
# and their messages are read from the journal: these take 5 ms.
BATCH: Final = 512


@final
class Outgoing:
    """The sending side of one session with a server. ``sent`` counts PUBLISH packets."""

    __slots__ = (
        "_clock", "_left", "_line", "_outbound", "_releases", "_requests", "_sender", "_window", "behind", "sent",
    )  # fmt: skip

    def __init__(
        self, sender: Sender, outbound: Outbound, requests: Requests, line: Line, clock: Callable[[], float]
    ) -> None:
        self.sent: i64 = 0
        self.behind = False  # deliveries may leave that this turn left for the next
        self._left: i64 = BATCH  # deliveries that may leave in this turn
        self._sender = sender
        self._outbound = outbound
        self._requests = requests
        self._line = line
        self._clock = clock
        self._window = outbound.window  # the most that this client keeps in flight
        self._releases: Fifo[tuple[int, int]] = Fifo()  # PUBRELs that wait: position and identifier

    def accepted(self, session_present: bool, receive_maximum: int) -> None:
        """The server has accepted a connection: deliveries in flight are sent again."""
        self._outbound.window = min(self._window, receive_maximum)
        released = self._outbound.reconnect()
        if session_present:
            for delivery in released:
                self._releases.append((delivery.position, packet_id_of(delivery.number)))
            return
        # The server has no session: no identifier is in use, and no message is a repeat [MQTT-3.2.2-5]. It had received
        # the released messages before it lost the session, so they are not sent again.
        for delivery in released:
            self._outbound.remove(delivery)
            self._sender.finished(delivery, SUCCESS)
        for delivery in self._outbound.waiting:
            delivery.dup = False

    def lost(self) -> None:
        """The connection is closed. Unacknowledged deliveries stay in flight until the next one."""
        self._releases.clear()
        self.behind = False

    def waits(self) -> bool:
        """Whether a PUBREL waits for the journal."""
        return bool(self._releases)

    def pump(self) -> None:
        """Send the waiting deliveries that may leave now."""
        outbound = self._outbound
        durable = self._line.durable
        while True:
            if self._requests.open and self._next_identifier_in_use():
                return
            if self._left <= 0:
                self.behind = True
                return
            delivery = outbound.take(durable)
            if delivery is None:
                return
            self._left -= 1
            if delivery.expires != NEVER and delivery.expires <= self._clock():
                self._expire(delivery)  # [MQTT-3.3.2-5]
                continue
            message = self._sender.load(delivery)
            if self._sender.withholding and delivery.qos and self._sender.withholds(delivery, message):
                continue
            self.transmit(delivery, message)

    def next_turn(self) -> None:
        """A turn of the program begins: go on with the deliveries that the last one left."""
        self._left = BATCH
        if self.behind:
            self.behind = False
            self.pump()

    def _next_identifier_in_use(self) -> bool:
        """Whether an unanswered request uses the identifier of the next message."""
        waiting = self._outbound.waiting
        return bool(waiting) and packet_id_of(waiting.first().number) in self._requests.open

    def _expire(self, delivery: Delivery) -> None:
        if delivery.qos:
            self._outbound.remove(delivery)
        self._sender.expired(delivery)

    def transmit(self, delivery: Delivery, message: Message) -> None:
        """Send one message now."""
        now = self._clock()
        delivery.started = now
        packet_id = packet_id_of(delivery.number) if delivery.qos else 0
        context = None if message.trace is None else self._sender.context(delivery, message, now)
        line = self._line
        packet = publish_packet(
            message, line.protocol, delivery.qos, delivery.retain, delivery.dup, packet_id, now, (), context
        )
        if line.max_packet and len(packet) > line.max_packet:
            if delivery.qos:
                self._outbound.remove(delivery)
            self._sender.finished(delivery, PACKET_TOO_LARGE)
            return
        self.sent += 1
        line.out.append(packet)

    def finish(self, packet: Ack) -> bool:
        """Handle PUBACK, PUBCOMP, or PUBREC with an error. One with an identifier that is not in use is ignored.
        Returns ``False`` if it does not fit the delivery with its identifier."""
        delivery = self._outbound.finish(packet.packet_id, packet.type)
        if delivery is not None:
            self._sender.finished(delivery, packet.reason)
        elif self._outbound.misfit(packet.packet_id):
            return False
        self.pump()
        return True

    def received(self, packet_id: int) -> bool:
        """Handle PUBREC with success. Returns ``False`` if it does not fit the delivery with its identifier."""
        delivery = self._outbound.received(packet_id)
        if delivery is None and self._outbound.misfit(packet_id):
            return False
        if delivery is not None and delivery.state != RELEASED:
            self._sender.released(delivery)
        self._releases.append((0 if delivery is None else delivery.position, packet_id))
        return True

    def release(self) -> None:
        """Send each PUBREL whose release is durable."""
        line = self._line
        releases = self._releases
        while releases and releases.first()[0] <= line.durable:
            line.out.append(encode_ack(PUBREL, releases.popleft()[1], SUCCESS, line.protocol))
