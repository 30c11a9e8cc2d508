"""The receiving side of a client's session: takes the server's messages and answers them in order.

It knows receipts, QoS 2 identifiers and topic aliases; it must never know what a message means, or how an identifier is
kept. It is used while the session is up. What always holds:

* publishes are answered in the order of their arrival [MQTT-4.6.0-2], each when its receipt is ready;
* a QoS 2 message is taken once [MQTT-4.3.3-10]: its identifier is durable before PUBREC, and durably deleted before
  PUBCOMP, because the server may then use it again.

If the server breaks the protocol or cannot be answered, a call returns the reason code to end the connection with;
otherwise SUCCESS.
"""

from __future__ import annotations

from typing import Final, final

from mesh.session.application import Receiver
from mesh.session.fifo import Fifo
from mesh.session.inbound import Inbound, Publisher, Receipt
from mesh.session.line import Line
from mesh.wire.encode import encode_ack
from mesh.wire.packets import MQTT5, PUBACK, PUBCOMP, PUBREC, Connect, Publish
from mesh.wire.reasons import (
    PACKET_IDENTIFIER_NOT_FOUND,
    RECEIVE_MAXIMUM_EXCEEDED,
    SUCCESS,
    TOPIC_ALIAS_INVALID,
    is_error,
)

_UNLIMITED: Final = 0xFFFF  # the default receive maximum, section 3.1.2.11.3


@final
class Incoming(Publisher):
    """The receiving side of one session with a server."""

    __slots__ = ("_held", "_inbound", "_line", "_open", "_receive_maximum", "_receiver")

    def __init__(self, receiver: Receiver, line: Line) -> None:
        self._receiver = receiver
        self._line = line
        self._inbound = Inbound(0)
        self._receive_maximum = _UNLIMITED
        self._held: Fifo[tuple[int, bytes]] = Fifo()  # PUBCOMPs that wait, with their positions
        self._open: dict[int, int] = {}  # QoS 2 identifiers between PUBLISH and PUBREL, with their positions

    def restore(self, packet_id: int, position: int) -> None:
        """Restore a QoS 2 identifier that ``Receiver.keep`` kept at ``position``."""
        self._open[packet_id] = position

    def opened(self, connect: Connect) -> None:
        """Begin a connection with the properties of this CONNECT."""
        asked = connect.properties if connect.protocol == MQTT5 else None
        maximum = None if asked is None else asked.receive_maximum
        self._receive_maximum = _UNLIMITED if maximum is None else maximum
        self._inbound = Inbound(0 if asked is None else asked.topic_alias_maximum or 0)

    def discard_session(self) -> None:
        """Delete all QoS 2 identifiers: the server has no session, so it will not repeat them."""
        for position in self._open.values():
            self._receiver.forget(position)
        self._open.clear()

    def lost(self) -> None:
        """The connection is closed: the server repeats unacknowledged messages on the next one [MQTT-4.4.0-1]."""
        for receipt in self._inbound.receipts:
            receipt.close()
        self._inbound.receipts.clear()
        self._held.clear()

    def waits(self) -> bool:
        """Whether an answer waits."""
        return bool(self._inbound.receipts or self._held)

    def publish(self, packet: Publish) -> int:
        """Handle PUBLISH."""
        properties = packet.properties
        if properties is not None and properties.topic_alias is not None:
            topic = self._inbound.resolve(packet.topic, properties.topic_alias)
            if topic is None:
                return TOPIC_ALIAS_INVALID  # [MQTT-3.1.2-26]
            packet.topic = topic
        if packet.qos == 0:
            self._receiver.take(packet, None)
            return SUCCESS
        inbound = self._inbound
        if inbound.unanswered() >= self._receive_maximum and not inbound.is_open(packet.packet_id):
            return RECEIVE_MAXIMUM_EXCEEDED  # [MQTT-3.3.4-9]
        receipt = Receipt(packet.packet_id, packet.qos, self)
        if packet.qos == 2 and packet.packet_id in self._open:
            receipt.note(SUCCESS)
            receipt.position = self._open[packet.packet_id]  # the first PUBLISH may not be durable yet
        else:
            self._take(packet, receipt)
        inbound.receipts.append(receipt)
        return self.settle()

    def _take(self, packet: Publish, receipt: Receipt) -> None:
        receipt.note(self._receiver.take(packet, receipt))
        if packet.qos == 2 and not is_error(receipt.reason):  # after an error no PUBREL comes [MQTT-4.3.3-4]
            position = self._receiver.keep(packet.packet_id)
            self._open[packet.packet_id] = position
            receipt.position = max(receipt.position, position)

    def release(self, packet_id: int) -> int:
        """Handle PUBREL."""
        self._inbound.closed(packet_id)
        reason = SUCCESS if packet_id in self._open else PACKET_IDENTIFIER_NOT_FOUND
        position = self._receiver.forget(self._open.pop(packet_id, 0))
        self._held.append((position, encode_ack(PUBCOMP, packet_id, reason, self._line.protocol)))
        return self.settle()

    def settle(self) -> int:
        """Send the answers that are ready."""
        line = self._line
        receipts = self._inbound.receipts
        while receipts and receipts.first().ready(line.durable):
            receipt = receipts.popleft()
            receipt.end_span()
            if is_error(receipt.reason) and line.protocol != MQTT5:
                # MQTT 3 cannot refuse a message. Without an answer the server repeats it on the next connection.
                return receipt.reason
            self._answer(receipt)
        held = self._held
        while held and held.first()[0] <= line.durable:
            line.out.append(held.popleft()[1])
        return SUCCESS

    def _answer(self, receipt: Receipt) -> None:
        reason = receipt.reason
        if not is_error(reason):
            reason = SUCCESS  # only servers send "no matching subscribers", table 3-4
            if receipt.qos == 2:
                self._inbound.opened(receipt.packet_id)
        type = PUBACK if receipt.qos == 1 else PUBREC
        self._line.out.append(encode_ack(type, receipt.packet_id, reason, self._line.protocol))
