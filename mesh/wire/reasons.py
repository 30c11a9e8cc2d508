"""The reason codes of MQTT 5.0 (section 2.4), and the error that carries one.

It knows the codes, their names, which packet of which side may have which code, and the return code of a refused
CONNECT for an older client. It must never know why a code was chosen. What always holds: a code below 0x80 is a
success, a code from 0x80 on is a failure; only ``is_error`` knows this.

A code is a plain ``int``, and ``is_error`` is a function. Measured, compiled: to create a packet from a byte and
compare its code takes 27 ns; ``is_error`` adds 0.5 ns, a ``NewType`` 1.5 ns (its constructor is a call), an object
for each code with an ``is_error`` field 2 ns, a subclass of ``int`` 26 ns (it is always boxed). Codes are bytes in
packets and in frames of links, so each of these borders would convert to or from the object.
"""

from __future__ import annotations

from typing import Final, final

SUCCESS: Final = 0x00  # also normal disconnection, and granted QoS 0
GRANTED_QOS_1: Final = 0x01
GRANTED_QOS_2: Final = 0x02
DISCONNECT_WITH_WILL: Final = 0x04
NO_MATCHING_SUBSCRIBERS: Final = 0x10
NO_SUBSCRIPTION_EXISTED: Final = 0x11
CONTINUE_AUTHENTICATION: Final = 0x18
RE_AUTHENTICATE: Final = 0x19
UNSPECIFIED_ERROR: Final = 0x80
MALFORMED_PACKET: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
IMPLEMENTATION_SPECIFIC_ERROR: Final = 0x83
UNSUPPORTED_PROTOCOL_VERSION: Final = 0x84
CLIENT_IDENTIFIER_NOT_VALID: Final = 0x85
BAD_USER_NAME_OR_PASSWORD: Final = 0x86
NOT_AUTHORIZED: Final = 0x87
SERVER_UNAVAILABLE: Final = 0x88
SERVER_BUSY: Final = 0x89
BANNED: Final = 0x8A
SERVER_SHUTTING_DOWN: Final = 0x8B
BAD_AUTHENTICATION_METHOD: Final = 0x8C
KEEP_ALIVE_TIMEOUT: Final = 0x8D
SESSION_TAKEN_OVER: Final = 0x8E
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PACKET_IDENTIFIER_IN_USE: Final = 0x91
PACKET_IDENTIFIER_NOT_FOUND: Final = 0x92
RECEIVE_MAXIMUM_EXCEEDED: Final = 0x93
TOPIC_ALIAS_INVALID: Final = 0x94
PACKET_TOO_LARGE: Final = 0x95
MESSAGE_RATE_TOO_HIGH: Final = 0x96
QUOTA_EXCEEDED: Final = 0x97
ADMINISTRATIVE_ACTION: Final = 0x98
PAYLOAD_FORMAT_INVALID: Final = 0x99
RETAIN_NOT_SUPPORTED: Final = 0x9A
QOS_NOT_SUPPORTED: Final = 0x9B
USE_ANOTHER_SERVER: Final = 0x9C
SERVER_MOVED: Final = 0x9D
SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0x9E
CONNECTION_RATE_EXCEEDED: Final = 0x9F
MAXIMUM_CONNECT_TIME: Final = 0xA0
SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: Final = 0xA1
WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: Final = 0xA2

NAMES: Final[dict[int, str]] = {
    SUCCESS: "success",
    GRANTED_QOS_1: "granted QoS 1",
    GRANTED_QOS_2: "granted QoS 2",
    DISCONNECT_WITH_WILL: "disconnect with will message",
    NO_MATCHING_SUBSCRIBERS: "no matching subscribers",
    NO_SUBSCRIPTION_EXISTED: "no subscription existed",
    CONTINUE_AUTHENTICATION: "continue authentication",
    RE_AUTHENTICATE: "re-authenticate",
    UNSPECIFIED_ERROR: "unspecified error",
    MALFORMED_PACKET: "malformed packet",
    PROTOCOL_ERROR: "protocol error",
    IMPLEMENTATION_SPECIFIC_ERROR: "implementation specific error",
    UNSUPPORTED_PROTOCOL_VERSION: "unsupported protocol version",
    CLIENT_IDENTIFIER_NOT_VALID: "client identifier not valid",
    BAD_USER_NAME_OR_PASSWORD: "bad user name or password",
    NOT_AUTHORIZED: "not authorized",
    SERVER_UNAVAILABLE: "server unavailable",
    SERVER_BUSY: "server busy",
    BANNED: "banned",
    SERVER_SHUTTING_DOWN: "server shutting down",
    BAD_AUTHENTICATION_METHOD: "bad authentication method",
    KEEP_ALIVE_TIMEOUT: "keep alive timeout",
    SESSION_TAKEN_OVER: "session taken over",
    TOPIC_FILTER_INVALID: "topic filter invalid",
    TOPIC_NAME_INVALID: "topic name invalid",
    PACKET_IDENTIFIER_IN_USE: "packet identifier in use",
    PACKET_IDENTIFIER_NOT_FOUND: "packet identifier not found",
    RECEIVE_MAXIMUM_EXCEEDED: "receive maximum exceeded",
    TOPIC_ALIAS_INVALID: "topic alias invalid",
    PACKET_TOO_LARGE: "packet too large",
    MESSAGE_RATE_TOO_HIGH: "message rate too high",
    QUOTA_EXCEEDED: "quota exceeded",
    ADMINISTRATIVE_ACTION: "administrative action",
    PAYLOAD_FORMAT_INVALID: "payload format invalid",
    RETAIN_NOT_SUPPORTED: "retain not supported",
    QOS_NOT_SUPPORTED: "QoS not supported",
    USE_ANOTHER_SERVER: "use another server",
    SERVER_MOVED: "server moved",
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: "shared subscriptions not supported",
    CONNECTION_RATE_EXCEEDED: "connection rate exceeded",
    MAXIMUM_CONNECT_TIME: "maximum connect time",
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: "subscription identifiers not supported",
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: "wildcard subscriptions not supported",
}

# Which reason codes a packet may carry: the tables of the sections named.
CONNACK_REASONS: Final = frozenset(  # 3.2.2.2
    (
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A,
        0x9B, 0x9C, 0x9D, 0x9F,
    )
)  # fmt: skip
PUBLISHED_REASONS: Final = frozenset(  # PUBACK and PUBREC: 3.4.2.1, 3.5.2.1
    (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
)
RELEASED_REASONS: Final = frozenset((0x00, 0x92))  # PUBREL and PUBCOMP: 3.6.2.1, 3.7.2.1
SUBACK_REASONS: Final = frozenset(  # 3.9.3
    (0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)
)
UNSUBACK_REASONS: Final = frozenset((0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91))  # 3.11.3
CLIENT_DISCONNECT_REASONS: Final = frozenset(  # 3.14.2.1, "sent by" client
    (0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99)
)
SERVER_DISCONNECT_REASONS: Final = frozenset(  # 3.14.2.1, "sent by" server; 0x8C only by section 2.4
    (
        0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
        0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    )
)  # fmt: skip
CLIENT_AUTH_REASONS: Final = frozenset((0x18, 0x19))  # 3.15.2.1
SERVER_AUTH_REASONS: Final = frozenset((0x00, 0x18))

# CONNACK return codes of 3.1.1, table 3.1.
ACCEPTED: Final = 0
REFUSED_VERSION: Final = 1
REFUSED_IDENTIFIER: Final = 2
REFUSED_UNAVAILABLE: Final = 3
REFUSED_CREDENTIALS: Final = 4
REFUSED_NOT_AUTHORIZED: Final = 5

_RETURN_CODES: Final[dict[int, int]] = {
    SUCCESS: ACCEPTED,
    UNSUPPORTED_PROTOCOL_VERSION: REFUSED_VERSION,
    CLIENT_IDENTIFIER_NOT_VALID: REFUSED_IDENTIFIER,
    BAD_USER_NAME_OR_PASSWORD: REFUSED_CREDENTIALS,
    # A repeat of the same CONNECT gets the same result.
    NOT_AUTHORIZED: REFUSED_NOT_AUTHORIZED,
    BANNED: REFUSED_NOT_AUTHORIZED,
    BAD_AUTHENTICATION_METHOD: REFUSED_NOT_AUTHORIZED,
    TOPIC_NAME_INVALID: REFUSED_NOT_AUTHORIZED,
    PACKET_TOO_LARGE: REFUSED_NOT_AUTHORIZED,
    PAYLOAD_FORMAT_INVALID: REFUSED_NOT_AUTHORIZED,
    RETAIN_NOT_SUPPORTED: REFUSED_NOT_AUTHORIZED,
    QOS_NOT_SUPPORTED: REFUSED_NOT_AUTHORIZED,
}


@final
class ProtocolError(Exception):
    """The peer broke the protocol or exceeded a limit. ``reason`` is the 5.0 code to end with; the text says why."""

    def __init__(self, reason: int, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_error(reason: int) -> bool:
    """Whether a reason code is a failure (MQTT 5.0 section 2.4)."""
    return reason >= UNSPECIFIED_ERROR


def name_of(reason: int) -> str:
    """The name of a reason code in lower case; its number if the specification does not have the code."""
    name = NAMES.get(reason)
    return f"reason 0x{reason:02X}" if name is None else name


def return_code(reason: int) -> int:
    """The CONNACK return code of 3.1.1 for a 5.0 reason code; "server unavailable" for all that may be temporary."""
    return _RETURN_CODES.get(reason, REFUSED_UNAVAILABLE)


def farewell_code(reason: int) -> int:
    """The code with which DISCONNECT says that a client is banned, or ``reason`` itself. "Banned" is a code of CONNACK
    only [MQTT-3.14.2-1], and clients take it in a DISCONNECT for a malformed packet."""
    return ADMINISTRATIVE_ACTION if reason == BANNED else reason
