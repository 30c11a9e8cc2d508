"""The bytes of a journal's files. Little endian throughout.

It knows the layout of records, frames and segment headers; it must never know why one is written or in which file.

::

    segment = header frame*
    header  = magic:8 number:u32 salt:u32 base:u64 before:u64 crc:u32
    frame   = magic:u32 head_crc:u32 length:u32 count:u32 first:u64 crc:u32 record*      one committed batch
    put     = 1:u8 kind:u8 meta_length:u32 body_length:u32 id:u64 owner:u64 meta body crc:u32
    drop    = 2:u8 id:u64

What always holds:

- The records of a frame have the sequence numbers ``first``, ``first + 1``, … A put whose ``id`` is its own sequence
  number is an original; any other put is a copy that cleaning made, the same byte for byte.
- ``base`` is the last sequence number before the segment, ``before`` the synced length of the previous segment. Bytes
  of that file beyond ``before`` were never acknowledged and are not part of the log.
- Both checksums of a frame start from the segment's random ``salt``. Neither a client's payload nor old content of a
  reused file can be mistaken for a frame: no client knows the salt, and each segment has its own.
- A *stub* is a put without body and checksum, or a whole drop: the part of a record that the index keeps.
"""

from __future__ import annotations

from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from isal.isal_zlib import crc32

PUT: Final = 1
DROP: Final = 2

PUT_HEAD: Final = Struct("<BBIIQQ")
DROP_RECORD: Final = Struct("<BQ")
CRC: Final = Struct("<I")
FRAME: Final = Struct("<IIIIQI")
HEADER: Final = Struct("<8sIIQQI")

PUT_HEAD_SIZE: Final = PUT_HEAD.size
PUT_SIZE: Final = PUT_HEAD.size + CRC.size
DROP_SIZE: Final = DROP_RECORD.size
FRAME_SIZE: Final = FRAME.size
HEADER_SIZE: Final = HEADER.size

MAGIC: Final = b"MESHLOG2"
FRAME_MAGIC: Final = 0x4D46524D
FRAME_MARK: Final = CRC.pack(FRAME_MAGIC)

# A place is segment << 64 | offset << 32 | length: one integer for each live item, and one read for its body.
SEGMENT_SHIFT: Final = 64
OFFSET_SHIFT: Final = 32
PLACE_MASK: Final = (1 << 32) - 1


class Header(NamedTuple):
    """The first bytes of a segment."""

    number: int
    salt: int
    base: int
    before: int


class FrameHead(NamedTuple):
    """The first bytes of a frame: payload bytes, records, sequence number of the first, checksum of the payload."""

    length: int
    records: int
    first: int
    crc: int


# id, offset << 32 | length in the segment (0 for a drop), kind, owner, where the stub starts in the data, its length
Entry = tuple[int, int, int, int, int, int]


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}.log"


def spare_path(directory: Path) -> Path:
    """The file of a removed segment, kept to become the next segment."""
    return directory / "spare"


def pack_header(header: Header) -> bytes:
    data = HEADER.pack(MAGIC, header.number, header.salt, header.base, header.before, 0)[: -CRC.size]
    return data + CRC.pack(crc32(data))


def parse_header(data: bytes) -> Header | None:
    """The header, or ``None`` when the bytes are not a whole and undamaged header."""
    if len(data) != HEADER_SIZE:
        return None
    magic, number, salt, base, before, crc = HEADER.unpack(data)
    if magic != MAGIC or crc != crc32(data[: -CRC.size]):
        return None
    return Header(number, salt, base, before)


def pack_frame(salt: int, payload: bytes, count: int, first: int) -> bytes:
    """The head of the frame that holds ``payload``."""
    head = FRAME.pack(FRAME_MAGIC, 0, len(payload), count, first, crc32(payload, salt))
    return head[:4] + CRC.pack(crc32(head[8:], salt)) + head[8:]


def parse_frame(salt: int, data: bytes) -> FrameHead | None:
    """The head of a frame, or ``None`` when the bytes are not a whole and undamaged head of this segment."""
    if len(data) != FRAME_SIZE:
        return None
    magic, head_crc, length, count, first, crc = FRAME.unpack(data)
    if magic != FRAME_MAGIC or head_crc != crc32(data[8:], salt):
        return None
    return FrameHead(length, count, first, crc)


def parse_records(data: bytes, count: int, offset: int, bodies: bool) -> tuple[list[Entry], int]:
    """The records in ``data`` and the offset behind the last one; ``offset`` is where the first starts in the segment.

    Without ``bodies`` the data is stubs. ``ValueError`` when it is not exactly ``count`` records.
    """
    entries: list[Entry] = []
    at = 0
    end = len(data)
    for _ in range(count):
        if at < end and data[at] == DROP and at + DROP_SIZE <= end:
            entries.append((DROP_RECORD.unpack_from(data, at)[1], 0, 0, 0, at, DROP_SIZE))
            at += DROP_SIZE
            offset += DROP_SIZE
        elif at < end and data[at] == PUT and at + PUT_HEAD_SIZE <= end:
            _, kind, meta_length, body_length, id, owner = PUT_HEAD.unpack_from(data, at)
            stub = PUT_HEAD_SIZE + meta_length
            length = stub + body_length + CRC.size
            entries.append((id, offset << OFFSET_SHIFT | length, kind, owner, at, stub))
            at += length if bodies else stub
            offset += length
        else:
            raise ValueError(f"no record at byte {at} of {end}")
    if at != end:
        raise ValueError(f"{count} records end at byte {at}, not at {end}")
    return entries, offset


def is_intact(record: bytes) -> bool:
    """Whether a put, with its checksum, is undamaged."""
    return len(record) >= PUT_SIZE and CRC.unpack_from(record, len(record) - CRC.size)[0] == crc32(record[: -CRC.size])


def body_of(record: bytes) -> bytes:
    """The body of a put without its checksum."""
    return record[PUT_HEAD_SIZE + (record[2] | record[3] << 8 | record[4] << 16 | record[5] << 24) :]
