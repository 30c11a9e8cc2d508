"""The spool: messages on the core's disk for a disconnected edge.

It knows the journal items of one edge's spool and their limits: never connections. What always holds: a spooled
delivery is in the journal until the edge has acknowledged it; recovery reads no body.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from mesh.core.kinds import SPOOL_RELEASED, SPOOLED
from mesh.session.message import Message, pack, unpack
from mesh.session.outbound import RELEASED, Delivery, Outbound
from mesh.session.record import WHOLE
from mesh.session.store import Item, Store


@final
class Spool:
    """The spool of one edge. ``max_messages`` and ``max_bytes`` bound it; the publisher of a message to a full spool
    gets a reason code.
    """

    __slots__ = ("_edge", "_store", "bytes", "edge", "max_bytes", "max_messages", "messages")

    def __init__(self, store: Store, edge: str, max_messages: int, max_bytes: int) -> None:
        self._store = store
        self.edge = edge
        self._edge = edge.encode()
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.messages = 0
        self.bytes = 0

    def full(self, size: int) -> bool:
        """Whether there is no room for a message of ``size`` bytes."""
        return self.messages >= self.max_messages or self.bytes + size > self.max_bytes

    def keep(self, delivery: Delivery, message: Message, place: int) -> None:
        """Write a delivery. ``place`` is the number that it had when it came, which recovery sorts by: a delivery of
        QoS 1 that was held back is sent with another one."""
        number = delivery.number
        delivery.number = place
        delivery.item = self._store.append(SPOOLED, 0, self._meta(delivery), pack(message))
        delivery.number = number
        delivery.position = delivery.item
        self._count(delivery)

    def release(self, delivery: Delivery) -> None:
        """Record a PUBREC: from now on only PUBREL is sent."""
        old = delivery.item
        delivery.state = RELEASED
        delivery.item = self._store.append(SPOOL_RELEASED, 0, self._meta(delivery), b"")
        delivery.position = delivery.item
        self._store.drop(old)

    def forget(self, delivery: Delivery) -> None:
        """The edge has acknowledged the delivery: drop it."""
        if delivery.item:
            self._store.drop(delivery.item)
            delivery.item = 0
            self.messages -= 1
            self.bytes -= delivery.size

    def load(self, delivery: Delivery) -> Message:
        """The message of a delivery."""
        return delivery.message if delivery.message is not None else unpack(self._store.read(delivery.item))

    def restore(self, items: Iterable[Item], outbound: Outbound) -> None:
        """Restore this edge's items, in the order of their numbers: a message that was spooled late keeps its place.
        """
        found = [_delivery(item) for item in items]
        found.sort(key=_number)
        for delivery in found:
            delivery.dup = True  # it may have been sent before; an edge accepts a repeat
            outbound.restore(delivery)
            self._count(delivery)

    def _count(self, delivery: Delivery) -> None:
        self.messages += 1
        self.bytes += delivery.size

    def _meta(self, delivery: Delivery) -> bytes:
        """The delivery's record, with the length of the edge's name; then the name."""
        return WHOLE.pack(delivery, len(self._edge)) + self._edge


def edge_of(item: Item) -> str:
    """The edge that a spooled item is for."""
    return item.meta[WHOLE.size :].decode()


def _delivery(item: Item) -> Delivery:
    delivery, _ = WHOLE.unpack(item)
    if item.kind == SPOOL_RELEASED:
        delivery.state = RELEASED
    return delivery


def _number(delivery: Delivery) -> int:
    return delivery.number
