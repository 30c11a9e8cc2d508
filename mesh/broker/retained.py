"""Retained messages: the last message of each topic that was published with RETAIN [MQTT-3.3.1-5].

What always holds: a topic has at most one retained message; the message is in the journal, and memory holds only the
identifier of its journal item and its expiry time, if any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.persistence import Persistence
from mesh.broker.quotas import Quotas, Share, topic_weight
from mesh.broker.search import Search
from mesh.broker.sender import Sender
from mesh.broker.session import Key
from mesh.broker.settings import Settings
from mesh.broker.timers import Timer, Timers
from mesh.broker.work import Work
from mesh.session.message import NEVER, Message
from mesh.wire.tree import TopicNode, TopicTree

# Steps of the work, see ``work``.
_REMOVAL: Final = 4  # the end of a message
_READ: Final = 16  # a body that the journal reads from its file
_PORTION: Final = 512  # nodes at a time


@final
class Held:
    """What one retained message counts in a share: its bytes, and those of them that are in memory. ``sender``: the
    client that published it, if one did at this node."""

    __slots__ = ("memory", "sender", "share", "size")

    def __init__(self, share: Share, size: int, memory: int, sender: Sender | None) -> None:
        self.sender = sender
        self.share = share
        self.size = size
        self.memory = memory


@final
class Retained:
    """The values of the tree are journal items."""

    __slots__ = (
        "_expiring", "_held", "_persistence", "_quotas", "_senders", "_settings", "_store", "_sweeping", "_timers",
        "_tree", "_work",
    )  # fmt: skip

    def __init__(self, persistence: Persistence, settings: Settings, quotas: Quotas, work: Work) -> None:
        self._persistence = persistence
        self._quotas = quotas
        self._work = work
        self._held: dict[int, Held] = {}  # by item
        self._senders: dict[Key, Sender] = {}
        self._store = persistence.store
        self._settings = settings
        self._tree: TopicTree[int] = TopicTree()
        self._expiring: dict[int, Timer[str]] = {}  # items that expire
        self._timers: Timers[str] = Timers()  # topics whose messages expire
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._tree)

    def restore(self, topic: str, item: int, expires: float, sender: Sender | None = None) -> None:
        """Restore a message from the journal. Of two items for a topic the later one counts."""
        if sender is not None:
            sender = self._known(sender.key, sender.roles, sender.provider)
        self._put(topic, item, expires, None, self._store.size(item), sender)

    def sender(self, key: Key) -> Sender | None:
        """The client with the key of a session, if there are retained messages of it."""
        return self._senders.get(key)

    def senders(self) -> list[Sender]:
        """All clients that published retained messages at this node."""
        return list(self._senders.values())

    def _known(self, key: Key, roles: tuple[str, ...], provider: str) -> Sender:
        sender = self._senders.get(key)
        if sender is None:
            sender = self._senders[key] = Sender(key, roles)
        sender.roles = roles
        sender.provider = provider
        return sender

    def keep(
        self, message: Message, publisher: Share | None = None, key: Key | None = None, roles: tuple[str, ...] = (),
        provider: str = "",
    ) -> int:
        """Store, replace, or with an empty payload remove [MQTT-3.3.1-6]. Returns the journal position to wait for, or
        -1 if a limit of the node or of the topic's vehicle refuses it. ``publisher``: of a topic that has no vehicle.
        ``key``, ``roles`` and ``provider``: of the session of its publisher, unless it comes from another node.
        """
        topic = message.topic
        if not message.payload:
            self._remove(topic)
            return self._store.position
        if not self._has_room(topic, message.size(), publisher):
            return -1
        sender = None if key is None else self._known(key, roles, provider)
        item = self._persistence.keep_retained(message, sender)
        self._put(topic, item, message.expires, publisher, self._store.size(item), sender)
        return item

    def _has_room(self, topic: str, size: int, publisher: Share | None) -> bool:
        quotas = self._quotas
        old = self._tree.get(topic)
        share = quotas.holder_of(topic, publisher)
        if old is None and len(self._tree) >= self._settings.max_retained:
            quotas.retained_full(share, topic)
            return False
        before = 0 if old is None else self._held[old].size
        return quotas.may_retain(share, topic, topic_weight(topic) + size, before)

    def discard(self, topic: str) -> None:
        """Remove a message that has a successor which cannot be kept."""
        self._remove(topic)

    def _put(
        self, topic: str, item: int, expires: float, publisher: Share | None, size: int, sender: Sender | None
    ) -> None:
        memory = topic_weight(topic)
        held = self._held[item] = Held(self._quotas.holder_of(topic, publisher), memory + size, memory, sender)
        self._quotas.retained(held.share, held.size, memory)
        if sender is not None:
            sender.topics[item] = topic
        old = self._tree.set(topic, item)
        if old is not None:
            self._drop(old)
        if expires != NEVER:
            self._expiring[item] = self._timers.add(expires, topic)

    def _remove(self, topic: str) -> None:
        old = self._tree.delete(topic)
        if old is not None:
            self._drop(old)

    def _drop(self, item: int) -> None:
        timer = self._expiring.pop(item, None)
        if timer is not None:
            self._timers.remove(timer)
        held = self._held.pop(item)
        sender = held.sender
        if sender is not None:
            del sender.topics[item]
            if not sender.topics:
                del self._senders[sender.key]
        self._quotas.unretained(held.share, held.size, held.memory)
        self._persistence.drop(item)

    def sweep(self, now: float) -> None:
        """Begin to remove the messages that have expired. Until they are removed, ``has_expired`` tells [MQTT-3.3.2-5].
        """
        if not self._sweeping:
            self._sweeping = True
            self._work.start(self._sweep(now))

    def _sweep(self, now: float) -> Iterator[int]:
        try:
            while True:
                timer = self._timers.pop(now)
                if timer is None:
                    break
                self._remove(timer.value)
                yield _REMOVAL
        finally:
            self._sweeping = False

    def has_expired(self, item: int, now: float) -> bool:
        """Whether the message of a journal item has expired."""
        timer = self._expiring.get(item)
        return timer is not None and timer.when <= now

    def get(self, topic: str) -> Message | None:
        """The message retained for a topic."""
        item = self._tree.get(topic)
        return None if item is None else self._persistence.read(item)

    def forget_upstream(self, filter: str, follows: Callable[[str], bool]) -> None:
        """Begin to remove the messages that edges sent for ``filter``. Those of topics that ``follows`` is true for
        stay."""
        self._work.start(self._forget_upstream(filter, follows, self._store.position))

    def _forget_upstream(self, filter: str, follows: Callable[[str], bool], until: int) -> Iterator[int]:
        walk = self._tree.walk(filter)
        while not walk.done():
            yield walk.run(_PORTION)
            found = walk.found
            walk.found = []
            for node in found:
                item = node.value
                if item is not None and item <= until and not follows(node.topic):
                    if self._persistence.read(item).from_tier:
                        self._remove(node.topic)
                    yield _READ

    def node(self, topic: str) -> TopicNode[int] | None:
        """The node of a topic; its value is the journal item of the retained message, ``None`` if there is none."""
        return self._tree.node(topic)

    def items(self, filter: str) -> list[tuple[str, int]]:
        """The topics that ``filter`` matches, each with the journal item of its message; takes as long as it takes."""
        return self._tree.match(filter)

    def search(self, filter: str, after: int, until: int) -> Search:
        """Begin to look for the messages that ``filter`` matches and whose journal items are after ``after`` and up to
        ``until``."""
        return Search(self._tree, filter, after, until)
