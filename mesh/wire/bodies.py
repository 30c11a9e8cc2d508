"""The bodies of all packets except PUBLISH and short acknowledgements, decoded from the bytes after the fixed header.

It knows the layout of each packet in 3.1, 3.1.1 and 5.0 and every rule about its fields. It must never know the earlier
packets of the connection. What always holds: a body is read to its last byte, or ``ProtocolError`` is raised with the
reason code for the peer.
"""

from __future__ import annotations

from typing import Final

from mesh.wire.fields import Cursor, malformed
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    MQTT5,
    MQTT31,
    MQTT311,
    PUBREC,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.property_codec import WILL, read_properties
from mesh.wire.reasons import (
    CLIENT_AUTH_REASONS,
    CLIENT_DISCONNECT_REASONS,
    CLIENT_IDENTIFIER_NOT_VALID,
    CONNACK_REASONS,
    PROTOCOL_ERROR,
    PUBLISHED_REASONS,
    QUOTA_EXCEEDED,
    REFUSED_NOT_AUTHORIZED,
    RELEASED_REASONS,
    SERVER_AUTH_REASONS,
    SERVER_DISCONNECT_REASONS,
    SUBACK_REASONS,
    SUCCESS,
    TOPIC_FILTER_INVALID,
    UNSPECIFIED_ERROR,
    UNSUBACK_REASONS,
    UNSUPPORTED_PROTOCOL_VERSION,
    ProtocolError,
)
from mesh.wire.topics import SHARE, filter_error, name_error, too_deep

# Bits of the connect flags, figure 3-4.
_RESERVED: Final = 0x01
_CLEAN: Final = 0x02
_WILL: Final = 0x04
_WILL_RETAIN: Final = 0x20
_PASSWORD: Final = 0x40
_USERNAME: Final = 0x80

# Bits of the subscription options, figure 3-18.
_NO_LOCAL: Final = 0x04
_AS_PUBLISHED: Final = 0x08
_OPTIONS_RESERVED: Final = 0xC0

# Bytes of the longest protocol name, "MQIsdp": a longer one is refused without being decoded.
_NAME_SIZE: Final = 6


def read_protocol(cursor: Cursor) -> int:
    """Protocol name and level of a CONNECT: 3, 4 or 5; ``ProtocolError`` with 0x84 for any other."""
    size = cursor.two("protocol name")
    if size > _NAME_SIZE:
        raise _unsupported("the protocol name is longer than MQTT and MQIsdp")
    cursor.pos -= 2
    name = cursor.text("protocol name")
    level = cursor.byte("protocol level")
    if (name == "MQTT" and level in (MQTT311, MQTT5)) or (name == "MQIsdp" and level == MQTT31):
        return level
    raise _unsupported(f"protocol {name!r} level {level} is not MQTT 3, 4 or 5")  # [MQTT-3.1.2-1] [MQTT-3.1.2-2]


def read_connect(cursor: Cursor, protocol: int, limits: PacketLimits) -> Connect:
    """A CONNECT after its protocol level, section 3.1."""
    flags = cursor.byte("connect flags")
    if flags & _RESERVED and protocol != MQTT31:  # [MQTT-3.1.2-3]; 3.1 ignores it
        raise malformed("the reserved connect flag must be 0")
    _check_flags(flags, protocol)
    keep_alive = cursor.two("keep alive")
    properties: Properties | None = None
    if protocol == MQTT5:
        properties = _properties(cursor, CONNECT, limits)
    client_id = cursor.text("client identifier")
    clean = flags & _CLEAN != 0
    if not client_id and (protocol == MQTT31 or (protocol == MQTT311 and not clean)):
        # [MQTT-3.1.3-7] [MQTT-3.1.3-8] of 3.1.1
        raise ProtocolError(CLIENT_IDENTIFIER_NOT_VALID, "an empty client identifier needs 5.0 or Clean Session")
    will = _will(cursor, flags, protocol, limits) if flags & _WILL else None
    # 3.1 allows the strings to be absent although their flags are set (its section on the user name flag).
    username = cursor.text("user name") if flags & _USERNAME and not _cut_short(cursor, protocol) else None
    password = cursor.binary("password") if flags & _PASSWORD and not _cut_short(cursor, protocol) else None
    cursor.finish("CONNECT")
    return Connect(protocol, client_id, clean, keep_alive, username, password, will, properties)


def _check_flags(flags: int, protocol: int) -> None:
    if flags & _WILL:
        if flags >> 3 & 3 == 3:
            raise malformed("the will must not have QoS 3")  # [MQTT-3.1.2-12]
    elif flags & 0x38:
        raise malformed("will QoS and will retain must be 0 without a will")  # [MQTT-3.1.2-11] [MQTT-3.1.2-13]
    if flags & _PASSWORD and not flags & _USERNAME and protocol != MQTT5:
        raise malformed("a password without a user name needs MQTT 5")  # [MQTT-3.1.2-22] of 3.1.1


def _cut_short(cursor: Cursor, protocol: int) -> bool:
    return protocol == MQTT31 and cursor.pos == cursor.end


def _will(cursor: Cursor, flags: int, protocol: int, limits: PacketLimits) -> Will:
    properties: Properties | None = None
    if protocol == MQTT5:
        properties = _properties(cursor, WILL, limits)
    topic = cursor.text("will topic")
    error = name_error(topic, limits.max_topic_levels)
    if error:
        raise malformed(f"will topic: {error}")
    payload = cursor.binary("will payload")
    return Will(topic, payload, flags >> 3 & 3, flags & _WILL_RETAIN != 0, properties)


def read_connack(cursor: Cursor, protocol: int, limits: PacketLimits) -> Connack:
    """CONNACK, section 3.2."""
    flags = cursor.byte("acknowledge flags")
    if protocol == MQTT31:
        flags = 0  # a reserved byte, ignored
    if flags > 1:
        raise malformed("bits 7 to 1 of the acknowledge flags must be 0")  # [MQTT-3.2.2-1]
    reason = cursor.byte("reason code")
    properties: Properties | None = None
    if protocol == MQTT5:
        _check_reason(reason, CONNACK_REASONS, "CONNACK")
        properties = _properties(cursor, CONNACK, limits)
    elif reason > REFUSED_NOT_AUTHORIZED:
        raise malformed(f"a CONNACK before MQTT 5 has return codes 0 to 5, not {reason}")
    if flags and reason:
        raise _wrong("a CONNACK with an error must not have Session Present set")  # [MQTT-3.2.2-6]
    cursor.finish("CONNACK")
    return Connack(flags == 1, reason, properties)


def read_ack(cursor: Cursor, kind: int, protocol: int, limits: PacketLimits) -> Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP in any form, sections 3.4 to 3.7."""
    packet_id = read_packet_id(cursor)
    reason = SUCCESS
    properties: Properties | None = None
    if protocol == MQTT5 and cursor.pos < cursor.end:  # section 3.4.2.1: absent for success without properties
        reason = cursor.byte("reason code")
        _check_reason(reason, PUBLISHED_REASONS if kind <= PUBREC else RELEASED_REASONS, "acknowledgement")
        if cursor.pos < cursor.end:
            properties = _properties(cursor, kind, limits)
    cursor.finish("acknowledgement")
    return Ack(kind, packet_id, reason, properties)


def read_subscribe(cursor: Cursor, protocol: int, limits: PacketLimits) -> Subscribe:
    """SUBSCRIBE, section 3.8."""
    packet_id = read_packet_id(cursor)
    properties: Properties | None = None
    if protocol == MQTT5:
        properties = _properties(cursor, SUBSCRIBE, limits)
    subscriptions: list[Subscription] = []
    while cursor.pos < cursor.end:
        _check_count(len(subscriptions), limits)
        filter = _filter(cursor, limits)
        options = cursor.byte("subscription options")
        subscriptions.append(_subscription(filter, options, protocol))
    if not subscriptions:
        raise _wrong("a SUBSCRIBE must have at least one topic filter")  # [MQTT-3.8.3-2]
    return Subscribe(packet_id, subscriptions, properties)


def _subscription(filter: str, options: int, protocol: int) -> Subscription:
    if protocol == MQTT31:
        options &= 3  # 3.1 ignores the other bits
    qos = options & 3
    if qos == 3:
        raise _wrong("a subscription must not ask for QoS 3")  # section 3.8.3.1, [MQTT-3.8.3-4] of 3.1.1
    if protocol != MQTT5:
        if options > 2:
            raise malformed("bits 7 to 2 of a requested QoS must be 0")  # [MQTT-3.8.3-4] of 3.1.1
        return Subscription(filter, qos)
    if options & _OPTIONS_RESERVED:
        raise malformed("bits 7 and 6 of the subscription options must be 0")  # [MQTT-3.8.3-5]
    retain_handling = options >> 4 & 3
    if retain_handling == 3:
        raise _wrong("retain handling must be 0, 1 or 2")  # section 3.8.3.1
    no_local = options & _NO_LOCAL != 0
    if no_local and filter.startswith(SHARE):
        raise _wrong("a shared subscription must not set No Local")  # [MQTT-3.8.3-4]
    return Subscription(filter, qos, no_local, options & _AS_PUBLISHED != 0, retain_handling)


def read_unsubscribe(cursor: Cursor, protocol: int, limits: PacketLimits) -> Unsubscribe:
    """UNSUBSCRIBE, section 3.10."""
    packet_id = read_packet_id(cursor)
    properties: Properties | None = None
    if protocol == MQTT5:
        properties = _properties(cursor, UNSUBSCRIBE, limits)
    filters: list[str] = []
    while cursor.pos < cursor.end:
        _check_count(len(filters), limits)
        filters.append(_filter(cursor, limits))
    if not filters:
        raise _wrong("an UNSUBSCRIBE must have at least one topic filter")  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, filters, properties)


def read_suback(cursor: Cursor, kind: int, protocol: int, limits: PacketLimits) -> SubAck:
    """SUBACK or UNSUBACK, sections 3.9 and 3.11."""
    packet_id = read_packet_id(cursor)
    properties: Properties | None = None
    if protocol == MQTT5:
        properties = _properties(cursor, kind, limits)
    reasons: list[int] = []
    if protocol == MQTT5 or kind == SUBACK:
        while cursor.pos < cursor.end:
            _check_count(len(reasons), limits)
            reason = cursor.byte("reason code")
            if protocol == MQTT5:
                _check_reason(reason, SUBACK_REASONS if kind == SUBACK else UNSUBACK_REASONS, "answer")
            elif reason > 2 and reason != UNSPECIFIED_ERROR:  # [MQTT-3.9.3-2] of 3.1.1
                raise malformed(f"a SUBACK before MQTT 5 has return codes 0, 1, 2 and 128, not {reason}")
            reasons.append(reason)
        if not reasons:
            raise _wrong("SUBACK and UNSUBACK must have a reason code for each topic filter")  # [MQTT-3.8.4-5]
    cursor.finish("UNSUBACK")
    return SubAck(kind, packet_id, reasons, properties)


def read_disconnect(cursor: Cursor, protocol: int, from_client: bool, limits: PacketLimits) -> Disconnect:
    """DISCONNECT, section 3.14."""
    reason = SUCCESS
    properties: Properties | None = None
    if protocol == MQTT5 and cursor.pos < cursor.end:
        reason = cursor.byte("reason code")
        _check_reason(reason, CLIENT_DISCONNECT_REASONS if from_client else SERVER_DISCONNECT_REASONS, "DISCONNECT")
        if cursor.pos < cursor.end:
            properties = _properties(cursor, DISCONNECT, limits)
            if properties is not None and properties.session_expiry is not None and not from_client:
                raise _wrong("a server's DISCONNECT must not carry a session expiry interval")  # [MQTT-3.14.2-2]
    cursor.finish("DISCONNECT")
    return Disconnect(reason, properties)


def read_auth(cursor: Cursor, from_client: bool, limits: PacketLimits) -> Auth:
    """AUTH, section 3.15; 5.0 only."""
    reason = SUCCESS
    properties: Properties | None = None
    if cursor.pos < cursor.end:
        reason = cursor.byte("reason code")
        properties = _properties(cursor, AUTH, limits)
        if properties is None or properties.auth_method is None:
            raise _wrong("an AUTH must name its authentication method")  # section 3.15.2.2.2
    _check_reason(reason, CLIENT_AUTH_REASONS if from_client else SERVER_AUTH_REASONS, "AUTH")  # [MQTT-3.15.2-1]
    cursor.finish("AUTH")
    return Auth(reason, properties)


def read_packet_id(cursor: Cursor) -> int:
    """A packet identifier, 1 to 65,535."""
    packet_id = cursor.two("packet identifier")
    if packet_id == 0:
        raise _wrong("a packet identifier must not be 0")  # [MQTT-2.2.1-3]
    return packet_id


def _filter(cursor: Cursor, limits: PacketLimits) -> str:
    filter = cursor.text("topic filter")
    error = filter_error(filter, limits.max_topic_levels)
    if error and too_deep(filter, limits.max_topic_levels):
        raise ProtocolError(TOPIC_FILTER_INVALID, error)  # well formed, but beyond a limit of this server
    if error:
        raise malformed(error)
    return filter


def _properties(cursor: Cursor, place: int, limits: PacketLimits) -> Properties | None:
    return read_properties(cursor, place, limits.max_user_properties, limits.max_subscriptions)


def _check_count(count: int, limits: PacketLimits) -> None:
    if count >= limits.max_subscriptions:
        raise ProtocolError(QUOTA_EXCEEDED, f"more than {limits.max_subscriptions} topic filters in one packet")


def _check_reason(reason: int, allowed: frozenset[int], what: str) -> None:
    if reason not in allowed:
        raise _wrong(f"reason code 0x{reason:02X} is not allowed in this {what}")


def _wrong(message: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, message)


def _unsupported(message: str) -> ProtocolError:
    return ProtocolError(UNSUPPORTED_PROTOCOL_VERSION, message)
