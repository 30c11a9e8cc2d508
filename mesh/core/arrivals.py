"""The messages of vehicles that one edge sends to this core.

It knows the subscription identifiers that name the receivers of a message: never acknowledgements or connections. What
always holds: the deliveries to durable back ends are in the journal's buffer before a message counts as taken; a QoS 2
identifier stays in the journal until its PUBREL; a message in whose handling the processes before this one have ended
is put aside.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.notices import shortened
from mesh.broker.pressure import HIGH, signalled
from mesh.broker.subscriptions import SharedGroup
from mesh.core.kinds import TIER_INCOMING
from mesh.core.spans import Ends
from mesh.core.upstream import LETTERS, PLAIN, Upstream
from mesh.session.application import Receiver
from mesh.session.inbound import Receipt
from mesh.session.message import Message, message_of, without_trace
from mesh.session.store import Item
from mesh.transport.trail import Trail
from mesh.wire import reasons
from mesh.wire.packets import MQTT5, Publish
from mesh.wire.topics import is_shared

_INCOMING: Final = struct.Struct("!H")  # packet identifier; then the edge's name


def edge_of(item: Item) -> str:
    """The edge of a QoS 2 identifier in the journal."""
    return item.meta[_INCOMING.size :].decode()


def packet_id_in(item: Item) -> int:
    """The QoS 2 identifier in an item."""
    packet_id: int = _INCOMING.unpack_from(item.meta)[0]
    return packet_id


@final
class EdgeArrivals(Receiver):
    """``arrived`` counts the messages of the edge. ``signal`` gets its signals: a vehicle (empty: all are known), and
    whether its queue is full."""

    def __init__(
        self, edge: str, broker: Broker, upstream: Upstream, ends: Ends, signal: Callable[[str, bool], None],
        trail: Trail | None = None,
    ) -> None:
        self._trail = trail
        self._name = edge
        self._signal = signal
        self.arrived = 0
        self._edge = edge.encode()
        self._broker = broker
        self._upstream = upstream
        self._ends = ends

    def take(self, packet: Publish, receipt: Receipt | None) -> int:
        self.arrived += 1
        broker = self._broker
        trail = self._trail
        if trail is not None:
            trail.handle()
            if trail.refused and trail.refuses(packet, MQTT5):
                return self._set_aside(packet, receipt)
        message = message_of(packet, broker.clock(), True)
        if broker.tracer.considers(packet, True):
            self._trace(packet, message, receipt)
        return self._deliver(packet, message, receipt)

    def _set_aside(self, packet: Publish, receipt: Receipt | None) -> int:
        """Keep a message in whose handling this process would end in the dead letters: it takes no other way."""
        broker = self._broker
        broker.notices.warn(
            "poison", "edge %s: a message on %s is not handled: this process has ended twice in its handling",
            self._name, shortened(packet.topic),
        )  # fmt: skip
        if receipt is None:
            broker.counters.dropped_poison += 1
        else:
            broker.refusals.keep_poison(message_of(packet, broker.clock(), True), receipt, None)
        return reasons.SUCCESS

    def _trace(self, packet: Publish, message: Message, receipt: Receipt | None) -> None:
        span = self._broker.tracer.ingress(packet, "", self._ends.client, self._ends.peer, True)
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
        """Queue a message for the receivers that its subscription identifiers name."""
        broker = self._broker
        if packet.properties is None:  # no subscription has brought it
            vehicle = signalled(packet.topic)
            if vehicle is not None:
                self._signal(vehicle, packet.payload == HIGH)
            return reasons.NO_MATCHING_SUBSCRIBERS
        identifiers = packet.properties.subscription_ids
        plain = PLAIN in identifiers
        groups: list[SharedGroup] = []
        for identifier in identifiers:
            filter = self._upstream.filter_of(identifier)
            if filter is None:
                if identifier == LETTERS:
                    return broker.collect(message, packet.properties, receipt)
                continue
            if not is_shared(filter):
                if message.retain:
                    return broker.dispatcher.refresh_retained(message, receipt, filter)
                plain = True  # it was published between the two subscriptions to one filter (``Following``)
            else:
                group = broker.subscriptions.group(filter)
                if group is not None:
                    groups.append(group)
        return broker.dispatcher.deliver_upstream(message, receipt, plain, groups)

    def keep(self, packet_id: int) -> int:
        return self._broker.store.append(TIER_INCOMING, 0, _INCOMING.pack(packet_id) + self._edge, b"")

    def forget(self, position: int) -> int:
        if position:
            self._broker.store.drop(position)
        return self._broker.store.position
