"""An application message on its way through the mesh.

It knows what was published and what must travel with it; it must never know its receivers, or where it waits. A message
is created once, on arrival, and is shared by all its deliveries. What always holds: ``properties`` are the encoded
PUBLISH properties that are forwarded unaltered [MQTT-3.3.2-17] [MQTT-3.3.2-20]; message expiry, topic alias,
subscription identifiers and the context of a sampled trace are not among them, because each delivery has its own.
"""

from __future__ import annotations

import math
import struct
from typing import Final, final

from mesh.wire.encode import encode_properties, encode_publish
from mesh.wire.packets import MQTT5, Publish
from mesh.wire.properties import Properties
from mesh.wire.tracecontext import TraceContext

NEVER: Final = 0.0
_ROUGH: Final = 0.001  # seconds; a time is less exact than an interval, and an interval must not grow on the way

_HEAD: Final = struct.Struct("!BddHHI")  # flags, expires, received, and the lengths of trace, topic and properties
_QOS: Final = 0x03
_RETAIN: Final = 0x04
_FROM_TIER: Final = 0x08
_FAN_OUT: Final = 0x10
TRACE_NAMES: Final = ("traceparent", "tracestate")


@final
class Message:
    """``received`` and ``expires`` are seconds since 1970; ``expires`` is ``NEVER`` if it does not expire."""

    __slots__ = (
        "body", "expires", "fan_out", "from_tier", "packet", "payload", "properties", "qos", "received", "retain",
        "topic", "topic_bytes", "trace",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: bytes,
        received: float,
        expires: float = NEVER,
        trace: TraceContext | None = None,
        from_tier: bool = False,
    ) -> None:
        self.topic = topic
        self.topic_bytes = topic.encode()
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
        self.received = received
        self.expires = expires
        self.trace = trace
        self.from_tier = from_tier
        self.fan_out = False  # it has several receivers: the span of each delivery has a link to ``trace``
        self.body = 0  # journal item of the body that several sessions share; 0: none
        self.packet = b""  # cache of ``plain_packet``

    def plain_packet(self) -> bytes:
        """The PUBLISH with QoS 0, without retain, for MQTT 3: the same for all receivers, so encoded once."""
        if not self.packet:
            self.packet = encode_publish(self.topic_bytes, self.payload, 0, False, False, 0, b"", 4)
        return self.packet

    def size(self) -> int:
        """The bytes that the message counts in a limit."""
        return len(self.topic_bytes) + len(self.payload) + len(self.properties)


def message_of(publish: Publish, now: float, from_tier: bool = False) -> Message:
    """The message of a PUBLISH. Its topic alias must already be resolved."""
    properties = publish.properties
    if properties is None:
        return Message(publish.topic, publish.payload, publish.qos, publish.retain, b"", now, NEVER, None, from_tier)
    expiry = properties.message_expiry
    forwarded = encode_properties(forwarded_properties(properties))
    expires = NEVER if expiry is None else now + expiry
    topic, payload = publish.topic, publish.payload
    return Message(topic, payload, publish.qos, publish.retain, forwarded, now, expires, None, from_tier)


def forwarded_properties(properties: Properties) -> Properties:
    """A copy with only the properties that are forwarded unaltered to every receiver."""
    kept = Properties()
    kept.payload_format = properties.payload_format
    kept.content_type = properties.content_type
    kept.response_topic = properties.response_topic
    kept.correlation_data = properties.correlation_data
    kept.user = properties.user
    return kept


def without_trace(properties: Properties) -> bytes:
    """The encoded forwarded properties without the publisher's trace context: a receiver gets that of its delivery."""
    kept = forwarded_properties(properties)
    kept.user = [pair for pair in kept.user if pair[0] not in TRACE_NAMES]
    return encode_properties(kept)


def publish_packet(
    message: Message,
    protocol: int,
    qos: int,
    retain: bool,
    dup: bool,
    packet_id: int,
    now: float,
    subscription_ids: tuple[int, ...],
    context: TraceContext | None,
    alias: int = 0,
    known: bool = False,
) -> bytes:
    """The PUBLISH of ``message`` for one receiver. ``alias`` is its topic alias there (0: none); if it is ``known`` to
    the receiver, the topic name is left out (MQTT 5.0 section 3.3.2.3.4).
    """
    if protocol != MQTT5:
        if qos == 0 and not retain:
            return message.plain_packet()
        return encode_publish(message.topic_bytes, message.payload, qos, retain, dup, packet_id, b"", protocol)
    properties = message.properties
    if message.expires != NEVER or subscription_ids or context is not None or alias:
        properties = properties + _own_properties(message, now, subscription_ids, context, alias)
    topic = b"" if known else message.topic_bytes
    return encode_publish(topic, message.payload, qos, retain, dup, packet_id, properties, protocol)


def _own_properties(
    message: Message, now: float, subscription_ids: tuple[int, ...], context: TraceContext | None, alias: int
) -> bytes:
    own = Properties()
    if alias:
        own.topic_alias = alias
    if message.expires != NEVER:
        # The remaining interval [MQTT-3.3.2-6]. It is rounded up: with a second too few, the next server on the way
        # would discard a message that has less than one second left.
        own.message_expiry = max(0, math.ceil(message.expires - now - _ROUGH))
    own.subscription_ids = list(subscription_ids)
    if context is not None:
        own.user.append(("traceparent", context.traceparent()))
        if context.state:
            own.user.append(("tracestate", context.state))
    return encode_properties(own)


def pack(message: Message) -> bytes:
    """The message as the body of a journal item."""
    flags = message.qos | (_RETAIN if message.retain else 0) | (_FROM_TIER if message.from_tier else 0)
    if message.fan_out:
        flags |= _FAN_OUT
    trace = b"" if message.trace is None else message.trace.pack()
    topic = message.topic_bytes
    head = _HEAD.pack(
        flags, message.expires, message.received, len(trace), len(topic), len(message.properties)
    )
    return b"".join((head, trace, topic, message.properties, message.payload))


def unpack(data: bytes) -> Message:
    """The inverse of ``pack``. The journal has checked the bytes."""
    flags, expires, received, trace_size, topic_size, properties_size = _HEAD.unpack_from(data)
    trace_end = _HEAD.size + trace_size
    topic_end = trace_end + topic_size
    properties_end = topic_end + properties_size
    trace = TraceContext.unpack(data[_HEAD.size : trace_end]) if trace_size else None
    message = Message(
        data[trace_end:topic_end].decode(),
        data[properties_end:],
        flags & _QOS,
        bool(flags & _RETAIN),
        data[topic_end:properties_end],
        received,
        expires,
        trace,
        bool(flags & _FROM_TIER),
    )
    message.fan_out = bool(flags & _FAN_OUT)
    return message
