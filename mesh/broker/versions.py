"""When the retained messages that an edge has from cores were published, and by that, which one counts.

A core names the time when a retained message was published (by the clock of that core), in a user property that exists
on tier links only, and an edge keeps the time with the message. It serves two ends:

*Order.* Each core keeps the retained messages that its own back ends published on fleet-wide topics, and gives them to
an edge that does not have them. Another core may have published a later message on the same topic, or have deleted it:
then the edge keeps the time of the deletion with the topic's *tombstone*. A message that is given again never replaces
a later one, and never brings back a topic that was deleted later; a message that is published now replaces every other,
whatever the clocks say.

*Identity.* A core withdraws a message whose sender may not publish it now. It names the topic and the time, and the
edge deletes that message and no other: not one that a vehicle, or a back end of another core, has published meanwhile,
even with the same content.

It must never know who sends a message.
"""

from __future__ import annotations

import math
from typing import Final, final

from mesh.broker.persistence import Persistence
from mesh.session.message import Message
from mesh.wire.encode import encode_properties
from mesh.wire.packets import Publish
from mesh.wire.properties import Properties

VERSION: Final = "mesh-retained"  # the user property
# The first character of its value, before the time.
_PUBLISHED: Final = "+"  # on a topic of the fleet
_GIVEN: Final = "="
_WITHDRAWN: Final = "-"
_OF_VEHICLE: Final = "."  # published on a topic of one vehicle
_WITHDRAWN_OF_VEHICLE: Final = "!"
_SIGNS: Final = _PUBLISHED + _GIVEN + _WITHDRAWN + _OF_VEHICLE + _WITHDRAWN_OF_VEHICLE
TOMBSTONES: Final = 10_000  # about 250 bytes each; a core that was away for longer may bring back older deletions


@final
class Version:
    """``time``: when the message was published, in seconds since 1970. ``given``: it is not new, the edge may lack it.
    ``withdrawn``: the edge is to delete it. ``fleet``: its topic is not that of one vehicle."""

    __slots__ = ("fleet", "given", "time", "withdrawn")

    def __init__(self, time: float, sign: str) -> None:
        self.time = time
        self.given = sign == _GIVEN
        self.withdrawn = sign in (_WITHDRAWN, _WITHDRAWN_OF_VEHICLE)
        self.fleet = sign in (_PUBLISHED, _GIVEN, _WITHDRAWN)


def _property(sign: str, time: float) -> bytes:
    own = Properties()
    own.user = [(VERSION, f"{sign}{time!r}")]
    return encode_properties(own)


_NAME: Final = _property(_WITHDRAWN, 0.0).removesuffix(b"\0\x04-0.0")  # the property up to its value


def _with_version(message: Message, sign: str, time: float, qos: int) -> Message:
    copy = Message(
        message.topic, message.payload, qos, True, message.properties + _property(sign, time),
        message.received, message.expires, message.trace, message.from_tier,
    )  # fmt: skip
    copy.fan_out = message.fan_out
    return copy


def versioned(message: Message, time: float, given: bool) -> Message:
    """A copy of a retained message of the fleet with its version, for edges. One that is given has QoS 1 at least, so
    that the edge acknowledges it."""
    return _with_version(message, _GIVEN if given else _PUBLISHED, time, max(message.qos, int(given)))


def dated(message: Message) -> Message:
    """A copy of a retained message of one vehicle with its version, for the edge of the vehicle."""
    return _with_version(message, _OF_VEHICLE, message.received, message.qos)


def withdrawal(topic: str, time: float, fleet: bool, now: float) -> Message:
    """Tells an edge to delete the retained message of ``topic`` that was published at ``time``."""
    sign = _WITHDRAWN if fleet else _WITHDRAWN_OF_VEHICLE
    return Message(topic, b"", 1, True, _property(sign, time), now)


def is_withdrawal(message: Message) -> bool:
    """Whether ``withdrawal`` has made a message that waits for an edge."""
    properties, sign = message.properties, len(_NAME) + 2  # behind the length of the value
    return (
        message.retain and not message.payload and properties.startswith(_NAME)
        and properties[sign : sign + 1] in (_WITHDRAWN.encode(), _WITHDRAWN_OF_VEHICLE.encode())
    )  # fmt: skip


def take_version(packet: Publish) -> Version | None:
    """Take the version out of a core's PUBLISH; ``None`` if it has none. The core's own is the last one."""
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
        return Version(float(value[1:]), value[0]) if value and value[0] in _SIGNS else None
    except ValueError:
        return None


def just_after(time: float) -> float:
    """The time of a tombstone for a message that was withdrawn: later than the message, and earlier than any other."""
    return math.nextafter(time, math.inf)


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
