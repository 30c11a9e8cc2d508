"""The bytes that clients make a node buffer, and the bound on their sum.

It knows how many bytes each connection buffers and which client it belongs to: never what the bytes are. What always
holds:

* ``used`` is the sum of what the open connections have reported with ``count``; buffers of less than ``LARGE`` bytes
  are a part of what a connection costs, and are not reported;
* above ``limit`` the client that uses the most loses a connection, until the sum is at the limit again; so a
  client with many connections loses some of them, and one with a single packet keeps it;
* one call closes ``CLOSINGS`` connections at most, as the limit may have been lowered, and looks at ``SAMPLE`` at most
  for each: those that have buffered for longest.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.transport.status import BuffersStatus
from mesh.transport.stream import Stream, StreamGroup

SAMPLE: Final = 256  # enough to find the client that uses the most, since that one has most of the connections here
CLOSINGS: Final = 256  # some ten milliseconds of the loop; each call that buffers more closes as many
BUFFERS: Final = 256 << 20  # bytes; a node computes its own limit from its memory


@mypyc_attr(allow_interpreted_subclasses=True)
class Buffering(Stream):
    """A stream whose buffers count: ``counted`` bytes at present. Only ``Buffers`` changes that."""

    __slots__ = ("counted",)

    def __init__(self, group: StreamGroup) -> None:
        super().__init__(group)
        self.counted = 0

    def client(self) -> str:
        """The client that the bytes belong to."""
        raise NotImplementedError

    def shed(self, why: str) -> None:
        """Close the connection, and free its buffers: the client uses the most of a limit that is reached."""
        raise NotImplementedError


@final
class Buffers:
    """The buffers of one node's clients. ``limit`` is in bytes; ``closed`` counts the connections that were closed."""

    __slots__ = ("_entries", "_totals", "closed", "limit", "used")

    def __init__(self, limit: int = BUFFERS) -> None:
        self.limit = limit
        self.used = 0
        self.closed = 0
        self._entries: dict[Buffering, str] = {}  # in the order in which they began to count
        self._totals: dict[str, int] = {}  # by client

    def count(self, stream: Buffering, size: int) -> None:
        """``stream`` buffers ``size`` bytes now. Afterwards it may be closed."""
        before = stream.counted
        if size == before:
            return
        stream.counted = size
        client = self._entries.get(stream)
        if client is None:
            client = self._entries[stream] = stream.client()
        elif size == 0:
            del self._entries[stream]
        total = self._totals.get(client, 0) + size - before
        if total:
            self._totals[client] = total
        else:
            del self._totals[client]
        self.used += size - before
        if self.used > self.limit and size > before:
            self._relieve()

    def strain(self) -> str:
        """Which client uses the most, if nine tenths of the limit are in use; else empty."""
        if 10 * self.used < 9 * self.limit or not self._entries:
            return ""
        client = self._entries[self._worst()]
        return (
            f"{self.used} of {self.limit} bytes for buffers are in use; {client} uses the most, {self._totals[client]}"
        )

    def status(self) -> BuffersStatus:
        """The status, for ``mesh status`` and metrics."""
        return BuffersStatus(self.used, self.limit, self.closed)

    def _relieve(self) -> None:
        for _ in range(CLOSINGS):
            if self.used <= self.limit or not self._entries:
                return
            stream = self._worst()
            client = self._entries[stream]
            self.closed += 1
            stream.shed(
                f"all {self.limit} bytes for buffers are in use, and {client} uses the most, {self._totals[client]}"
            )
            self.count(stream, 0)

    def _worst(self) -> Buffering:
        """The connection with the most bytes of the client that uses the most, of those that have buffered for
        longest."""
        worst: Buffering | None = None
        most = size = 0
        for stream, client in islice(self._entries.items(), SAMPLE):
            total = self._totals[client]
            if total > most or (total == most and stream.counted > size):
                worst, most, size = stream, total, stream.counted
        assert worst is not None
        return worst
