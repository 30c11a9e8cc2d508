"""The properties of MQTT 5.0 (section 2.2.2) as bytes, without the length that precedes them.

It knows each property's identifier, type, packets and allowed values. What always holds: a property occurs at most once
(except user properties, and the subscription identifiers of a PUBLISH), and encoded properties can be read back.
"""

from __future__ import annotations

from typing import Final

from mesh.wire.fields import Cursor, malformed, write_binary, write_four, write_length, write_one, write_text, write_two
from mesh.wire.limits import MAX_REMAINING_LENGTH
from mesh.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import PROTOCOL_ERROR, QUOTA_EXCEEDED, TOPIC_ALIAS_INVALID, ProtocolError

# A place of properties in addition to the packet types of table 2-1.
WILL: Final = 0

PAYLOAD_FORMAT: Final = 0x01
MESSAGE_EXPIRY: Final = 0x02
CONTENT_TYPE: Final = 0x03
RESPONSE_TOPIC: Final = 0x08
CORRELATION_DATA: Final = 0x09
SUBSCRIPTION_ID: Final = 0x0B
SESSION_EXPIRY: Final = 0x11
ASSIGNED_CLIENT_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
AUTH_METHOD: Final = 0x15
AUTH_DATA: Final = 0x16
REQUEST_PROBLEM_INFO: Final = 0x17
WILL_DELAY: Final = 0x18
REQUEST_RESPONSE_INFO: Final = 0x19
RESPONSE_INFO: Final = 0x1A
SERVER_REFERENCE: Final = 0x1C
REASON_STRING: Final = 0x1F
RECEIVE_MAXIMUM: Final = 0x21
TOPIC_ALIAS_MAXIMUM: Final = 0x22
TOPIC_ALIAS: Final = 0x23
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
USER: Final = 0x26
MAXIMUM_PACKET_SIZE: Final = 0x27
WILDCARD_AVAILABLE: Final = 0x28
SUBSCRIPTION_ID_AVAILABLE: Final = 0x29
SHARED_AVAILABLE: Final = 0x2A

_MESSAGE: Final = (PUBLISH, WILL)
_CONNECTING: Final = (CONNECT, CONNACK)
_AUTHENTICATING: Final = (CONNECT, CONNACK, AUTH)
_ANSWERING: Final = (CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)
_ALL: Final = (WILL, CONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, *_ANSWERING)

# Table 2-4.
_PLACES: Final[dict[int, tuple[int, ...]]] = {
    PAYLOAD_FORMAT: _MESSAGE,
    MESSAGE_EXPIRY: _MESSAGE,
    CONTENT_TYPE: _MESSAGE,
    RESPONSE_TOPIC: _MESSAGE,
    CORRELATION_DATA: _MESSAGE,
    SUBSCRIPTION_ID: (PUBLISH, SUBSCRIBE),
    SESSION_EXPIRY: (CONNECT, CONNACK, DISCONNECT),
    ASSIGNED_CLIENT_ID: (CONNACK,),
    SERVER_KEEP_ALIVE: (CONNACK,),
    AUTH_METHOD: _AUTHENTICATING,
    AUTH_DATA: _AUTHENTICATING,
    REQUEST_PROBLEM_INFO: (CONNECT,),
    WILL_DELAY: (WILL,),
    REQUEST_RESPONSE_INFO: (CONNECT,),
    RESPONSE_INFO: (CONNACK,),
    SERVER_REFERENCE: (CONNACK, DISCONNECT),
    REASON_STRING: _ANSWERING,
    RECEIVE_MAXIMUM: _CONNECTING,
    TOPIC_ALIAS_MAXIMUM: _CONNECTING,
    TOPIC_ALIAS: (PUBLISH,),
    MAXIMUM_QOS: (CONNACK,),
    RETAIN_AVAILABLE: (CONNACK,),
    USER: _ALL,
    MAXIMUM_PACKET_SIZE: _CONNECTING,
    WILDCARD_AVAILABLE: (CONNACK,),
    SUBSCRIPTION_ID_AVAILABLE: (CONNACK,),
    SHARED_AVAILABLE: (CONNACK,),
}


def _masks() -> list[int]:
    """For each identifier the places where it is allowed, one bit each; 0 for an unknown identifier."""
    masks = [0] * 128
    for identifier, places in _PLACES.items():
        for place in places:
            masks[identifier] |= 1 << place
    return masks


_ALLOWED: Final[list[int]] = _masks()


def read_properties(cursor: Cursor, place: int, max_user: int, max_ids: int) -> Properties | None:
    """Read the properties at the cursor, with their length; ``None`` if there are none.

    ``place`` is a packet type or ``WILL``. Raises ``ProtocolError``: 0x81 for an unknown, misplaced or
    malformed property, 0x82 for a duplicate or an invalid value, 0x97 for more than ``max_user`` user properties or
    ``max_ids`` subscription identifiers.
    """
    size = cursor.length("property length")
    if size == 0:
        return None
    end = cursor.pos + size
    if end > cursor.end:
        raise malformed("the property length exceeds the packet")
    whole = cursor.end
    cursor.end = end
    properties = _read_list(cursor, place, max_user, max_ids)
    cursor.end = whole
    return properties


def _read_list(cursor: Cursor, place: int, max_user: int, max_ids: int) -> Properties:
    """Read the properties from the cursor to its end; errors as in ``read_properties``."""
    properties = Properties()
    bit = 1 << place
    seen = 0
    while cursor.pos < cursor.end:
        identifier = cursor.byte("property identifier")  # all known identifiers have one byte
        if identifier >= 0x80 or _ALLOWED[identifier] & bit == 0:
            raise malformed(f"property 0x{identifier:02X} is not allowed in this packet")  # section 2.2.2.2
        if identifier == USER:
            if len(properties.user) >= max_user:
                raise ProtocolError(QUOTA_EXCEEDED, f"more than {max_user} user properties in one packet")
            name = cursor.text("name of a user property")
            properties.user.append((name, cursor.text("value of a user property")))
            continue
        if seen >> identifier & 1 and not (identifier == SUBSCRIPTION_ID and place != SUBSCRIBE):
            raise _wrong(f"property 0x{identifier:02X} must not occur more than once")  # section 3.1.2.11 and others
        seen |= 1 << identifier
        if identifier == SUBSCRIPTION_ID:
            _read_subscription_id(cursor, properties, max_ids)
        elif bit & ((1 << WILL) | (1 << PUBLISH)) and _read_message(cursor, properties, identifier):
            continue
        elif not _read_connection(cursor, properties, identifier):
            _read_capability(cursor, properties, identifier)
    if properties.auth_data is not None and properties.auth_method is None:
        raise _wrong("authentication data without an authentication method")  # section 3.1.2.11.10
    return properties


def _wrong(message: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, message)


def _read_subscription_id(cursor: Cursor, properties: Properties, max_ids: int) -> None:
    if len(properties.subscription_ids) >= max_ids:
        raise ProtocolError(QUOTA_EXCEEDED, f"more than {max_ids} subscription identifiers in one packet")
    value = cursor.length("subscription identifier")
    if value == 0:
        raise _wrong("a subscription identifier must not be 0")  # section 3.8.2.1.2
    properties.subscription_ids.append(value)


def _read_message(cursor: Cursor, properties: Properties, identifier: int) -> bool:
    """Read a property of a message or a will; ``False`` if it is none."""
    if identifier == MESSAGE_EXPIRY:
        properties.message_expiry = cursor.four("message expiry interval")
    elif identifier == TOPIC_ALIAS:
        properties.topic_alias = cursor.two("topic alias")
        if properties.topic_alias == 0:
            raise ProtocolError(TOPIC_ALIAS_INVALID, "a topic alias must not be 0")  # [MQTT-3.3.2-8]
    elif identifier == PAYLOAD_FORMAT:
        properties.payload_format = _flag(cursor, "payload format indicator")
    elif identifier == CONTENT_TYPE:
        properties.content_type = cursor.text("content type")
    elif identifier == RESPONSE_TOPIC:
        properties.response_topic = cursor.text("response topic")
        if "+" in properties.response_topic or "#" in properties.response_topic:
            raise _wrong("a response topic must not contain the wildcards + and #")  # [MQTT-3.3.2-14]
    elif identifier == CORRELATION_DATA:
        properties.correlation_data = cursor.binary("correlation data")
    elif identifier == WILL_DELAY:
        properties.will_delay = cursor.four("will delay interval")
    else:
        return False
    return True


def _read_connection(cursor: Cursor, properties: Properties, identifier: int) -> bool:
    """Read a property of CONNECT, an answer or DISCONNECT; ``False`` if it is none."""
    if identifier == REASON_STRING:
        properties.reason_string = cursor.text("reason string")
    elif identifier == SESSION_EXPIRY:
        properties.session_expiry = cursor.four("session expiry interval")
    elif identifier == RECEIVE_MAXIMUM:
        properties.receive_maximum = _positive(cursor.two("receive maximum"), "receive maximum")
    elif identifier == MAXIMUM_PACKET_SIZE:
        properties.maximum_packet_size = _positive(cursor.four("maximum packet size"), "maximum packet size")
    elif identifier == TOPIC_ALIAS_MAXIMUM:
        properties.topic_alias_maximum = cursor.two("topic alias maximum")
    elif identifier == AUTH_METHOD:
        properties.auth_method = cursor.text("authentication method")
    elif identifier == AUTH_DATA:
        properties.auth_data = cursor.binary("authentication data")
    elif identifier == REQUEST_PROBLEM_INFO:
        properties.request_problem_info = _flag(cursor, "request problem information")
    elif identifier == REQUEST_RESPONSE_INFO:
        properties.request_response_info = _flag(cursor, "request response information")
    else:
        return False
    return True


def _read_capability(cursor: Cursor, properties: Properties, identifier: int) -> None:
    """Read a property that only servers send."""
    if identifier == ASSIGNED_CLIENT_ID:
        properties.assigned_client_id = cursor.text("assigned client identifier")
    elif identifier == SERVER_KEEP_ALIVE:
        properties.server_keep_alive = cursor.two("server keep alive")
    elif identifier == RESPONSE_INFO:
        properties.response_info = cursor.text("response information")
    elif identifier == SERVER_REFERENCE:
        properties.server_reference = cursor.text("server reference")
    elif identifier == MAXIMUM_QOS:
        properties.maximum_qos = _flag(cursor, "maximum QoS")
    elif identifier == RETAIN_AVAILABLE:
        properties.retain_available = _flag(cursor, "retain available")
    elif identifier == WILDCARD_AVAILABLE:
        properties.wildcard_available = _flag(cursor, "wildcard subscription available")
    elif identifier == SUBSCRIPTION_ID_AVAILABLE:
        properties.subscription_id_available = _flag(cursor, "subscription identifiers available")
    else:
        properties.shared_available = _flag(cursor, "shared subscription available")


def _flag(cursor: Cursor, what: str) -> int:
    value = cursor.byte(what)
    if value > 1:
        raise _wrong(f"the {what} must be 0 or 1, not {value}")
    return value


def _positive(value: int, what: str) -> int:
    if value == 0:
        raise _wrong(f"the {what} must not be 0")  # sections 3.1.2.11.3 and 3.1.2.11.4
    return value


def encode_properties(properties: Properties) -> bytes:
    """All present properties, without their length; user properties last, in their order.

    Raises ``ValueError`` for a value that does not fit its field.
    """
    parts: list[bytes] = []
    _write_message(parts, properties)
    _write_connection(parts, properties)
    _write_capabilities(parts, properties)
    for name, value in properties.user:
        parts.append(b"\x26" + write_text(name) + write_text(value))
    return b"".join(parts)


def _write_message(parts: list[bytes], properties: Properties) -> None:
    if properties.payload_format is not None:
        parts.append(b"\x01" + write_one(properties.payload_format))
    if properties.message_expiry is not None:
        parts.append(b"\x02" + write_four(properties.message_expiry))
    if properties.content_type is not None:
        parts.append(b"\x03" + write_text(properties.content_type))
    if properties.response_topic is not None:
        parts.append(b"\x08" + write_text(properties.response_topic))
    if properties.correlation_data is not None:
        parts.append(b"\x09" + write_binary(properties.correlation_data))
    for identifier in properties.subscription_ids:
        if not 1 <= identifier <= MAX_REMAINING_LENGTH:
            raise ValueError(f"a subscription identifier must be 1 to {MAX_REMAINING_LENGTH}, not {identifier}")
        parts.append(b"\x0b" + write_length(identifier))
    if properties.will_delay is not None:
        parts.append(b"\x18" + write_four(properties.will_delay))
    if properties.topic_alias is not None:
        parts.append(b"\x23" + write_two(properties.topic_alias))


def _write_connection(parts: list[bytes], properties: Properties) -> None:
    if properties.session_expiry is not None:
        parts.append(b"\x11" + write_four(properties.session_expiry))
    if properties.auth_method is not None:
        parts.append(b"\x15" + write_text(properties.auth_method))
    if properties.auth_data is not None:
        parts.append(b"\x16" + write_binary(properties.auth_data))
    if properties.request_problem_info is not None:
        parts.append(b"\x17" + write_one(properties.request_problem_info))
    if properties.request_response_info is not None:
        parts.append(b"\x19" + write_one(properties.request_response_info))
    if properties.reason_string is not None:
        parts.append(b"\x1f" + write_text(properties.reason_string))
    if properties.receive_maximum is not None:
        parts.append(b"\x21" + write_two(properties.receive_maximum))
    if properties.topic_alias_maximum is not None:
        parts.append(b"\x22" + write_two(properties.topic_alias_maximum))
    if properties.maximum_packet_size is not None:
        parts.append(b"\x27" + write_four(properties.maximum_packet_size))


def _write_capabilities(parts: list[bytes], properties: Properties) -> None:
    if properties.assigned_client_id is not None:
        parts.append(b"\x12" + write_text(properties.assigned_client_id))
    if properties.server_keep_alive is not None:
        parts.append(b"\x13" + write_two(properties.server_keep_alive))
    if properties.response_info is not None:
        parts.append(b"\x1a" + write_text(properties.response_info))
    if properties.server_reference is not None:
        parts.append(b"\x1c" + write_text(properties.server_reference))
    if properties.maximum_qos is not None:
        parts.append(b"\x24" + write_one(properties.maximum_qos))
    if properties.retain_available is not None:
        parts.append(b"\x25" + write_one(properties.retain_available))
    if properties.wildcard_available is not None:
        parts.append(b"\x28" + write_one(properties.wildcard_available))
    if properties.subscription_id_available is not None:
        parts.append(b"\x29" + write_one(properties.subscription_id_available))
    if properties.shared_available is not None:
        parts.append(b"\x2a" + write_one(properties.shared_available))
