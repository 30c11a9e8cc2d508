"""What an edge sends to this core: vehicles' messages, each acknowledged when those it is for have it.

It knows the receiving side of one tier link. What always holds: acknowledgements leave in the order of the publishes,
after the journal has what durable back ends are to get; a QoS 2 identifier is forgotten on disk before PUBCOMP says so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.subscriptions import SharedGroup
from mesh.core.spool import TIER_INCOMING
from mesh.core.upstream import PLAIN, Upstream
from mesh.session.fifo import Fifo
from mesh.session.inbound import Publisher, Receipt
from mesh.session.message import Message, message_of, without_trace
from mesh.session.store import Item
from mesh.wire import reasons
from mesh.wire.encode import encode_ack
from mesh.wire.packets import MQTT5, PUBACK, PUBCOMP, PUBREC, Publish
from mesh.wire.topics import is_shared

_INCOMING: Final = struct.Struct("!H")  # packet identifier; then the edge's name


def edge_of(item: Item) -> str:
    """The edge that an identifier kept in the journal belongs to."""
    return item.meta[_INCOMING.size :].decode()


@final
class Intake(Publisher):
    """``put`` sends a packet to the edge at the end of the turn."""

    def __init__(self, edge: str, broker: Broker, upstream: Upstream, put: Callable[[bytes], None]) -> None:
        self.arrived = 0
        self._edge = edge.encode()
        self._broker = broker
        self._upstream = upstream
        self._put = put
        self._receipts: Fifo[Receipt] = Fifo()
        self._held: Fifo[tuple[int, bytes]] = Fifo()  # PUBCOMPs that wait for the journal
        self._incoming: dict[int, int] = {}  # open QoS 2 identifiers of the edge -> journal items

    def restore(self, item: Item) -> None:
        """Take back an identifier that the journal kept."""
        self._incoming[_INCOMING.unpack_from(item.meta)[0]] = item.id

    def forget(self) -> None:
        """The edge has no session for this core: its identifiers mean nothing any more."""
        for item in self._incoming.values():
            self._broker.store.drop(item)
        self._incoming.clear()

    def lost(self) -> None:
        """The connection is gone: the edge sends again what was not acknowledged."""
        self._receipts.clear()
        self._held.clear()

    def publish(self, packet: Publish) -> None:
        """A vehicle's message."""
        self.arrived += 1
        receipt = Receipt(packet.packet_id, packet.qos, self) if packet.qos else None
        if packet.qos == 2 and packet.packet_id in self._incoming:
            if receipt is not None:
                receipt.reason = reasons.SUCCESS
        else:
            self._take(packet, receipt)
        if receipt is not None:
            self._receipts.append(receipt)
            self.settle()

    def _take(self, packet: Publish, receipt: Receipt | None) -> None:
        broker = self._broker
        message = message_of(packet, broker.clock(), True)
        if broker.tracer.considers(packet, True):
            self._trace(packet, message, receipt)
        reason = self._deliver(packet, message, receipt)
        if receipt is None:
            return
        receipt.note(reason)
        if packet.qos == 2 and not reasons.is_error(reason):  # an error ends the exchange [MQTT-4.3.3-4]
            meta = _INCOMING.pack(packet.packet_id) + self._edge
            item = broker.store.append(TIER_INCOMING, 0, meta, b"")
            self._incoming[packet.packet_id] = item
            receipt.position = max(receipt.position, item)

    def _trace(self, packet: Publish, message: Message, receipt: Receipt | None) -> None:
        span = self._broker.tracer.ingress(packet, self._broker.vehicle_of(message.topic), True)
        if span is None:
            return
        message.trace = span.context
        if packet.properties is not None:
            message.properties = without_trace(packet.properties)
        if receipt is None:
            span.end()
        else:
            receipt.span = span

    def _deliver(self, packet: Publish, message: Message, receipt: Receipt | None) -> int:
        """Who it is for, its identifiers tell."""
        broker = self._broker
        identifiers = [] if packet.properties is None else packet.properties.subscription_ids
        plain = PLAIN in identifiers
        groups: list[SharedGroup] = []
        for identifier in identifiers:
            filter = self._upstream.filter_of(identifier)
            if filter is None:
                continue
            if not is_shared(filter):
                if message.retain:
                    return broker.dispatcher.refresh_retained(message, receipt, filter)
                plain = True  # published between the two subscriptions that make one
            else:
                group = broker.subscriptions.group(filter)
                if group is not None:
                    groups.append(group)
        return broker.dispatcher.deliver_upstream(message, receipt, plain, groups)

    def release(self, packet_id: int) -> None:
        """PUBREL."""
        item = self._incoming.pop(packet_id, None)
        reason = reasons.SUCCESS
        if item is None:
            reason = reasons.PACKET_IDENTIFIER_NOT_FOUND
        else:
            self._broker.store.drop(item)
        self._held.append((self._broker.store.position, encode_ack(PUBCOMP, packet_id, reason, MQTT5)))
        self.settle()

    def waits(self) -> bool:
        """Whether an answer waits for the journal."""
        return bool(self._receipts or self._held)

    def settle(self) -> None:
        """Send the answers that may leave now."""
        durable = self._broker.outbox.durable
        receipts = self._receipts
        while receipts and receipts.first().ready(durable):
            receipt = receipts.popleft()
            receipt.end_span()
            type = PUBACK if receipt.qos == 1 else PUBREC
            self._put(encode_ack(type, receipt.packet_id, receipt.reason, MQTT5))
        while self._held and self._held.first()[0] <= durable:
            self._put(self._held.popleft()[1])
