"""Bytes to packets: one side of one connection.

It knows the framing, which packets the other side may send, and that CONNECT is the first packet and is sent once. The
bodies of the rarer packets are in ``bodies``. It must never know sessions, or the effect of a packet. What always
holds:

* The packets returned do not depend on the pieces in which the bytes arrive.
* The packets before an invalid one are returned; then ``error`` is set, and no further packet is returned.
* Only the packet in progress is buffered, and its announced length is checked before any of its bytes are kept.
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.bodies import (
    read_ack,
    read_auth,
    read_connack,
    read_connect,
    read_disconnect,
    read_protocol,
    read_suback,
    read_subscribe,
    read_unsubscribe,
)
from mesh.wire.fields import Cursor, length_size, malformed, read_length, read_text
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    MQTT5,
    MQTT31,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    Ack,
    Packet,
    Ping,
    Publish,
)
from mesh.wire.partial import Partial, too_large
from mesh.wire.properties import Properties
from mesh.wire.property_codec import read_properties
from mesh.wire.reasons import PROTOCOL_ERROR, TOPIC_NAME_INVALID, ProtocolError
from mesh.wire.topics import name_error, too_deep

__all__ = ["CLIENT", "SERVER", "PacketLimits", "ProtocolError", "Reader"]

SERVER: Final = 0
CLIENT: Final = 1

# Who may send a packet type, section 2.1.2: bit n for type n.
_FROM_CLIENT: Final = 1 << CONNECT | 1 << SUBSCRIBE | 1 << UNSUBSCRIBE | 1 << PINGREQ
_FROM_SERVER: Final = 1 << CONNACK | 1 << SUBACK | 1 << UNSUBACK | 1 << PINGRESP
_QOS1_FLAGS: Final = 0x02  # the reserved bits of 5.0 are QoS 1 in 3.1
_DUP: Final = 0x08


@final
class Reader(Partial):
    """Reads the packets of the other side. ``role`` is this side: ``SERVER`` reads a client's packets, ``CLIENT`` a
    server's.

    ``protocol`` is 3, 4 or 5. A server's reader has 0 until CONNECT gives the version; with another initial value,
    CONNECT counts as received. A client's reader needs the version of the CONNECT that was sent; the session checks
    that CONNACK is the first packet.
    """

    __slots__ = ("limits", "protocol", "role")

    def __init__(self, limits: PacketLimits, role: int, protocol: int = 0) -> None:
        if role == CLIENT and protocol == 0:
            raise ValueError("a client's reader needs the protocol (3, 4 or 5) of the CONNECT that was sent")
        super().__init__()
        self.limits = limits
        self.role = role
        self.protocol = protocol

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that ``data`` completes. After an invalid packet ``error`` is set, and no more are returned."""
        packets: list[Packet] = []
        if self.error is not None:
            return packets
        partial = self._partial
        if partial is not None:
            data = self._joined(partial, data)
            if not data:
                return packets
        try:
            self._read(data, packets)
        except ProtocolError as error:
            self.error = error
        return packets

    def _read(self, data: bytes, packets: list[Packet]) -> None:
        size = len(data)
        pos = 0
        limit = self.limits.max_packet_size
        while pos < size:
            first = data[pos]
            kind = first >> 4
            if self.protocol == 0:
                if first != CONNECT << 4:  # the first byte decides: bytes of other protocols are not kept
                    raise _wrong("the first packet must be a CONNECT")  # [MQTT-3.1.0-1] [MQTT-2.1.3-1]
                limit = self.limits.max_connect_size
            body = pos + 2
            if body > size:
                self._keep(data, pos, 2)
                return
            length = data[pos + 1]
            if length >= 0x80:
                length = read_length(data, pos + 1, size)
                if length < 0:
                    self._keep(data, pos, size - pos + 1)
                    return
                body = pos + 1 + length_size(length)
            end = body + length
            if end - pos > limit:
                raise too_large(end - pos, limit)  # [MQTT-3.2.2-15] [MQTT-3.1.2-24]
            if end > size:
                self._keep(data, pos, end - pos)
                return
            if kind == PUBLISH:
                packets.append(self._publish(data, first, body, end))
            elif PUBACK <= kind <= PUBCOMP and length == 2 and first & 0x0F == (_QOS1_FLAGS if kind == PUBREL else 0):
                packets.append(self._short_ack(data, kind, body))
            else:
                packets.append(self._other(data, first, body, end))
                limit = self.limits.max_packet_size
            pos = end

    def _publish(self, data: bytes, first: int, pos: int, end: int) -> Publish:
        """PUBLISH, section 3.3."""
        qos = first >> 1 & 3
        if pos + 2 > end:
            raise malformed("the packet ends before its topic name")
        start = pos + 2
        pos = start + (data[pos] << 8 | data[pos + 1])
        if pos > end:
            raise malformed("the packet ends inside its topic name")
        topic = read_text(data, start, pos, "topic name")
        if "+" in topic or "#" in topic or not topic or len(topic) >= self.limits.max_topic_levels:
            self._check_topic(topic)
        packet_id = 0
        if qos:
            if qos == 3:
                raise malformed("a PUBLISH must not have QoS 3")  # [MQTT-3.3.1-4]
            if pos + 2 > end:
                raise malformed("the packet ends before its packet identifier")
            packet_id = data[pos] << 8 | data[pos + 1]
            if packet_id == 0:
                raise _wrong("a packet identifier must not be 0")  # [MQTT-2.2.1-3]
            pos += 2
        elif first & _DUP and self.protocol != MQTT31:
            raise malformed("DUP must be 0 in a PUBLISH with QoS 0")  # [MQTT-3.3.1-2]
        properties: Properties | None = None
        if self.protocol == MQTT5:
            if pos < end and data[pos] == 0:  # by far the most common case: no properties
                pos += 1
            else:
                cursor = Cursor(data, pos, end)
                properties = self._publish_properties(cursor)
                pos = cursor.pos
            if not topic and (properties is None or properties.topic_alias is None):
                raise _wrong("a PUBLISH with an empty topic name must have a topic alias")  # section 3.3.2.1
        return Publish(topic, data[pos:end], qos, first & 1 != 0, first & _DUP != 0, packet_id, properties)

    def _check_topic(self, topic: str) -> None:
        if not topic and self.protocol == MQTT5:
            return  # allowed with a topic alias, which is read later
        error = name_error(topic, self.limits.max_topic_levels)
        if error and too_deep(topic, self.limits.max_topic_levels):
            raise ProtocolError(TOPIC_NAME_INVALID, error)  # well formed, but beyond a limit of this server
        if error:
            raise malformed(error)

    def _publish_properties(self, cursor: Cursor) -> Properties | None:
        limits = self.limits
        properties = read_properties(cursor, PUBLISH, limits.max_user_properties, limits.max_subscriptions)
        if properties is not None and properties.subscription_ids and self.role == SERVER:
            raise _wrong("a client's PUBLISH must not carry a subscription identifier")  # [MQTT-3.3.4-6]
        return properties

    def _short_ack(self, data: bytes, kind: int, pos: int) -> Ack:
        packet_id = data[pos] << 8 | data[pos + 1]
        if packet_id == 0:
            raise _wrong("a packet identifier must not be 0")  # [MQTT-2.2.1-3]
        return Ack(kind, packet_id)

    def _other(self, data: bytes, first: int, pos: int, end: int) -> Packet:
        """All packets that are not on the hot path."""
        kind = first >> 4
        self._check_header(kind, first & 0x0F)
        limits = self.limits
        cursor = Cursor(data, pos, end)
        if kind in (PINGREQ, PINGRESP):
            cursor.finish("PINGREQ or PINGRESP")
            return Ping(kind)
        if PUBACK <= kind <= PUBCOMP:
            return read_ack(cursor, kind, self.protocol, limits)
        if kind == SUBSCRIBE:
            return read_subscribe(cursor, self.protocol, limits)
        if kind == UNSUBSCRIBE:
            return read_unsubscribe(cursor, self.protocol, limits)
        if kind in (SUBACK, UNSUBACK):
            return read_suback(cursor, kind, self.protocol, limits)
        if kind == DISCONNECT:
            return read_disconnect(cursor, self.protocol, self.role == SERVER, limits)
        if kind == AUTH:
            return read_auth(cursor, self.role == SERVER, limits)
        if kind == CONNACK:
            return read_connack(cursor, self.protocol, limits)
        self.protocol = read_protocol(cursor)
        return read_connect(cursor, self.protocol, limits)

    def _check_header(self, kind: int, flags: int) -> None:
        if kind == 0 or (kind == AUTH and self.protocol != MQTT5):
            raise malformed(f"packet type {kind} does not exist in this version of MQTT")  # section 2.1.2
        if (_FROM_SERVER if self.role == SERVER else _FROM_CLIENT) >> kind & 1:
            raise _wrong(f"packet type {kind} must not be sent by {'clients' if self.role == SERVER else 'servers'}")
        if kind == CONNECT and self.protocol:
            raise _wrong("a client must not send CONNECT twice")  # [MQTT-3.1.0-2]
        wanted = _QOS1_FLAGS if kind in (PUBREL, SUBSCRIBE, UNSUBSCRIBE) else 0
        if self.protocol == MQTT31:
            # 3.1 has DUP, QoS and RETAIN in every header; it requires QoS 1 in these three and ignores the other bits.
            flags &= 0x06 if wanted else 0
        if flags != wanted:
            raise malformed(f"the flags of packet type {kind} must be {wanted:04b}, not {flags:04b}")  # [MQTT-2.1.3-1]


def _wrong(message: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, message)
