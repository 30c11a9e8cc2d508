"""The packet in progress of a stream: the part of ``Reader`` and ``Framer`` that runs only if a packet comes in pieces.

It knows how many bytes of the packet have come, and how many the next step needs. It must never know what a packet
contains. What always holds:

* Only the packet in progress is buffered, and only once its announced length is known to be allowed.
* A packet that comes whole costs no call of this class. So ``Reader`` and ``Framer`` each walk through the packets of a
  read in a loop of their own: a shared step would cost a call for each packet.
"""

from __future__ import annotations

from typing import Final

from mesh.wire.reasons import PACKET_TOO_LARGE, ProtocolError

# Bytes of a packet in progress from which on they are counted: fewer are a part of what a connection costs, and a
# packet that a network has cut in two is not worth the counting.
LARGE: Final = 4096


def too_large(size: int, limit: int) -> ProtocolError:
    """The error for a packet that announces more bytes than allowed."""
    return ProtocolError(PACKET_TOO_LARGE, f"a packet of {size} bytes is announced; at most {limit} are accepted")


def large(size: int) -> int:
    """``size`` in bytes of a packet in progress if it is to be counted, else 0."""
    return size if size >= LARGE else 0


class Partial:
    """The packet in progress of one stream. ``kept``: bytes buffered of it, 0 if they are fewer than ``LARGE`` (the
    memory of a node is bounded); ``error``: what ended the stream."""

    __slots__ = ("_need", "_partial", "_seen", "error", "kept")

    def __init__(self) -> None:
        self.error: ProtocolError | None = None
        self._partial: bytearray | None = None  # created when needed: most connections are idle
        self._need = 0  # bytes needed for the next step
        self._seen = 0  # bytes of the packet in progress at the last call of ``progress``
        self.kept = 0

    def progress(self) -> int:
        """How many bytes of the packet in progress came since the last call; -1 if no packet is in progress. (A packet
        that comes too slowly is no sign of life.)"""
        partial = self._partial
        if partial is None:
            return -1
        before, self._seen = self._seen, len(partial)
        return self._seen - before

    def head(self, most: int) -> bytes:
        """The first bytes of the packet in progress, at most so many."""
        return b"" if self._partial is None else bytes(self._partial[:most])

    @property
    def pending(self) -> int:
        """How many bytes of the packet in progress are buffered."""
        return 0 if self._partial is None else len(self._partial)

    def _keep(self, data: bytes, pos: int, need: int) -> None:
        """Buffer ``data`` from ``pos`` on: a packet in progress, whose next step needs ``need`` bytes of it."""
        # A bytearray grows in place, so a packet that arrives byte by byte is not copied for each byte.
        self._partial = bytearray(data[pos:])
        self._need = need
        self._seen = 0
        self.kept = large(len(data) - pos)

    def _joined(self, partial: bytearray, data: bytes) -> bytes:
        """The packet in progress with ``data`` behind it, which is no longer buffered then; empty, and buffered, if its
        next step needs more."""
        partial += data
        if len(partial) < self._need:
            self.kept = large(len(partial))
            return b""
        self._partial = None
        self.kept = 0
        return bytes(partial)
