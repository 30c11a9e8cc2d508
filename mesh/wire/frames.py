"""Whole packets as raw bytes, for nodes that forward them without decoding them.

It knows the fixed header (MQTT 5.0 section 2.1) and the positions of identifiers and the topic name; it must never know
more of a packet. What always holds for ``Framer``: only the packet in progress is buffered, and it is never longer than
the limit.
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.fields import BYTE, length_size, read_length
from mesh.wire.packets import MQTT5
from mesh.wire.partial import Partial, too_large
from mesh.wire.reasons import ProtocolError

_DUP: Final = 0x08


@final
class Framer(Partial):
    """Splits a stream into whole packets without decoding them. ``largest``: bytes of a packet, header included."""

    __slots__ = ("largest",)

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that ``data`` completes. After an invalid packet ``error`` is set, and no more are returned."""
        packets: list[bytes] = []
        if self.error is not None:
            return packets
        partial = self._partial
        if partial is not None:
            data = self._joined(partial, data)
            if not data:
                return packets
        try:
            self._cut(data, packets)
        except ProtocolError as error:
            self.error = error
        return packets

    def _cut(self, data: bytes, packets: list[bytes]) -> None:
        size = len(data)
        pos = 0
        while pos < size:
            length = read_length(data, pos + 1, size)
            if length < 0:
                self._keep(data, pos, size - pos + 1)
                return
            whole = 1 + length_size(length) + length
            if whole > self.largest:
                raise too_large(whole, self.largest)
            end = pos + whole
            if end > size:
                self._keep(data, pos, whole)
                return
            packets.append(data if whole == size else data[pos:end])
            pos = end


@final
class Splitter:
    """Takes whole packets from a stream one at a time; the bytes after them stay undivided."""

    __slots__ = ("_bytes", "_need")

    def __init__(self) -> None:
        self._bytes = bytearray()  # grows in place: not copied for each byte that arrives
        self._need = 2  # bytes needed for the next step

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._bytes += data

    def size(self) -> int:
        """How many bytes are buffered."""
        return len(self._bytes)

    def take(self, largest: int) -> bytes:
        """The next packet; empty if it is not complete. Raises ``ProtocolError`` if it announces more than ``largest``
        bytes, header included, or a length of more than four bytes."""
        kept = self._bytes
        size = len(kept)
        if size < self._need:
            return b""
        length = read_length(bytes(kept[:5]), 1, min(size, 5))
        if length < 0:
            self._need = size + 1
            return b""
        whole = 1 + length_size(length) + length
        if whole > largest:
            raise too_large(whole, largest)
        if size < whole:
            self._need = whole
            return b""
        packet = bytes(kept[:whole])
        del kept[:whole]
        self._need = 2
        return packet

    def rest(self) -> bytes:
        """Take all buffered bytes."""
        rest = bytes(self._bytes)
        self._bytes.clear()
        self._need = 2
        return rest


def publish_packet_id(raw: bytes) -> int:
    """The packet identifier of a raw PUBLISH; 0 for QoS 0 or if the packet is too short."""
    if raw[0] & 0x06 == 0:
        return 0
    pos = _body(raw)
    size = len(raw)
    if pos + 2 > size:
        return 0
    pos += 2 + (raw[pos] << 8 | raw[pos + 1])
    return raw[pos] << 8 | raw[pos + 1] if pos + 2 <= size else 0


def publish_topic(raw: bytes) -> str:
    """The topic name of a raw PUBLISH that is known to be well formed."""
    pos = _body(raw)
    return raw[pos + 2 : pos + 2 + (raw[pos] << 8 | raw[pos + 1])].decode(errors="replace")


def connect_client_id(raw: bytes) -> str:
    """The client identifier of a raw CONNECT that is known to be well formed; empty if the server is to assign one."""
    pos = _body(raw)
    pos += 2 + (raw[pos] << 8 | raw[pos + 1])  # the protocol name
    protocol = raw[pos]
    pos += 4  # protocol version, flags, keep alive
    if protocol == MQTT5:
        length = read_length(raw, pos, len(raw))
        pos += length_size(length) + length
    return raw[pos + 2 : pos + 2 + (raw[pos] << 8 | raw[pos + 1])].decode(errors="replace")


def ack_packet_id(raw: bytes) -> int:
    """The packet identifier of any raw packet whose body starts with it: PUBACK to UNSUBACK; 0 if it is too short."""
    pos = _body(raw)
    return raw[pos] << 8 | raw[pos + 1] if pos + 2 <= len(raw) else 0


def ack_reason(raw: bytes) -> int:
    """The reason code of a raw PUBACK, PUBREC, PUBREL or PUBCOMP of any version; 0 if it is left out."""
    pos = _body(raw) + 2
    return raw[pos] if pos < len(raw) else 0


def with_dup(raw: bytes) -> bytes:
    """A raw PUBLISH with its DUP flag set [MQTT-3.3.1-1]."""
    return BYTE[raw[0] | _DUP] + raw[1:]


def _body(raw: bytes) -> int:
    """The position of the variable header."""
    pos = 1
    while pos < len(raw) and raw[pos] >= 0x80:
        pos += 1
    return pos + 1
