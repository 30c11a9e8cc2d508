"""What the server of a client's session publishes: taken, and answered in order.

It knows receipts, QoS 2 identifiers and topic aliases: never what a message means, nor how an identifier is kept. It is
used while the session is up. What always holds:

* publishes are answered in the order in which they came [MQTT-4.6.0-2], each when its receipt is ready;
* a QoS 2 message is taken once [MQTT-4.3.3-10]: its identifier is durable before PUBREC, and forgotten on disk before
  PUBCOMP, because the server may use it again then.

Where the server breaks the protocol, or cannot be answered, a call returns the reason code to end the connection with;
else SUCCESS.
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

_UNLIMITED: Final = 0xFFFF  # the receive maximum where none is given, section 3.1.2.11.3


@final
class Incoming(Publisher):
    """The receiving side of one session with a server."""

    __slots__ = ("_held", "_inbound", "_line", "_open", "_receive_maximum", "_receiver")

    def __init__(self, receiver: Receiver, line: Line) -> None:
        self._receiver = receiver
        self._line = line
        self._inbound = Inbound(0)
        self._receive_maximum = _UNLIMITED
        self._held: Fifo[tuple[int, bytes]] = Fifo()  # PUBCOMPs, with the positions that they wait for
        self._open: dict[int, int] = {}  # QoS 2 identifiers from the taking until PUBREL, with their positions

    def restore(self, packet_id: int, position: int) -> None:
        """Take back a QoS 2 identifier that ``Receiver.keep`` had kept at ``position``."""
        self._open[packet_id] = position

    def opened(self, connect: Connect) -> None:
        """A connection begins, with what this CONNECT says of it."""
        asked = connect.properties if connect.protocol == MQTT5 else None
        maximum = None if asked is None else asked.receive_maximum
        self._receive_maximum = _UNLIMITED if maximum is None else maximum
        self._inbound = Inbound(0 if asked is None else asked.topic_alias_maximum or 0)

    def begin_anew(self) -> None:
        """The server has no session: its identifiers mean nothing any more."""
        for position in self._open.values():
            self._receiver.forget(position)
        self._open.clear()

    def lost(self) -> None:
        """The connection is gone: the server sends again what was not acknowledged [MQTT-4.4.0-1]."""
        for receipt in self._inbound.receipts:
            receipt.close()
        self._inbound.receipts.clear()
        self._held.clear()

    def waits(self) -> bool:
        """Whether an answer waits."""
        return bool(self._inbound.receipts or self._held)

    def publish(self, packet: Publish) -> int:
        """PUBLISH."""
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
            receipt.position = self._open[packet.packet_id]  # the first one may not be durable yet
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
        """PUBREL."""
        self._inbound.closed(packet_id)
        reason = SUCCESS if packet_id in self._open else PACKET_IDENTIFIER_NOT_FOUND
        position = self._receiver.forget(self._open.pop(packet_id, 0))
        self._held.append((position, encode_ack(PUBCOMP, packet_id, reason, self._line.protocol)))
        return self.settle()

    def settle(self) -> int:
        """Send the answers that may leave now."""
        line = self._line
        receipts = self._inbound.receipts
        while receipts and receipts.first().ready(line.durable):
            receipt = receipts.popleft()
            receipt.end_span()
            if is_error(receipt.reason) and line.protocol != MQTT5:
                # MQTT 3 cannot refuse a message. Without an answer it comes again on the next connection.
                return receipt.reason
            self._answer(receipt)
        held = self._held
        while held and held.first()[0] <= line.durable:
            line.out.append(held.popleft()[1])
        return SUCCESS

    def _answer(self, receipt: Receipt) -> None:
        reason = receipt.reason
        if not is_error(reason):
            reason = SUCCESS  # "no matching subscribers" is for servers to say, table 3-4
            if receipt.qos == 2:
                self._inbound.opened(receipt.packet_id)
        type = PUBACK if receipt.qos == 1 else PUBREC
        self._line.out.append(encode_ack(type, receipt.packet_id, reason, self._line.protocol))
