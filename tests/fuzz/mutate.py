"""Mutates valid sequences: single fields, whole packets, and bytes.

It knows the usual errors of implementations: boundaries, lengths, UTF-8, identifiers, misplaced or repeated properties.
It must never know how the server handles them. What always holds: the same seed makes the same mutations; the result is
the bytes of the packets, one entry each.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from tests.fuzz.draft import (
    BINARY,
    CODE,
    IDENTIFIER,
    NUMBER,
    PAYLOAD,
    PROPERTIES,
    TEXT,
    Draft,
    Property,
    assemble,
    field_bytes,
    four,
    framed,
    length,
    two,
)

# The share of packets that are mutated. The server handles more of a sequence with few mutations.
CALM: Final = 0.0
LIGHT: Final = 0.03
ROUGH: Final = 0.15
WILD: Final = 0.5

_BAD_TEXTS: Final = [
    b"", b"\x00", b"a\x00b", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf",
    b"\xff", b"\xc3", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xef\xbf\xbf", b"\xef\xbb\xbf", b"#", b"+",
    b"a/#/b", b"a+", b"$SYS/x", b"$share/g", b"$share//a", b"$share/+/a", b"/" * 127, b"/" * 128, b"y" * 1000,
    b"../../etc/passwd", b"a\nb ERROR forged",
]  # fmt: skip
# The longest text, and a little less, so that a server that adds a prefix may exceed the limit.
_HUGE_TEXTS: Final = [b"z" * 65_535, b"/z" * 10 + b"z" * 65_500, b"\xc3\xa4" * 32_767, b"z" * 60_000]
_LENGTHS: Final = [
    b"\x00", b"\x01", b"\x7f", b"\x80\x01", b"\xff\x7f", b"\xff\xff\x7f", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80\x01",
    b"\xff\xff\xff\xff\x7f", b"\x80\x00", b"\x80\x80\x00", b"\x81\x80\x80\x00", b"\xff\xff\xff\xff\xff",
]  # fmt: skip
_BYTES: Final = (0, 1, 2, 3, 4, 5, 0x10, 0x7F, 0x80, 0x81, 0xFE, 0xFF)
_TWOS: Final = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
_FOURS: Final = (0, 1, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_IDENTIFIERS: Final = (0, 1, 2, 3, 7, 255, 256, 65_534, 65_535)
# One well-formed value for each property, to insert in wrong places.
_ALL_PROPERTIES: Final[list[Property]] = [
    (0x01, b"\x01"), (0x02, four(1)), (0x03, framed(b"c")), (0x08, framed(b"r")), (0x09, framed(b"d")),
    (0x0B, length(1)), (0x11, four(1)), (0x12, framed(b"i")), (0x13, two(1)), (0x15, framed(b"m")),
    (0x16, framed(b"d")), (0x17, b"\x01"), (0x18, four(1)), (0x19, b"\x01"), (0x1A, framed(b"r")),
    (0x1C, framed(b"s")), (0x1F, framed(b"r")), (0x21, two(1)), (0x22, two(1)), (0x23, two(1)), (0x24, b"\x01"),
    (0x25, b"\x01"), (0x26, framed(b"k") + framed(b"v")), (0x27, four(1)), (0x28, b"\x01"), (0x29, b"\x01"),
    (0x2A, b"\x01"), (0x00, b""), (0x04, b"\x00"), (0x7F, b"\x00"), (0x80, b"\x01\x00"), (0xFF, b"\xff\x7f"),
]  # fmt: skip


# Fields


def _mutate_text(dice: Random, value: bytes) -> bytes | None:
    """Another text, or ``None`` for a wrong length before it."""
    what = dice.randrange(8)
    if what < 4:
        return dice.choice(_BAD_TEXTS)
    if what == 4:
        at = dice.randrange(len(value) + 1)
        return value[:at] + dice.choice(_BAD_TEXTS) + value[at:]
    if what == 5:
        return value[: dice.randrange(len(value) + 1)]
    if what == 6 and dice.random() < 0.4:
        return _huge(dice, value)
    return None


def _huge(dice: Random, value: bytes) -> bytes:
    """The longest text, mostly with the old text as its beginning, as permissions may require that prefix."""
    huge = dice.choice(_HUGE_TEXTS)
    if dice.random() < 0.3:
        return huge
    size = 65_535 - len(value)
    return value + huge[: size - size % 2]


def _misframed(dice: Random, value: bytes) -> bytes:
    size = len(value)
    said = dice.choice((0, 1, size + 1, max(0, size - 1), size + 255, 0xFFFF, dice.randrange(0x10000)))
    return two(said & 0xFFFF) + value


def _mutate_number(dice: Random, value: bytes) -> bytes:
    size = len(value)
    if dice.random() < 0.1:
        return dice.randbytes(dice.randrange(6))
    if size == 1:
        return bytes((dice.choice(_BYTES),))
    return two(dice.choice(_TWOS)) if size == 2 else four(dice.choice(_FOURS))


def _mutate_properties(dice: Random, properties: list[Property]) -> list[Property] | bytes:
    """Another list, or the bytes of a list with a wrong length."""
    what = dice.randrange(9)
    changed = list(properties)
    if what <= 2:
        changed.insert(dice.randrange(len(changed) + 1), dice.choice(_ALL_PROPERTIES))
    elif what == 3 and changed:
        changed.append(dice.choice(changed))
    elif what == 4 and changed:
        at = dice.randrange(len(changed))
        changed[at] = (changed[at][0], _mutate_number(dice, changed[at][1][:4]))
    elif what == 5 and changed:
        dice.shuffle(changed)
        changed.pop()
    elif what == 6:
        changed += [(0x26, framed(b"k") + framed(b"v"))] * dice.choice((1, 99, 100, 101))
    elif what == 7:
        data = b"".join([bytes((identifier,)) + value for identifier, value in changed])
        return dice.choice(_LENGTHS) + data
    else:
        changed.append((dice.randrange(256), dice.randbytes(dice.randrange(8))))
    return changed


def _mutate_field(dice: Random, draft: Draft) -> None:
    """Change or move one field."""
    fields = draft.fields
    at = dice.randrange(len(fields))
    kind, value = fields[at]
    if dice.random() < 0.1:
        _misplace(dice, draft, at)
    elif kind == PROPERTIES and isinstance(value, list):
        changed = _mutate_properties(dice, value)
        fields[at] = (PROPERTIES, changed) if isinstance(changed, list) else (PAYLOAD, changed)
    elif isinstance(value, list):
        fields.pop(at)
    elif kind in (TEXT, BINARY):
        text = _mutate_text(dice, value)
        fields[at] = (PAYLOAD, _misframed(dice, value)) if text is None else (kind, text)
    elif kind == IDENTIFIER:
        fields[at] = (IDENTIFIER, two(dice.choice(_IDENTIFIERS)))
    elif kind == CODE:
        fields[at] = (CODE, bytes((value[0] ^ 1 << dice.randrange(8) if dice.random() < 0.5 else dice.choice(_BYTES),)))
    elif kind == NUMBER:
        fields[at] = (NUMBER, _mutate_number(dice, value))
    else:
        fields[at] = (kind, dice.randbytes(dice.choice((0, 1, 50, 2000))))


def _misplace(dice: Random, draft: Draft, at: int) -> None:
    """Remove, repeat or move a field."""
    fields = draft.fields
    what = dice.randrange(3)
    if what == 0:
        fields.pop(at)
    elif what == 1:
        fields.insert(at, fields[at])
    else:
        fields.insert(dice.randrange(len(fields)), fields.pop(at))


def _mutate_head(dice: Random, draft: Draft) -> None:
    """The type, QoS, DUP and RETAIN of the first byte."""
    what = dice.randrange(4)
    if what == 0:
        draft.first = draft.first & 0xF0 | dice.randrange(16)
    elif what == 1:
        draft.first |= 0x06
    elif what == 2:
        draft.first ^= 1 << dice.randrange(8)
    else:
        draft.first = dice.randrange(256)


def _mislength(dice: Random, draft: Draft) -> bytes:
    """A packet with a wrong remaining length."""
    body = b"".join([field_bytes(field) for field in draft.fields])
    first = bytes((draft.first,))
    what = dice.randrange(4)
    if what == 0:
        return first + dice.choice(_LENGTHS) + body
    if what == 1:
        return first + length(len(body) + dice.randint(1, 10)) + body
    if what == 2 and body:
        return first + length(dice.randrange(len(body))) + body
    return first + length(len(body)) + body[: dice.randrange(len(body) + 1)]


# Bytes


def _flip(dice: Random, data: bytearray) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _insert(dice: Random, data: bytearray) -> None:
    at = dice.randrange(len(data) + 1)
    data[at:at] = dice.randbytes(dice.randint(1, 4))


def _delete(dice: Random, data: bytearray) -> None:
    if data:
        at = dice.randrange(len(data))
        del data[at : at + dice.randint(1, 4)]


def _overwrite(dice: Random, data: bytearray) -> None:
    at = dice.randrange(len(data) + 1)
    data[at : at + 4] = dice.randbytes(4)


_ON_BYTES: Final[list[Callable[[Random, bytearray], None]]] = [_flip, _flip, _insert, _delete, _overwrite]


def mutate_bytes(dice: Random, raw: bytes) -> bytes:
    """The same packet with some bits or bytes changed."""
    data = bytearray(raw)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        dice.choice(_ON_BYTES)(dice, data)
    return bytes(data)


def mutate_packet(dice: Random, draft: Draft) -> bytes:
    """The bytes of one packet after a mutation."""
    draft = draft.copy()
    what = dice.random()
    if what < 0.6 and draft.fields:
        _mutate_field(dice, draft)
        return assemble(draft)
    if what < 0.72:
        _mutate_head(dice, draft)
        return assemble(draft)
    if what < 0.8:
        return _mislength(dice, draft)
    if what < 0.97:
        return mutate_bytes(dice, assemble(draft))
    return dice.randbytes(dice.randint(1, 40))


# Sequences


def _drop(dice: Random, drafts: list[Draft], other: list[Draft]) -> None:
    drafts.pop(dice.randrange(len(drafts)))


def _repeat(dice: Random, drafts: list[Draft], other: list[Draft]) -> None:
    at = dice.randrange(len(drafts))
    drafts[at:at] = [drafts[at]] * dice.choice((1, 1, 3, 20))


def _swap(dice: Random, drafts: list[Draft], other: list[Draft]) -> None:
    one, two = dice.randrange(len(drafts)), dice.randrange(len(drafts))
    drafts[one], drafts[two] = drafts[two], drafts[one]


def _splice(dice: Random, drafts: list[Draft], other: list[Draft]) -> None:
    """Insert a part of another client's sequence, perhaps of another protocol version."""
    at, start = dice.randrange(len(drafts)), dice.randrange(len(other))
    drafts[at:at] = other[start : start + dice.randint(1, 10)]


def _truncate(dice: Random, drafts: list[Draft], other: list[Draft]) -> None:
    del drafts[dice.randint(len(drafts) // 2, len(drafts)) :]


def _go_on_as(dice: Random, drafts: list[Draft], other: list[Draft]) -> None:
    """Replace the rest by packets of the other sequence without CONNECT."""
    at = dice.randrange(1, len(drafts) + 1)
    drafts[at:] = [draft for draft in other[at:] if draft.first != 0x10]


_ON_SEQUENCES: Final[list[Callable[[Random, list[Draft], list[Draft]], None]]] = [
    _drop, _repeat, _repeat, _swap, _splice, _truncate, _go_on_as,
]  # fmt: skip


def mutate(dice: Random, drafts: list[Draft], other: list[Draft], rate: float) -> list[bytes]:
    """The packets of ``drafts``, with mutations of packets and of their order; ``other`` is a sequence to splice in."""
    if rate:
        drafts = list(drafts)
        for _ in range(dice.choice((0, 1, 1, 2, 4))):
            if len(drafts) > 1:
                dice.choice(_ON_SEQUENCES)(dice, drafts, other)
    return [mutate_packet(dice, draft) if rate and dice.random() < rate else assemble(draft) for draft in drafts]


def pieces(dice: Random, data: bytes) -> list[bytes]:
    """The same bytes cut at random places; mostly they stay whole."""
    if dice.random() < 0.7 or len(data) < 2:
        return [data]
    count = dice.choice((1, 1, 2, 5, len(data) if len(data) < 64 else 8))
    cuts = sorted(dice.randrange(1, len(data)) for _ in range(count))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
