"""The breadcrumb: which frame of which door the edge handles at this moment, in memory that outlives the process.

It knows frames and their positions in a block of memory: never why a process ended, nor what that means for a client.
What always holds: ``begin`` is called before a frame is handled, and ``end`` after the last of the frames that came
together, so the block names a frame only if the process ended while it handled that frame, or (``resume`` to ``rest``)
while it did later work on one of its packets; during work that belongs to no frame (timers, the end of a turn) it names
none.

A restart of the machine loses the block (``node/block.py``), and no client is to blame for that.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final, final

from mypy_extensions import i64

from mesh.node.block import lay_block, read_block, remove_block
from mesh.transport.frame import DATA
from mesh.transport.handshake import INSTANCE
from mesh.wire.packets import PUBACK, PUBCOMP

# Bytes of a frame that are kept. Most frames are smaller; a larger one is recognised by its beginning.
KEPT: Final = 4096

# Positions in the block, behind the bytes of the frame: to write those from 0 on takes a third fewer instructions.
# First the words of ``begin`` and ``packet``, then fields with their length before them.
_WORDS: Final = struct.Struct("=QQ")
_WORD: Final = KEPT
_TOKEN: Final = _WORD + _WORDS.size
_SOURCE: Final = _TOKEN + 80
_MAGIC: Final = b"mesh breadcrumb2"
_END: Final = _SOURCE + 128
_SIZE: Final = _END + len(_MAGIC)
_TEXT: Final = _END - _SOURCE - 1  # bytes of the longest field: an instance and the name of a door
_NAME: Final = "breadcrumb"


@final
class Breadcrumb:
    """Writes the block: 0.1 microseconds for a frame, and 0.02 for each further packet that is named (compiled)."""

    __slots__ = ("_before", "_index", "_left_out", "_memory", "_source", "_word", "_words")

    def __init__(self, memory: mmap.mmap, token: str = "") -> None:
        """``token`` identifies this process."""
        self._memory = memory
        self._words = memoryview(memory)[_WORD : _WORD + _WORDS.size].cast("Q")
        self._source = b""
        self._before = b""
        self._index = 0
        self._word: i64 = 0  # of this frame, without the bytes that are kept of it
        self._left_out: bytes | None = None  # this frame, if it is not written yet
        memory[_END:_SIZE] = _MAGIC
        self._put(_TOKEN, token.encode()[: _SOURCE - _TOKEN - 1])

    def _put(self, place: int, text: bytes) -> None:
        self._memory[place : place + 1 + len(text)] = bytes((len(text),)) + text

    def follow(self, source: bytes) -> None:
        """The next frames come from the door with this ``source_of``. Called for each read, and cheap if it is the
        door of the read before."""
        if source is not self._source:
            self._source = source
            self._put(_SOURCE, source)

    def begin(self, kind: int, connection: int, body: bytes) -> None:
        """A frame is about to be handled."""
        if self._index:
            self._index = 0
            self._words[1] = 0
        word: i64 = connection  # a shift of a Python integer is a call
        word = word << 4 | kind
        self._word = word << 16
        if kind == DATA and len(body) > 0 and PUBACK <= body[0] >> 4 <= PUBCOMP:
            # Each write takes as many instructions as a tenth of what an acknowledgement causes, and most frames have
            # nothing else: the bytes follow if there is another packet.
            self._left_out = body
            self._words[0] = self._word
        else:
            self._write(body)

    def _write(self, body: bytes) -> None:
        size = len(body)
        if size > KEPT:
            size = KEPT
            body = body[:KEPT]
        self._left_out = None
        self._memory[:size] = body
        self._words[0] = self._word | size

    def packet(self, index: int) -> None:
        """The packet ``index`` of this frame is about to be handled; ``begin`` stands for the first one, 0. Of
        acknowledgements that follow one another, only the first is named."""
        self._index = index
        self._words[1] = index
        if self._left_out is not None:
            self._write(self._left_out)

    def end(self) -> None:
        """All frames that came have been handled."""
        self._left_out = None
        self._words[0] = 0

    def resume(self, source: bytes, connection: int, body: bytes, index: int) -> None:
        """Work on the packet ``index`` of an earlier frame of packets goes on, until ``rest``."""
        self._before = self._source
        self.follow(source)
        self.begin(DATA, connection, body)
        if index:
            self.packet(index)

    def rest(self) -> None:
        """That work stops for now. It may have come between two frames of one read."""
        self.end()
        self.follow(self._before)


@final
class Crumb:
    """What a process left: the frame that it handled when it ended. ``token`` identifies the process; ``index`` is the
    position in the frame of the packet that it handled; ``body`` may be the beginning of the frame only (``KEPT``), and
    is empty at acknowledgements at the beginning of a frame."""

    __slots__ = ("body", "connection", "door", "index", "instance", "kind", "token")

    def __init__(
        self, token: str, door: str, instance: bytes, connection: int, kind: int, index: int, body: bytes
    ) -> None:
        self.token = token
        self.door = door
        self.instance = instance
        self.connection = connection
        self.kind = kind
        self.index = index
        self.body = body


def source_of(door: str, instance: bytes) -> bytes:
    """What the block says of a door's process. A door's name may be cut: the instance tells doors apart."""
    return instance + door.encode()[: _TEXT - INSTANCE]


def no_breadcrumb() -> Breadcrumb:
    """A breadcrumb that ends with the process."""
    return Breadcrumb(mmap.mmap(-1, _SIZE))


def lay_breadcrumb(folder: Path, token: str) -> Breadcrumb:
    """A new breadcrumb of the node with this folder; the old one is removed. Raises ``OSError``."""
    return Breadcrumb(lay_block(folder / _NAME, _SIZE), token)


def remove_breadcrumb(folder: Path) -> None:
    """Remove the breadcrumb of the node with this folder, if there is one."""
    remove_block(folder / _NAME)


def last_crumb(folder: Path) -> Crumb | None:
    """The frame that the process before this one handled when it ended; ``None`` if it handled none."""
    return _read(read_block(folder / _NAME))


def _read(block: bytes) -> Crumb | None:
    if len(block) != _SIZE or not block.endswith(_MAGIC):
        return None
    word, index = _WORDS.unpack_from(block, _WORD)
    source = _field(block, _SOURCE)
    if word == 0 or len(source) < INSTANCE:
        return None
    body = block[: min(word & 0xFFFF, KEPT)]
    door = source[INSTANCE:].decode(errors="replace")
    token = _field(block, _TOKEN).decode(errors="replace")
    return Crumb(token, door, source[:INSTANCE], word >> 20, word >> 16 & 0xF, index, body)


def _field(block: bytes, place: int) -> bytes:
    return block[place + 1 : place + 1 + block[place]]
