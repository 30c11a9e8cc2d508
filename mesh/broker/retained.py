"""Retained messages: the last message of each topic that was published with RETAIN [MQTT-3.3.1-5].

What always holds: a topic has at most one retained message; the message is in the journal, and memory holds only the
identifier of its journal item and its expiry time, if any.
"""

from __future__ import annotations

import heapq
from typing import Final, final

from mesh.broker.persistence import Persistence
from mesh.broker.quotas import Quotas, Share, topic_weight
from mesh.session.message import NEVER, Message
from mesh.wire.topics import matches
from mesh.wire.tree import TopicTree

_SLACK: Final = 1024  # timers of messages that have been replaced


@final
class Held:
    """What one retained message counts in a share: its bytes, and those of them that are in memory."""

    __slots__ = ("memory", "share", "size")

    def __init__(self, share: Share, size: int, memory: int) -> None:
        self.share = share
        self.size = size
        self.memory = memory


@final
class Retained:
    """``limit`` is the most topics. The values of the tree are journal items."""

    __slots__ = ("_expiring", "_held", "_limit", "_persistence", "_quotas", "_store", "_timers", "_tree")

    def __init__(self, persistence: Persistence, limit: int, quotas: Quotas) -> None:
        self._persistence = persistence
        self._quotas = quotas
        self._held: dict[int, Held] = {}  # by item
        self._store = persistence.store
        self._limit = limit
        self._tree: TopicTree[int] = TopicTree()
        self._expiring: dict[int, float] = {}  # items that expire
        self._timers: list[tuple[float, int, str]] = []  # (when, item, topic), a heap

    def __len__(self) -> int:
        return len(self._tree)

    def restore(self, topic: str, item: int, expires: float) -> None:
        """Restore a message from the journal. Of two items for a topic the later one counts."""
        self._put(topic, item, expires, None, self._store.size(item))

    def keep(self, message: Message, publisher: Share | None = None) -> int:
        """Store, replace, or with an empty payload remove [MQTT-3.3.1-6]. Returns the journal position to wait for, or
        -1 if a limit of the node or of the topic's vehicle refuses it. ``publisher``: of a topic that has no vehicle.
        """
        topic = message.topic
        if not message.payload:
            self._remove(topic)
            return self._store.position
        if not self._has_room(topic, message.size(), publisher):
            return -1
        item = self._persistence.keep_retained(message)
        self._put(topic, item, message.expires, publisher, self._store.size(item))
        return item

    def _has_room(self, topic: str, size: int, publisher: Share | None) -> bool:
        quotas = self._quotas
        old = self._tree.get(topic)
        share = quotas.holder_of(topic, publisher)
        if old is None and len(self._tree) >= self._limit:
            quotas.retained_full(share, topic)
            return False
        before = 0 if old is None else self._held[old].size
        return quotas.may_retain(share, topic, topic_weight(topic) + size, before)

    def discard(self, topic: str) -> None:
        """Remove a message that has a successor which cannot be kept."""
        self._remove(topic)

    def _put(self, topic: str, item: int, expires: float, publisher: Share | None, size: int) -> None:
        memory = topic_weight(topic)
        held = self._held[item] = Held(self._quotas.holder_of(topic, publisher), memory + size, memory)
        self._quotas.retained(held.share, held.size, memory)
        old = self._tree.set(topic, item)
        if old is not None:
            self._drop(old)
        if expires != NEVER:
            self._expiring[item] = expires
            heapq.heappush(self._timers, (expires, item, topic))
            if len(self._timers) > 2 * len(self._expiring) + _SLACK:
                self._timers = [timer for timer in self._timers if timer[1] in self._expiring]
                heapq.heapify(self._timers)

    def _remove(self, topic: str) -> None:
        old = self._tree.delete(topic)
        if old is not None:
            self._drop(old)

    def _drop(self, item: int) -> None:
        self._expiring.pop(item, None)
        held = self._held.pop(item)
        self._quotas.unretained(held.share, held.size, held.memory)
        self._persistence.drop(item)

    def sweep(self, now: float) -> None:
        """Remove the messages that have expired [MQTT-3.3.2-5]."""
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, item, topic = heapq.heappop(timers)
            if item in self._expiring:
                self._remove(topic)

    def get(self, topic: str) -> Message | None:
        """The message retained for a topic."""
        item = self._tree.get(topic)
        return None if item is None else self._persistence.read(item)

    def forget_upstream(self, filter: str, others: list[str]) -> None:
        """Remove the messages that edges sent for ``filter``, unless one of ``others`` matches them too."""
        for topic, item in self._tree.match(filter):
            if self._persistence.read(item).from_tier and not any(matches(other, topic) for other in others):
                self._remove(topic)

    def item(self, topic: str) -> int | None:
        """The journal item of the message retained for a topic."""
        return self._tree.get(topic)

    def items(self, filter: str) -> list[tuple[str, int]]:
        """The topics that ``filter`` matches, each with the journal item of its message."""
        return self._tree.match(filter)
