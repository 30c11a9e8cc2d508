"""The order of fleet-wide retained messages that come to an edge from several cores.

Each core keeps the retained messages that its own back ends published, and gives them to an edge that does not have
them. Another core may have published a later message on the same topic, or have deleted it. So a core names the time
when the message was published (by the clock of that core), in a user property that exists on tier links only, and an
edge keeps the time with the message, or with the topic's *tombstone* if the message was deleted. It must never know who
sends a message. What always holds: a message that is given again never replaces a later one, and never brings back a
topic that was deleted later; a message that is published now replaces every other, whatever the clocks say.
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.persistence import Persistence
from mesh.session.message import Message
from mesh.wire.encode import encode_properties
from mesh.wire.packets import Publish
from mesh.wire.properties import Properties

VERSION: Final = "mesh-retained"  # the user property
_PUBLISHED: Final = "+"  # the first character of its value, before the time
_GIVEN: Final = "="
TOMBSTONES: Final = 10_000  # about 250 bytes each; a core that was away for longer may bring back older deletions


@final
class Version:
    """``time``: when the message was published, in seconds since 1970. ``given``: it is not new, the edge may lack it.
    """

    __slots__ = ("given", "time")

    def __init__(self, time: float, given: bool) -> None:
        self.time = time
        self.given = given


def versioned(message: Message, time: float, given: bool) -> Message:
    """A copy of a retained message with its version, for edges. One that is given has QoS 1 at least, so that the edge
    acknowledges it."""
    own = Properties()
    own.user = [(VERSION, f"{_GIVEN if given else _PUBLISHED}{time!r}")]
    copy = Message(
        message.topic, message.payload, max(message.qos, int(given)), True, message.properties + encode_properties(own),
        message.received, message.expires, message.trace, message.from_tier,
    )  # fmt: skip
    copy.fan_out = message.fan_out
    return copy


def take_version(packet: Publish) -> Version | None:
    """Take the version out of a core's PUBLISH; ``None`` if it has none."""
    properties = packet.properties
    if properties is None:
        return None
    found: Version | None = None
    kept: list[tuple[str, str]] = []
    for name, value in properties.user:
        if name == VERSION:
            found = _parsed(value)
        else:
            kept.append((name, value))
    if found is not None:
        properties.user = kept
    return found


def _parsed(value: str) -> Version | None:
    try:
        return Version(float(value[1:]), value[0] == _GIVEN) if value[:1] in (_GIVEN, _PUBLISHED) else None
    except ValueError:
        return None


@final
class Tombstones:
    """The fleet-wide topics whose retained message was deleted, with the time. At most ``limit``, the oldest go."""

    __slots__ = ("_items", "_limit", "_persistence", "_times")

    def __init__(self, persistence: Persistence, limit: int = TOMBSTONES) -> None:
        self._persistence = persistence
        self._limit = limit
        self._times: dict[str, float] = {}
        self._items: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._times)

    def topics(self) -> list[str]:
        """All topics, the one that was deleted first at the front."""
        return list(self._times)

    def time(self, topic: str) -> float:
        """When the message of a topic was deleted; 0.0 if it was not."""
        return self._times.get(topic, 0.0)

    def restore(self, topic: str, time: float, item: int) -> None:
        """Restore one from the journal; of two for a topic the later counts."""
        self.remove(topic)
        self._times[topic] = time
        self._items[topic] = item

    def add(self, topic: str, time: float) -> None:
        """The message of a topic was deleted."""
        self.remove(topic)
        self._times[topic] = time
        self._items[topic] = self._persistence.keep_tombstone(topic, time)
        if len(self._times) > self._limit:
            self.remove(next(iter(self._times)))

    def remove(self, topic: str) -> None:
        """The topic has a retained message again."""
        if self._times.pop(topic, 0.0):
            self._persistence.drop(self._items.pop(topic))
