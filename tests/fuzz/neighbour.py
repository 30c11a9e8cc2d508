"""A client that follows the protocol, beside fuzzed clients: it always gets its own messages.

It publishes to itself with QoS 1 and 2, keeps its session over connections, and repeats unacknowledged messages. What
always holds: its messages come back in order; a QoS 2 message comes once, a QoS 1 message again only with DUP or if it
was published again.
"""

from __future__ import annotations

from typing import Final

from mesh.broker.broker import Broker
from mesh.broker.principal import Principal
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connack,
    Connect,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import QUOTA_EXCEEDED
from tests.fuzz.line import Line
from tests.fuzz.peer import encoded_answer
from tests.fuzz.watch import Breach, insist

_WINDOW: Final = 4  # publishes unanswered
_MARK: Final = b"neighbour "


class Neighbour:
    """``prefix``: the topics that it may publish to. ``published`` and ``arrived`` count its messages. ``refusable``:
    its messages may be refused because other receivers hold too many. No receiver gets such a message."""

    def __init__(self, principal: Principal, limits: PacketLimits, prefix: str, refusable: bool = False) -> None:
        self._refusable = refusable
        self._skipped: set[int] = set()  # numbers before ``arrived`` that did not come: they must be refused
        self._refused: set[int] = set()  # numbers from ``arrived`` on that do not come
        self._principal = principal
        self._limits = limits
        self._topic = prefix + "neighbour/own"
        self._line: Line | None = None
        self._unanswered: dict[int, Publish | None] = {}  # in order; ``None`` once PUBREC came
        self._again: set[int] = set()  # numbers of QoS 1 that were published twice
        self._received: set[int] = set()  # QoS 2 identifiers of the server that are not released
        self._out: list[bytes] = []
        self._id = 0
        self._known = False
        self._subscribed = False
        self._accepting = False
        self.published = 0
        self.arrived = 0

    def join(self, broker: Broker) -> None:
        """Connect, also after a crash of the server."""
        self._line = Line(broker, self._principal, self._limits)
        properties = Properties()
        properties.session_expiry = 100_000_000  # seconds: longer than any test
        hello = Connect(MQTT5, "neighbour", False, 0, properties=properties)
        self._line.feed(encode(hello, MQTT5))

    def step(self, publish: bool = True) -> None:
        """Answer the packets that came; publish one more message if there is room."""
        line = self._line
        assert line is not None
        insist(not line.closed, "the server has closed the connection of a client that follows the protocol")
        heard, line.heard = line.heard, []
        for packet in heard:
            self._hear(packet)
        if publish and self._subscribed and self._accepting and len(self._unanswered) < _WINDOW:
            self._publish()
        out, self._out = self._out, []
        for data in out:
            line.feed(data)

    def _say(self, packet: Packet) -> None:
        self._out.append(encode(packet, MQTT5))

    def _publish(self) -> None:
        self._id = self._id % 65_535 + 1
        payload = _MARK + b"%d" % self.published
        message = Publish(self._topic, payload, 1 + self.published % 2, packet_id=self._id)
        self.published += 1
        self._unanswered[self._id] = message
        self._say(message)

    def _hear(self, packet: Packet) -> None:
        if isinstance(packet, Connack):
            self._accepted(packet)
        elif isinstance(packet, SubAck):
            insist(packet.reasons == [2], f"the neighbour's subscription was answered with {packet.reasons}")
            self._subscribed = True
        elif isinstance(packet, Publish):
            self._take(packet)
        elif isinstance(packet, Ack):
            self._hear_ack(packet)
        answer = encoded_answer(packet, MQTT5)
        if answer:
            self._out.append(answer)

    def _accepted(self, packet: Connack) -> None:
        insist(packet.reason == 0, f"the neighbour was refused: {packet}")
        insist(packet.session_present or not self._known, "the session of the neighbour is not present")
        self._known = self._accepting = True
        if not self._subscribed:
            self._say(Subscribe(65_535, [Subscription(self._topic, 2)]))
        for packet_id, message in self._unanswered.items():
            if message is None:
                self._say(Ack(PUBREL, packet_id))
                continue
            message.dup = True
            if message.qos == 1:
                self._again.add(_number(message))
            self._say(message)

    def _take(self, packet: Publish) -> None:
        if packet.qos == 2:
            if packet.packet_id in self._received:
                return
            self._received.add(packet.packet_id)
        if packet.topic != self._topic or not packet.payload.startswith(_MARK):
            return  # a message of another client
        number = _number(packet)
        if packet.qos != 1 + number % 2 or number in self._skipped:
            raise Breach(f"message {number} came where {self.arrived} was due: {packet}")
        while number > self.arrived:
            self._skip(packet)
        if number == self.arrived:
            self.arrived += 1
            while self.arrived in self._refused:
                self._skip(packet)
        elif packet.qos == 2 or not (packet.dup or number in self._again):
            raise Breach(f"message {number} came twice: {packet}")

    def _skip(self, packet: Packet) -> None:
        """The message that was due did not come: it was refused, or will be."""
        if self.arrived in self._refused:
            self._refused.discard(self.arrived)
        elif self._refusable:
            self._skipped.add(self.arrived)
        else:
            raise Breach(f"{self.arrived} was due: {packet}")
        self.arrived += 1

    def _hear_refusal(self, packet: Ack) -> None:
        """A message was refused, so it does not come."""
        if not self._refusable or packet.reason != QUOTA_EXCEEDED:
            raise Breach(f"the neighbour's message was refused: {packet}")
        message = self._unanswered[packet.packet_id]
        if message is None:
            raise Breach(f"an exchange that was open was refused: {packet}")
        number = _number(message)
        if number >= self.arrived:
            self._refused.add(number)
            while self.arrived in self._refused:
                self._skip(packet)
        elif number in self._skipped:
            self._skipped.discard(number)
        elif number not in self._again:  # of a repeat, the first may have come
            raise Breach(f"message {number} came and was refused: {packet}")

    def _hear_ack(self, packet: Ack) -> None:
        packet_id = packet.packet_id
        # After a crash the server may have dropped a completed exchange.
        refused = packet.reason >= 0x80 and packet.type != PUBCOMP
        if refused:
            self._hear_refusal(packet)
        if packet.type == PUBREL:
            self._received.discard(packet_id)
        elif packet_id not in self._unanswered:
            raise Breach(f"an answer to an unknown packet: {packet}")
        elif packet.type == PUBREC and not refused:
            self._unanswered[packet_id] = None
        else:
            del self._unanswered[packet_id]

    @property
    def settled(self) -> bool:
        """Whether all messages are acknowledged and have come back."""
        left = self._unanswered or self._out or self._received or self._skipped
        return self.arrived == self.published and not left

    def lose(self) -> None:
        """The server has crashed."""
        if self._line is not None:
            self._line.closed = True
        self._accepting = False
        self._out.clear()


def _number(packet: Publish) -> int:
    return int(packet.payload[len(_MARK) :])
