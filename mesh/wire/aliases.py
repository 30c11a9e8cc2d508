"""Topic aliases of raw PUBLISH packets, resolved before a packet is forwarded to a node that does not know the aliases.

It knows where a PUBLISH of MQTT 5.0 has its topic name and its properties (section 3.3); it must never know sessions or
sockets. What always holds: a packet without an alias, or with one that cannot be resolved, is unchanged, so that its
reader reports what is wrong; the bytes by which resolved packets grow are counted.
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.fields import BYTE, length_size, read_length, write_length
from mesh.wire.property_codec import (
    CONTENT_TYPE,
    CORRELATION_DATA,
    MESSAGE_EXPIRY,
    PAYLOAD_FORMAT,
    RESPONSE_TOPIC,
    SUBSCRIPTION_ID,
    TOPIC_ALIAS,
    USER,
)
from mesh.wire.reasons import ProtocolError

_NONE: Final = (-1, 0)


@final
class AliasTable:
    """The aliases of one connection, at most ``maximum``. ``size`` is the bytes of their topics; ``grown`` counts the
    bytes by which packets grew; the owner resets it."""

    __slots__ = ("_topics", "grown", "maximum", "size")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.grown = 0
        self.size = 0
        self._topics: dict[int, bytes] | None = None

    def plain(self, raw: bytes) -> bytes:
        """The PUBLISH with its topic name in place of its alias [MQTT-3.3.2-12]; stores a new alias."""
        size = len(raw)
        pos = 1
        while pos < size and raw[pos] >= 0x80:
            pos += 1
        pos += 1
        if pos + 2 > size:
            return raw
        topic_end = pos + 2 + (raw[pos] << 8 | raw[pos + 1])
        properties = topic_end + (2 if raw[0] & 0x06 else 0)
        if properties >= size or raw[properties] == 0:  # by far the most common: no properties
            return raw
        return self._resolve(raw, pos, topic_end, properties)

    def _resolve(self, raw: bytes, pos: int, topic_end: int, properties: int) -> bytes:
        try:
            length = read_length(raw, properties, len(raw))
        except ProtocolError:
            return raw
        start = properties + length_size(length)
        end = start + length
        if length < 0 or end > len(raw):
            return raw
        place, alias = _find(raw, start, end)
        if place < 0 or not 1 <= alias <= self.maximum:
            return raw
        topic = self._topic(raw[pos + 2 : topic_end], alias)
        if not topic:
            return raw
        rest = b"".join((
            len(topic).to_bytes(2, "big"), topic, raw[topic_end:properties], write_length(length - 3),
            raw[start:place], raw[place + 3 :],
        ))  # fmt: skip
        plain = BYTE[raw[0]] + write_length(len(rest)) + rest
        self.grown += max(0, len(plain) - len(raw))
        return plain

    def _topic(self, topic: bytes, alias: int) -> bytes:
        topics = self._topics
        if not topic:
            return b"" if topics is None else topics.get(alias, b"")
        if topics is None:
            topics = self._topics = {}
        before = topics.get(alias)
        if before != topic:
            topics[alias] = topic
            self.size += len(topic) - (0 if before is None else len(before))
        return topic


def _find(raw: bytes, pos: int, end: int) -> tuple[int, int]:
    """The position of the topic alias among the properties, and its value; ``(-1, 0)`` if there is none or the
    properties are malformed, such as two aliases."""
    found = _NONE
    while pos < end:
        following = _after(raw, pos, end)
        if following < 0 or following > end:
            return _NONE
        if raw[pos] == TOPIC_ALIAS:
            if found[0] >= 0:
                return _NONE
            found = (pos, raw[pos + 1] << 8 | raw[pos + 2])
        pos = following
    return found


def _after(raw: bytes, pos: int, end: int) -> int:
    """The position of the property after the one at ``pos``; -1 if a PUBLISH may not have this one."""
    identifier = raw[pos]
    pos += 1
    if identifier == TOPIC_ALIAS:
        return pos + 2
    if identifier == PAYLOAD_FORMAT:
        return pos + 1
    if identifier == MESSAGE_EXPIRY:
        return pos + 4
    if identifier in (CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA):
        return _after_text(raw, pos, end)
    if identifier == USER:
        value = _after_text(raw, pos, end)
        return -1 if value < 0 else _after_text(raw, value, end)
    if identifier == SUBSCRIPTION_ID:
        while pos < end and raw[pos] >= 0x80:
            pos += 1
        return pos + 1
    return -1


def _after_text(raw: bytes, pos: int, end: int) -> int:
    return -1 if pos + 2 > end else pos + 2 + (raw[pos] << 8 | raw[pos + 1])
