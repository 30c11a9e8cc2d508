"""The refusal of a CONNECT: the reason, and the packet that carries it.

What always holds: a client gets an answer in its own version of the protocol or none at all; no answer is larger than
the client accepts [MQTT-3.1.2-24]; a CONNACK that refuses tells no more than the reason code, so that an unknown client
does not learn what would be accepted.
"""

from __future__ import annotations

from typing import final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Connack, Connect, Disconnect
from mesh.wire.properties import Properties
from mesh.wire.reasons import (
    CLIENT_IDENTIFIER_NOT_VALID,
    SERVER_SHUTTING_DOWN,
    UNSUPPORTED_PROTOCOL_VERSION,
    USE_ANOTHER_SERVER,
    name_of,
    return_code,
)


@final
class Refused(Exception):
    """A client, vehicle or node is refused. ``reason`` is a 5.0 CONNACK code; the text is for the log, never for the
    client; ``reference`` names another server that the client may use."""

    def __init__(self, reason: int, message: str = "", reference: str = "") -> None:
        super().__init__(message or name_of(reason))
        self.reason = reason
        self.reference = reference


def maximum_of(connect: Connect) -> int:
    """The client's maximum packet size in bytes; 0 if it has none."""
    return 0 if connect.properties is None else connect.properties.maximum_packet_size or 0


def refusal(protocol: int, reason: int, reference: str = "", maximum: int = 0) -> bytes:
    """The CONNACK that refuses, for ``protocol`` 3, 4 or 5; no bytes for 0, when the client's version is not known.

    The server must close the connection afterwards [MQTT-3.2.2-7] [MQTT-3.1.4-5].
    """
    if protocol == 0:
        return b""
    if protocol != MQTT5:
        return encode(Connack(False, return_code(reason)), protocol)
    plain = encode(Connack(False, reason), MQTT5)
    return _fitting(encode(Connack(False, reason, _referring(reference)), MQTT5), plain, maximum)


def _fitting(full: bytes, plain: bytes, maximum: int) -> bytes:
    """The fullest form of an answer that the client accepts; empty if it accepts neither."""
    if maximum == 0 or len(full) <= maximum:
        return full
    return plain if len(plain) <= maximum else b""


def _referring(reference: str) -> Properties | None:
    if not reference:
        return None
    properties = Properties()
    properties.server_reference = reference
    return properties


def malformed(protocol: int, reason: int) -> bytes:
    """The answer to a CONNECT that could not be read.

    5.0 lets the server say why (section 3.1.4); 3.1.1 has codes for the version and for a client identifier that is
    missing [MQTT-3.1.2-2] [MQTT-3.1.3-8], and no answer for other errors [MQTT-3.1.4-1].
    """
    if reason == UNSUPPORTED_PROTOCOL_VERSION:
        return encode(Connack(False, return_code(reason)), 4)  # clients of every version understand this form
    return refusal(protocol, reason) if protocol == MQTT5 or reason == CLIENT_IDENTIFIER_NOT_VALID else b""


def goodbye(protocol: int, reason: int, maximum: int, why: str = "", reference: str = "") -> bytes:
    """The DISCONNECT that tells a connected client why it is closed; empty before 5.0, where a server sends none.
    ``maximum`` is the client's maximum packet size in bytes, 0 if it has none."""
    if protocol != MQTT5:
        return b""
    properties = _referring(reference)
    if why:
        properties = properties or Properties()
        properties.reason_string = why
    return _fitting(encode(Disconnect(reason, properties), MQTT5), encode(Disconnect(reason), MQTT5), maximum)


def farewell(protocol: int, reference: str, maximum: int) -> bytes:
    """The DISCONNECT of a server that stops, with the server to use instead if there is one (MQTT 5.0 section 4.11)."""
    return goodbye(protocol, USE_ANOTHER_SERVER if reference else SERVER_SHUTTING_DOWN, maximum, "", reference)

