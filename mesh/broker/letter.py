"""A dead letter: an acknowledged message that could not be kept where it belongs, and its form as an MQTT message.

It knows reasons, shares and the user properties that describe a letter; it must never know where letters are kept or
who reads them. What always holds: the original message can be made from the form: its topic follows ``$dead-letters/``,
and its user properties follow the four of the letter.
"""

from __future__ import annotations

from typing import Final, final

from mesh.session.message import NEVER, TRACE_NAMES, Message, forwarded_properties
from mesh.wire import reasons
from mesh.wire.encode import encode_properties
from mesh.wire.properties import Properties

TOPIC: Final = "$dead-letters"
PREFIX: Final = "$dead-letters/"
ALL: Final = "$dead-letters/#"
_LONGEST: Final = 65_535  # bytes of a topic name, section 1.5.4
_OWN: Final = ("reason", "time", "share", "expires")  # the user properties of a letter, in this order

# Why a message is in the dead letters.
OTHER: Final = 0
QUEUE_FULL: Final = 1
REFUSED: Final = 2
TOO_LARGE: Final = 3
EXPIRED: Final = 4
NO_OWNER: Final = 5
POISON: Final = 6  # the process has ended in its handling
NAMES: Final = ("other", "queue full", "refused", "packet too large", "expired", "owner unknown", "poison")

# What a letter counts in the limits besides its message: its record in the journal and its entry in memory.
COST: Final = 512


@final
class Letter:
    """``item`` is its journal item; ``body`` that of a body that it shares with other letters or deliveries, 0 if the
    message is in ``item``. ``time``: seconds since 1970; ``size``: bytes that it counts in the limits; ``lent``: a
    reader has it and has not acknowledged it."""

    __slots__ = ("body", "item", "lent", "reason", "share", "size", "time", "topic")

    def __init__(self, reason: int, time: float, share: str, topic: str, size: int) -> None:
        self.reason = reason
        self.time = time
        self.share = share
        self.topic = topic
        self.size = size
        self.item = 0
        self.body = 0
        self.lent = False


def size_of(message: Message, share: str) -> int:
    """The bytes that a letter counts in the limits."""
    return message.size() + len(share) + COST


def reason_of(code: int) -> int:
    """Why a message that was refused with a reason code is in the dead letters."""
    if code == reasons.QUOTA_EXCEEDED:
        return QUEUE_FULL
    if code == reasons.PACKET_TOO_LARGE:
        return TOO_LARGE
    return NO_OWNER if code == reasons.IMPLEMENTATION_SPECIFIC_ERROR else REFUSED


def letter_topic(topic: str) -> str:
    """The topic under which a letter is read; a filter's, for a filter."""
    return PREFIX + topic


def letter_message(letter: Letter, message: Message) -> Message:
    """The form of a letter for its readers. It does not expire; QoS 1 at most."""
    own = Properties()
    expires = "never" if message.expires == NEVER else f"{message.expires:.3f}"
    values = (NAMES[letter.reason], f"{letter.time:.3f}", letter.share, expires)
    own.user = [(_OWN[index], value) for index, value in enumerate(values)]
    topic = letter_topic(message.topic)
    if len(PREFIX) + len(message.topic_bytes) > _LONGEST:
        topic = TOPIC  # "$dead-letters/#" matches it, too
        own.user.append(("topic", message.topic))
    properties = encode_properties(own) + message.properties
    form = Message(topic, message.payload, min(message.qos, 1), False, properties, letter.time, NEVER, message.trace)
    form.fan_out = message.fan_out
    return form


def read_letter(form: Message, properties: Properties | None, now: float) -> tuple[Letter, Message]:
    """The letter and the original message of a form. ``properties`` are those of its PUBLISH. What is missing is
    replaced, so that no message is lost: the reason by "other", the time by ``now``."""
    user = [] if properties is None else properties.user
    described = len(user) >= len(_OWN) and all(user[index][0] == name for index, name in enumerate(_OWN))
    reason, time, share, expires = OTHER, now, "", NEVER
    rest = user
    if described:
        texts = [value for _, value in user[: len(_OWN)]]
        reason = NAMES.index(texts[0]) if texts[0] in NAMES else OTHER
        time = min(_number(texts[1], now), now)
        share = texts[2]
        expires = _number(texts[3], NEVER)
        rest = user[len(_OWN) :]
    topic = form.topic[len(PREFIX) :]
    if form.topic == TOPIC and rest and rest[0][0] == "topic":
        topic = rest[0][1]
        rest = rest[1:]
    kept = b""
    if properties is not None:
        copy = forwarded_properties(properties)
        # The context of a sampled message is not one of its properties.
        copy.user = rest if form.trace is None else [pair for pair in rest if pair[0] not in TRACE_NAMES]
        kept = encode_properties(copy)
    message = Message(topic, form.payload, form.qos, False, kept, time, expires, form.trace, True)
    return Letter(reason, time, share, topic, size_of(message, share)), message


def _number(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:
        return otherwise
