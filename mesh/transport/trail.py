"""The trail: which packet of a peer this process handles at this moment, in memory that may outlive the process.

The peers are those whose connections end with this process and who send their packets again by themselves: back ends
and edges at a core, cores at an edge. It knows the bytes of one read and positions in a block of memory: never why a
process ended (``node/poison.py``). What always holds: the block names a packet only if the process ended while it
handled that packet; in work that belongs to no packet it names none.

A read is copied once, not each packet of it, and a packet costs the writing of one number: a tenth of what a publish
takes. So a node has a trail only when it looks for such a packet (``node/poison.py``).
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from typing import Final, final

from mesh.wire.encode import encode
from mesh.wire.fields import length_size, read_length
from mesh.wire.packets import MQTT5, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, Packet, Publish, Subscribe, Unsubscribe
from mesh.wire.partial import Partial
from mesh.wire.reasons import ProtocolError

READ: Final = 128 * 1024  # bytes of one read that are kept; the largest portion of a stream
HEAD: Final = 8192  # bytes that are kept of a packet that began in an earlier read

# Bytes of a payload, or of filters, that count for the fingerprint, besides their length.
_COUNTED: Final = 1024

_MAGIC: Final = b"mesh trail 00001"
_TOKEN: Final = 16  # positions in the block; token and source begin with their lengths
_SOURCE: Final = 96
_LONGEST: Final = 200  # bytes of a source; a longer one is cut
_STATE: Final = 320
_SIZE: Final = 328
_PROTOCOL: Final = 336
_BEGUN: Final = 344
_HEAD: Final = 384
_BODY: Final = _HEAD + HEAD
BLOCK: Final = _BODY + READ
_WORDS: Final = struct.Struct("=QQQQ")

# ``_STATE``: 0, READING, or the index of the packet in the read and ``_FIRST``.
_READING: Final = 1
_FIRST: Final = 2

_QOS: Final = 0x06
_NAMES: Final = {SUBSCRIBE: "SUBSCRIBE", UNSUBSCRIBE: "UNSUBSCRIBE"}


@final
class Trail:
    """Writes the block. ``refused``: the fingerprints of packets that are not handled again."""

    __slots__ = ("_index", "_memory", "_source", "_words", "refused")

    def __init__(self, memory: mmap.mmap, token: str = "") -> None:
        """``token`` identifies this process."""
        self.refused: frozenset[str] = frozenset()
        self._memory = memory
        self._words = memoryview(memory).cast("Q")
        self._source = b""
        self._index = 0
        memory[: len(_MAGIC)] = _MAGIC
        self._put(_TOKEN, token.encode()[: _SOURCE - _TOKEN - 1])

    def _put(self, place: int, text: bytes) -> None:
        self._memory[place : place + 1 + len(text)] = bytes((len(text),)) + text

    def begin(self, source: bytes, protocol: int, reader: Partial, data: bytes) -> None:
        """``reader`` is about to get bytes of the peer ``source``."""
        words = self._words
        if source is not self._source:
            self._source = source
            self._put(_SOURCE, source[:_LONGEST])
        begun = reader.pending
        if begun:
            head = reader.head(HEAD)
            self._memory[_HEAD : _HEAD + len(head)] = head
        size = len(data)
        if size > READ:
            size = READ
            data = data[:READ]
        self._memory[_BODY : _BODY + size] = data
        words[_BEGUN // 8] = begun
        words[_SIZE // 8] = size
        words[_PROTOCOL // 8] = protocol
        words[_STATE // 8] = _READING
        self._index = 0

    def handle(self) -> None:
        """The next packet of the read is about to be handled."""
        self._words[_STATE // 8] = _FIRST + self._index

    def next(self) -> None:
        """A packet of the read was handled. ``handle`` follows at once, or ``rest``."""
        self._index += 1

    def rest(self) -> None:
        """No packet is being handled."""
        self._words[_STATE // 8] = _READING

    def end(self) -> None:
        """All packets of the read were handled."""
        self._words[_STATE // 8] = 0

    def refuses(self, packet: Packet, protocol: int) -> bool:
        """Whether a packet is one that is not handled again. Asked only if there are any."""
        if not isinstance(packet, (Publish, Subscribe, Unsubscribe)):
            return False
        raw = encode(packet, protocol)
        return _known(raw, len(raw), protocol)[1] in self.refused


@final
class Footprint:
    """What a process left: the packet that it handled when it ended, and its sender (``source``). ``token`` identifies
    the process; ``packet`` says what it was. ``packet`` and ``fingerprint`` are empty if that is not known; packets
    other than PUBLISH, SUBSCRIBE and UNSUBSCRIBE have no fingerprint."""

    __slots__ = ("fingerprint", "packet", "source", "token")

    def __init__(self, token: str, source: str, packet: str, fingerprint: str) -> None:
        self.token = token
        self.source = source
        self.packet = packet
        self.fingerprint = fingerprint


def read_trail(block: bytes) -> Footprint | None:
    """The packet in the block of a process; ``None`` if it handled none."""
    if len(block) != BLOCK or not block.startswith(_MAGIC):
        return None
    state, size, protocol, begun = _WORDS.unpack_from(block, _STATE)
    if state == 0:
        return None
    token, source = _field(block, _TOKEN), _field(block, _SOURCE)
    found = ("", "")
    if state >= _FIRST:
        data = block[_BODY : _BODY + min(size, READ)]
        try:
            raw, whole = _packet(block[_HEAD : _HEAD + min(begun, HEAD)], begun, data, state - _FIRST)
            found = _known(raw, whole, protocol)
        except (ProtocolError, IndexError):  # too little of it was kept
            pass
    return Footprint(token, source, *found)


def _field(block: bytes, place: int) -> str:
    return block[place + 1 : place + 1 + block[place]].decode(errors="replace")


def _packet(head: bytes, begun: int, data: bytes, index: int) -> tuple[bytes, int]:
    """What was kept of the packet ``index`` of a read, and its size. ``begun`` bytes of the first packet came earlier,
    and ``head`` has the first of them. Raises ``IndexError`` or ``ProtocolError`` if the packet is not there."""
    if begun == len(head):
        data = head + data
    elif index == 0:
        return head, _size(head, 0)
    else:
        data = data[_size(head, 0) - begun :]
        index -= 1
    pos = 0
    for _ in range(index):
        pos += _size(data, pos)
    whole = _size(data, pos)
    return data[pos : pos + whole], whole


def _size(data: bytes, pos: int) -> int:
    length = read_length(data, pos + 1, len(data))
    if length < 0:
        raise IndexError
    return 1 + length_size(length) + length


def _known(raw: bytes, whole: int, protocol: int) -> tuple[str, str]:
    """What a packet of ``whole`` bytes is, of which ``raw`` was kept, and its fingerprint: it is the same for each
    repetition, since packet identifier, DUP and properties, which may change, do not count."""
    kind = raw[0] >> 4
    if kind not in (PUBLISH, SUBSCRIBE, UNSUBSCRIBE):
        return "", ""
    pos = 1 + length_size(read_length(raw, 1, len(raw)))
    topic = b""
    if kind == PUBLISH:
        end = pos + 2 + (raw[pos] << 8 | raw[pos + 1])
        topic = raw[pos + 2 : end]
        pos = end + (2 if raw[0] & _QOS else 0)
    else:
        pos += 2
    if protocol == MQTT5:
        length = read_length(raw, pos, len(raw))
        if length < 0:
            raise IndexError
        pos += length_size(length) + length
    rest = raw[pos : pos + _COUNTED]
    name = f"PUBLISH on {topic[:_LONGEST].decode(errors='replace')!r}" if kind == PUBLISH else _NAMES[kind]
    if len(rest) < min(whole - pos, _COUNTED) or (kind == PUBLISH and not topic):
        return name, ""
    counted = b"%d:%d:%d:%b%b" % (kind, len(topic), whole - pos, topic, rest)
    return name, hashlib.sha256(counted).hexdigest()[:32]
