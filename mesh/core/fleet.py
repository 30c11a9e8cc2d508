"""Gives one edge the retained messages of fleet-wide topics that it does not have: those from before it was added.

The core's broker keeps the retained messages of its back ends; a message that is published while an edge is known
reaches the edge, directly or through the spool. So an edge needs the older ones once: when it accepts this core for the
first time, or has lost the session of this core, or when the fleet's filters have changed. It must never know packets
or connections. What always holds: the record that an edge has all of them is in the journal behind the spooled messages
themselves, so that a crash repeats some and leaves none out; a deletion is given too, because another core may give the
edge an older message; the topics are looked up in slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.grant import matches_any
from mesh.broker.versions import versioned
from mesh.core.kinds import FLEET_GIVEN
from mesh.session.message import NEVER, Message
from mesh.session.store import Item

PORTION: Final = 64  # messages that wait for the edge at a time
_SLICE: Final = 128  # steps of a search, see ``broker/work.py``


def edge_and_filters(item: Item) -> tuple[str, tuple[str, ...]]:
    """The edge that has the retained messages, and the filters of their topics."""
    edge, *filters = item.meta.decode().split("\0")
    return edge, tuple(filters)


@final
class FleetBackfill:
    """``filters`` are those of the fleet's topics. ``active``: messages are to be given now on this connection."""

    __slots__ = ("_at", "_begun", "_broker", "_edge", "_filters", "_item", "_topics", "active")

    def __init__(self, edge: str, broker: Broker, filters: tuple[str, ...]) -> None:
        self._edge = edge
        self._broker = broker
        self._filters = filters
        self._item = 0  # the record that the edge has all
        self._topics: list[str] = []
        self._at = 0
        self._begun = 0  # how often the topics were looked up
        self.active = False

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters of the fleet's topics."""
        return self._filters

    @property
    def complete(self) -> bool:
        """Whether the edge has been given all."""
        return not self._filters or self._item != 0

    def follow(self, filters: tuple[str, ...]) -> bool:
        """Other filters from now on. Returns whether ``begin`` is due: those that the edge has may be too few."""
        if filters == self._filters:
            return False
        self.stop()
        self._filters = filters
        self._forget_given()
        return True

    def discard(self) -> None:
        """The mesh does not have the edge now."""
        self.stop()
        self._forget_given()

    def _forget_given(self) -> None:
        if self._item:
            self._broker.store.drop(self._item)
            self._item = 0

    def restore(self, items: Iterable[Item]) -> None:
        """Restore from the journal."""
        for item in items:
            if self._item == 0 and edge_and_filters(item)[1] == self._filters:
                self._item = item.id
            else:
                self._broker.store.drop(item.id)

    def begin(self, session_present: bool, found: Callable[[], None]) -> None:
        """The edge has accepted this core. Without the session it may have lost all that this core gave it. ``found``
        is called when messages are to be given."""
        if not session_present:
            self._forget_given()
        if not self._filters or self._item:
            return
        self._begun += 1
        self._broker.work.start(self._look_up(self._begun, found))

    def _look_up(self, begun: int, found: Callable[[], None]) -> Iterator[int]:
        broker = self._broker
        topics: dict[str, None] = {}
        for filter in self._filters:
            search = broker.retained.search(filter, 0, broker.store.position)
            while not search.done:
                yield search.run(_SLICE)
            for node in search.found:
                topics[node.topic] = None
                yield 1
        for topic in broker.dispatcher.tombstones.topics():
            if topic not in topics and matches_any(self._filters, topic):
                topics[topic] = None
            yield 1
        if self._begun == begun:
            topics.pop("", None)  # of a message that was deleted meanwhile, which every edge is told
            self._topics = list(topics)
            self._at = 0
            self.active = True
            found()

    def stop(self) -> None:
        """The edge is disconnected: begin anew at the next connection."""
        self._begun += 1
        self._end()

    def _end(self) -> None:
        self._topics = []
        self.active = False

    def next(self) -> Message | None:
        """The message to give now; ``None`` after the last. ``given`` goes on."""
        while self._at < len(self._topics):
            message = self._message(self._topics[self._at])
            if message is not None:
                return message
            self._at += 1
        self._item = self._broker.store.append(FLEET_GIVEN, 0, "\0".join((self._edge, *self._filters)).encode(), b"")
        self._end()
        return None

    def given(self) -> None:
        """The message that ``next`` returned is in the spool."""
        self._at += 1

    def _message(self, topic: str) -> Message | None:
        """The present retained message or deletion of a topic; ``None`` if an edge sent it, or there is none by now."""
        broker = self._broker
        message = broker.retained.get(topic)
        if message is None:
            deleted = broker.dispatcher.tombstones.time(topic)
            return versioned(Message(topic, b"", 1, True, b"", deleted), deleted, True) if deleted else None
        expired = message.expires != NEVER and message.expires <= broker.clock()
        return None if message.from_tier or expired else versioned(message, message.received, True)
