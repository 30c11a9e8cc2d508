"""Retained messages: the last message of a topic that asked to be kept [MQTT-3.3.1-5].

What always holds: at most one message a topic; every one is in the journal, and only its place is in memory.
"""

from __future__ import annotations

from typing import final

from mesh.broker.keeper import Keeper
from mesh.session.message import NEVER, Message
from mesh.wire.topics import matches
from mesh.wire.tree import TopicTree


@final
class Retained:
    """``limit`` bounds the topics. Values of the tree are journal items."""

    __slots__ = ("_keeper", "_limit", "_tree")

    def __init__(self, keeper: Keeper, limit: int) -> None:
        self._keeper = keeper
        self._limit = limit
        self._tree: TopicTree[int] = TopicTree()

    def __len__(self) -> int:
        return len(self._tree)

    def restore(self, topic: str, item: int) -> None:
        """Put back what the journal kept; of two items for a topic the later one counts."""
        old = self._tree.set(topic, item)
        if old is not None:
            self._keeper.drop(old)

    def keep(self, message: Message) -> int:
        """Store, replace, or with an empty payload remove [MQTT-3.3.1-6]. Returns the journal position to wait for, or
        -1 if full.
        """
        if not message.payload:
            old = self._tree.delete(message.topic)
            if old is not None:
                self._keeper.drop(old)
            return 0
        if len(self._tree) >= self._limit and self._tree.get(message.topic) is None:
            return -1
        item = self._keeper.keep_retained(message)
        old = self._tree.set(message.topic, item)
        if old is not None:
            self._keeper.drop(old)
        return item

    def get(self, topic: str) -> Message | None:
        """The message retained for a topic."""
        item = self._tree.get(topic)
        return None if item is None else self._keeper.read(item)

    def forget_upstream(self, filter: str, others: list[str]) -> None:
        """Remove what edges sent for ``filter``, unless one of the ``others`` covers it too."""
        for topic, item in self._tree.match(filter):
            if self._keeper.read(item).from_tier and not any(matches(other, topic) for other in others):
                self._tree.delete(topic)
                self._keeper.drop(item)

    def matching(self, filter: str, now: float) -> list[Message]:
        """The retained messages that ``filter`` matches; those that have expired are removed."""
        found: list[Message] = []
        for topic, item in self._tree.match(filter):
            message = self._keeper.read(item)
            if message.expires != NEVER and message.expires <= now:
                self._tree.delete(topic)
                self._keeper.drop(item)
            else:
                found.append(message)
        return found
