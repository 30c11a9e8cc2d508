"""The fingerprint of a packet: the same for each repetition of a packet, also on another connection.

It knows raw packets: never why they are compared. What always holds: DUP and the packet identifier of PUBLISH,
SUBSCRIBE and UNSUBSCRIBE do not count, because a client that sends a packet again may change both.
"""

from __future__ import annotations

import hashlib
from typing import Final

from mesh.edge.breadcrumb import Crumb
from mesh.transport.frame import ATTACH, CLOSE, CREDIT, DATA, LIVE, OPEN, LinkError, Opening
from mesh.wire.fields import length_size, read_length
from mesh.wire.packets import PUBACK, PUBCOMP, PUBLISH, SUBSCRIBE, UNSUBSCRIBE
from mesh.wire.reasons import ProtocolError

# Bytes at the beginning of a packet that count, besides its length. Fewer than a breadcrumb keeps of a frame.
_COUNTED: Final = 1024

_DUP: Final = 0x08
_QOS: Final = 0x06
_FRAMES: Final = {OPEN: "CONNECT", ATTACH: "ATTACH", LIVE: "LIVE", CLOSE: "CLOSE", CREDIT: "CREDIT"}
_ACKS: Final = "run of acknowledgements"
_PACKETS: Final = (
    "packet 0", "CONNECT", "CONNACK", "PUBLISH", _ACKS, _ACKS, _ACKS, _ACKS, "SUBSCRIBE", "SUBACK",
    "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip


def fingerprint(raw: bytes, size: int = 0) -> str:
    """The fingerprint of a packet, 32 hexadecimal digits. ``size`` is the packet's size if ``raw`` is only its
    beginning; the result is empty if too little of it is there."""
    size = size or len(raw)
    if len(raw) < min(size, _COUNTED):
        return ""
    kind = raw[0] >> 4
    place = _identifier(raw)
    digest = hashlib.sha256(f"{size}:".encode())
    digest.update(bytes((raw[0] & ~_DUP if kind == PUBLISH else raw[0],)))
    counted = raw[:_COUNTED]
    digest.update(counted[1:place] + counted[place + 2 :] if place else counted[1:])
    return digest.hexdigest()[:32]


def _identifier(raw: bytes) -> int:
    """Where a packet identifier stands that does not count; 0 if there is none."""
    kind = raw[0] >> 4
    length = read_length(raw, 1, len(raw))
    place = 1 + length_size(length)
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        return place
    if kind == PUBLISH and raw[0] & _QOS and place + 2 <= len(raw):
        return place + 2 + (raw[place] << 8 | raw[place + 1])
    return 0


def packets_of(body: bytes) -> list[bytes]:
    """The packets of a frame. The last one may be cut."""
    found = []
    pos = 0
    while pos < len(body):
        size = _size(body, pos)
        found.append(body[pos : pos + size])
        pos += size
    return found


def _size(body: bytes, pos: int) -> int:
    """The size of the packet at ``pos``; if its length is invalid or cut off, all of the rest."""
    try:
        length = read_length(body, pos + 1, len(body))
    except ProtocolError:
        length = -1
    return len(body) - pos if length < 0 else 1 + length_size(length) + length


def examine(crumb: Crumb) -> tuple[str, str]:
    """The name of what a process handled when it ended (the type of the packet, or else of the frame) and its
    fingerprint, which is empty if it is not known. It is not known for acknowledgements: the breadcrumb names the first
    of several, and one with the same identifier acknowledges another message on the next connection."""
    if crumb.kind == OPEN:
        try:
            connect = Opening.unpack(crumb.body).connect
        except LinkError:  # longer than what was kept
            connect = b""
        return _FRAMES[OPEN], fingerprint(connect, _size(connect, 0)) if connect else ""
    if crumb.kind != DATA:
        return _FRAMES.get(crumb.kind, f"frame {crumb.kind}"), ""
    if not crumb.body:
        return _ACKS, ""
    packets = packets_of(crumb.body)
    if crumb.index >= len(packets):
        return "packet", ""
    raw = packets[crumb.index]
    if PUBACK <= raw[0] >> 4 <= PUBCOMP:
        return _ACKS, ""
    return _PACKETS[raw[0] >> 4], fingerprint(raw, _size(raw, 0)) if len(raw) > 1 else ""
