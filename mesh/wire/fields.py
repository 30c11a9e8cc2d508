"""The data types of packet fields (MQTT 5.0 section 1.5): reading them with all checks, and writing them.

It knows integers, strings and binary data; it must never know packets. What always holds: nothing is read beyond the
end of the cursor, and a field that is too short or invalid raises ``ProtocolError`` with 0x81, malformed packet.
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.limits import MAX_REMAINING_LENGTH
from mesh.wire.reasons import MALFORMED_PACKET, ProtocolError

# Each byte as bytes. CPython keeps these 256 objects, so the list costs only its pointers; joining them is the fastest
# way to write small integers, interpreted and compiled.
BYTE: Final[list[bytes]] = [bytes((value,)) for value in range(256)]


def malformed(message: str) -> ProtocolError:
    """The error for a malformed packet."""
    return ProtocolError(MALFORMED_PACKET, message)


def read_text(data: bytes, start: int, end: int, what: str) -> str:
    """The UTF-8 string in ``data[start:end]``, after its length prefix."""
    try:
        text = data[start:end].decode("utf-8")  # rejects surrogates and overlong forms [MQTT-1.5.4-1]
    except UnicodeDecodeError:
        raise malformed(f"the {what} is not well-formed UTF-8") from None
    if "\0" in text:  # [MQTT-1.5.4-2]
        raise malformed(f"the {what} contains the character U+0000")
    return text


def read_length(data: bytes, pos: int, size: int) -> int:
    """The variable byte integer at ``pos``; -1 if it is incomplete at ``size``. ``length_size`` gives its size."""
    value = 0
    shift = 0
    while pos < size:
        byte = data[pos]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise malformed("a variable byte integer has more bytes than necessary")  # [MQTT-1.5.5-1]
            return value
        if shift == 21:
            raise malformed("a variable byte integer has more than four bytes")  # section 1.5.5
        shift += 7
        pos += 1
    return -1


def length_size(length: int) -> int:
    """How many bytes a variable byte integer takes."""
    if length < 0x80:
        return 1
    if length < 0x4000:
        return 2
    return 3 if length < 0x20_0000 else 4


@final
class Cursor:
    """A read position in the bytes of one packet. ``what`` names the field in error messages."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self.data = data
        self.pos = pos
        self.end = end

    def byte(self, what: str) -> int:
        """One byte."""
        pos = self.pos
        if pos >= self.end:
            raise malformed(f"the packet ends before its {what}")
        self.pos = pos + 1
        return self.data[pos]

    def two(self, what: str) -> int:
        """A two byte integer."""
        pos = self.pos
        if pos + 2 > self.end:
            raise malformed(f"the packet ends before its {what}")
        self.pos = pos + 2
        return self.data[pos] << 8 | self.data[pos + 1]

    def four(self, what: str) -> int:
        """A four byte integer."""
        pos = self.pos
        if pos + 4 > self.end:
            raise malformed(f"the packet ends before its {what}")
        self.pos = pos + 4
        data = self.data
        return data[pos] << 24 | data[pos + 1] << 16 | data[pos + 2] << 8 | data[pos + 3]

    def length(self, what: str) -> int:
        """A variable byte integer."""
        value = read_length(self.data, self.pos, self.end)
        if value < 0:
            raise malformed(f"the packet ends before its {what}")
        self.pos += length_size(value)
        return value

    def text(self, what: str) -> str:
        """A UTF-8 string with its length prefix."""
        start = self._prefixed(what)
        return read_text(self.data, start, self.pos, what)

    def binary(self, what: str) -> bytes:
        """Binary data with its length prefix."""
        start = self._prefixed(what)
        return self.data[start : self.pos]

    def _prefixed(self, what: str) -> int:
        size = self.two(what)
        start = self.pos
        if start + size > self.end:
            raise malformed(f"the packet ends inside its {what}")
        self.pos = start + size
        return start

    def finish(self, what: str) -> None:
        """Check that no bytes are left."""
        if self.pos != self.end:
            raise malformed(f"the {what} has {self.end - self.pos} bytes too many at its end")


def write_one(value: int) -> bytes:
    """One byte."""
    if not 0 <= value <= 0xFF:
        raise ValueError(f"{value} does not fit one byte")
    return BYTE[value]


def write_two(value: int) -> bytes:
    """A two byte integer."""
    if not 0 <= value <= 0xFFFF:
        raise ValueError(f"{value} does not fit two bytes")
    return BYTE[value >> 8] + BYTE[value & 0xFF]


def write_four(value: int) -> bytes:
    """A four byte integer."""
    if not 0 <= value <= 0xFFFF_FFFF:
        raise ValueError(f"{value} does not fit four bytes")
    return value.to_bytes(4, "big")


def write_length(value: int) -> bytes:
    """A variable byte integer, section 1.5.5."""
    if 0 <= value < 0x80:
        return BYTE[value]
    if not 0 <= value <= MAX_REMAINING_LENGTH:
        raise ValueError(f"{value} does not fit a variable byte integer: at most {MAX_REMAINING_LENGTH}")
    written = b""
    while value >= 0x80:
        written += BYTE[value & 0x7F | 0x80]
        value >>= 7
    return written + BYTE[value]


def write_binary(value: bytes) -> bytes:
    """Binary data with its length prefix; ``ValueError`` beyond 65,535 bytes."""
    size = len(value)
    if size > 0xFFFF:
        raise ValueError(f"a string or binary field has at most 65535 bytes, not {size}")
    return BYTE[size >> 8] + BYTE[size & 0xFF] + value


def write_text(value: str) -> bytes:
    """A UTF-8 string with its length prefix; ``ValueError`` beyond 65,535 bytes or with a lone surrogate."""
    return write_binary(value.encode("utf-8"))
