"""The manifest: which segments a journal has, so that a missing one is noticed.

It knows names, lengths and positions of segments; it must never know items. What always holds:

- A segment is in the manifest before it has a frame, and its file is durable before the manifest names it. So a
  segment that the manifest names and the directory lacks was deleted; one that follows the last named segment was made
  by a process that ended before it could name it, and is empty.
- The manifest stops naming a segment before the file is removed. So a file older than the first named segment is left
  over from cleaning.
- ``length`` and ``position`` of the growing segment were durable when the manifest was written; the segment may have
  grown since. A torn end lies behind them.
- The file is replaced whole: write, sync, rename, sync of the directory. It is written when segments change, at the
  start and at an orderly end, never for a commit.

::

    manifest = head segment* crc:u32
    head     = magic:8 id:16 flags:u32 count:u32 position:u64
    segment  = number:u32 salt:u32 base:u64 length:u64

``id`` is random and stays the same for the life of the journal. The node keeps it in etcd, too (``Mark``), so that an
empty folder is not taken for a new journal.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from isal.isal_zlib import crc32

from mesh.journal.errors import DamageError
from mesh.journal.files import Files, read_whole
from mesh.journal.layout import CRC

NAME: Final = "manifest"
UNFINISHED: Final = "manifest.new"
# Damage that was found while the journal was in use: the journal does not open again until it is salvaged.
DAMAGE: Final = "damage"
# The files of a salvage that is not finished (see ``salvage``).
SALVAGED: Final = "manifest.salvage"
PLAN: Final = "salvage.plan"

_MAGIC: Final = b"MESHMAN1"
_HEAD: Final = Struct("<8s16sIIQ")
_SEGMENT: Final = Struct("<IIQQ")
_ACCEPTED: Final = 1
_ID_BYTES: Final = 16


class Mark(NamedTuple):
    """The proof, kept outside of the directory, that a journal exists: its id in hexadecimal, and a position up to
    which it was durable."""

    id: str
    position: int


class Named(NamedTuple):
    """One segment in the manifest: ``base`` is the last position before it, ``length`` its synced bytes."""

    number: int
    salt: int
    base: int
    length: int


class Manifest(NamedTuple):
    """``segments`` from the oldest to the growing one; ``position`` is the last durable one when this was written.

    ``salvaged``: the journal replaces a damaged one, and may differ from its mark.
    """

    id: bytes
    salvaged: bool
    position: int
    segments: tuple[Named, ...]


def new_id() -> bytes:
    return secrets.token_bytes(_ID_BYTES)


def pack_manifest(manifest: Manifest) -> bytes:
    flags = _ACCEPTED if manifest.salvaged else 0
    parts = [_HEAD.pack(_MAGIC, manifest.id, flags, len(manifest.segments), manifest.position)]
    for number, salt, base, length in manifest.segments:
        parts.append(_SEGMENT.pack(number, salt, base, length))
    data = b"".join(parts)
    return data + CRC.pack(crc32(data))


def parse_manifest(data: bytes) -> Manifest | None:
    """The manifest, or ``None`` when the bytes are not a whole and undamaged one."""
    if len(data) < _HEAD.size + CRC.size or CRC.unpack_from(data, len(data) - CRC.size)[0] != crc32(data[: -CRC.size]):
        return None
    magic, id, flags, count, position = _HEAD.unpack_from(data)
    if magic != _MAGIC or len(data) != _HEAD.size + count * _SEGMENT.size + CRC.size or count == 0:
        return None
    segments = []
    for at in range(_HEAD.size, len(data) - CRC.size, _SEGMENT.size):
        number, salt, base, length = _SEGMENT.unpack_from(data, at)
        segments.append(Named(number, salt, base, length))
    return Manifest(id, bool(flags & _ACCEPTED), position, tuple(segments))


def read_manifest(files: Files, path: Path) -> Manifest | None:
    """The manifest in a file; ``None`` when there is no such file. ``DamageError`` or ``OSError``."""
    try:
        data = read_whole(files, path)
    except FileNotFoundError:
        return None
    manifest = parse_manifest(data)
    if manifest is None:
        raise DamageError(path, 0, "the manifest is damaged")
    return manifest


def load_manifest(files: Files, directory: Path) -> Manifest | None:
    """The manifest of a journal; ``None`` for a journal of a version that wrote none, and for no journal."""
    return read_manifest(files, directory / NAME)


def write_new(files: Files, path: Path, data: bytes) -> None:
    """Write and sync a file; one of this name is replaced. The name is not synced."""
    try:
        handle = files.open(path, create=True)
    except FileExistsError:  # left by a failed attempt
        files.unlink(path)
        handle = files.open(path, create=True)
    try:
        files.write(handle, [data], 0)
        files.sync(handle)
    finally:
        files.close(handle)


def save_manifest(files: Files, directory: Path, manifest: Manifest) -> None:
    """Replace the manifest. After ``OSError`` the old or the new one is there, whole; the call can be repeated."""
    write_new(files, directory / UNFINISHED, pack_manifest(manifest))
    files.replace(directory / UNFINISHED, directory / NAME)
    files.sync_directory(directory)


def note_damage(files: Files, directory: Path, text: str) -> None:
    """Note damage for the next start. ``OSError`` when that is not durable."""
    write_new(files, directory / DAMAGE, text.encode())
    files.sync_directory(directory)


def noted_damage(files: Files, directory: Path) -> str:
    """The text of the note."""
    return read_whole(files, directory / DAMAGE).decode(errors="replace")


def describe(missing: Named, following: int) -> str:
    """What a missing segment had; ``following`` is the last position before the next segment, 0 if unknown."""
    if following > missing.base:
        return f"records {missing.base + 1} to {following} were in it"
    return f"records from {missing.base + 1} on were in it"
