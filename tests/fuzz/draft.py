"""A control packet as a list of fields, so that a mutation can change single fields before the packet becomes bytes.

It knows how to encode a field, and no rule of MQTT: ``generate`` follows the rules, and ``mutate`` breaks them. It does
not use ``mesh.wire``, so an error there cannot hide an error here.
"""

from __future__ import annotations

from typing import Final

# Kinds of fields. Text, binary data and property lists get their length when the packet is assembled, so a mutated
# value still has the right length.
TEXT: Final = 0
BINARY: Final = 1
NUMBER: Final = 2  # of one, two or four bytes
IDENTIFIER: Final = 3  # a packet identifier
PROPERTIES: Final = 4
PAYLOAD: Final = 5  # the rest, unchanged
CODE: Final = 6  # a reason code, flags or options: one byte of which some values mean something

Property = tuple[int, bytes]
Field = tuple[int, "bytes | list[Property]"]


class Draft:
    """``first`` is the first byte of the fixed header."""

    __slots__ = ("fields", "first")

    def __init__(self, first: int, fields: list[Field]) -> None:
        self.first = first
        self.fields = fields

    def copy(self) -> Draft:
        """A copy whose fields may be changed."""
        return Draft(self.first, list(self.fields))


def two(value: int) -> bytes:
    """A two byte integer."""
    return value.to_bytes(2, "big")


def four(value: int) -> bytes:
    """A four byte integer."""
    return value.to_bytes(4, "big")


def length(value: int) -> bytes:
    """A variable byte integer."""
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def framed(data: bytes) -> bytes:
    """Text or binary data with its two bytes of length, cut to 65,535 bytes."""
    data = data[:0xFFFF]
    return two(len(data)) + data


def listed(properties: list[Property]) -> bytes:
    """A property list with its length."""
    data = b"".join([bytes((identifier,)) + value for identifier, value in properties])
    return length(len(data)) + data


def field_bytes(field: Field) -> bytes:
    """The encoded field."""
    kind, value = field
    if isinstance(value, list):
        return listed(value)
    return framed(value) if kind <= BINARY else value


def assemble(draft: Draft) -> bytes:
    """The whole packet, with the right remaining length."""
    body = b"".join([field_bytes(field) for field in draft.fields])
    return bytes((draft.first,)) + length(len(body)) + body
