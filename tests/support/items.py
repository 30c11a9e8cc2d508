"""The journal items that a broker needs, and what is recovered from them."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.broker.broker import Broker
from mesh.broker.itemreader import ItemReader, RecoveredState
from mesh.broker.persistence import Persistence
from mesh.session.outbound import Delivery
from mesh.session.store import Item


def recovered(persistence: Persistence, items: Iterable[Item], window: int) -> RecoveredState:
    """The state that a broker recovers from ``items``."""
    reader = ItemReader(persistence, window)
    for _ in reader.read(items):
        pass
    return reader.found


def owned_items(broker: Broker) -> set[int]:
    """The journal items to which the state in memory refers."""
    found: set[int] = set()
    for session in [*broker.sessions.all(), *broker.sessions.ending]:
        found.add(session.item)
        if session.ledger is not None:
            found.add(session.ledger.item)
        found.update(session.incoming.values())
        found.update(interest.item for interest in session.interests.values())
        for delivery in [*session.outbound.waiting, *session.outbound.in_flight.values()]:
            _add(found, delivery)
    for letter in broker.letters.queue.after(0, len(broker.letters)):
        found.add(letter.item)
        found.add(letter.body)
    found.update(item for _, item in broker.retained._tree.match("#"))
    found.update(broker.dispatcher.tombstones._items.values())
    for fan_out in broker.dispatcher.fan_outs._due:
        found.update((fan_out.item, fan_out.body))
    found.discard(0)
    return found


def _add(found: set[int], delivery: Delivery) -> None:
    found.add(delivery.item)
    if delivery.item:  # else the body is a dead letter, which may be dropped though a reader has it
        found.add(delivery.body)
