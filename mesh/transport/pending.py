"""The connections of a node whose CONNECT is not complete, and the bound on their number.

It knows how long a connection has been here, and where it comes from: never what it has sent. What always holds:

* a connection is here from accept, before any TLS handshake, until its CONNECT and its proof are complete, or it ends;
* above ``limit`` one connection ends: the oldest one of the network that has the most of the oldest ones. So a client
  that sends its CONNECT gets in while others hold theirs back, however many they are.
"""

from __future__ import annotations

from itertools import islice
from typing import Final, final

from mesh.transport.buffers import Buffering
from mesh.transport.origin import network_of

SAMPLE: Final = 64  # oldest connections that are looked at for one that ends
CLOSINGS: Final = 64  # connections that end in one call, as the limit may have been lowered


@final
class Pending:
    """``limit`` is a number of connections; ``closed`` counts those that had to end."""

    __slots__ = ("_streams", "closed", "limit")

    def __init__(self, limit: int = 1_000_000) -> None:
        self.limit = limit
        self.closed = 0
        self._streams: dict[Buffering, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Buffering) -> None:
        """A connection was accepted. Afterwards another one may be closed."""
        self._streams[stream] = None
        if len(self._streams) > self.limit:
            self._relieve()

    def remove(self, stream: Buffering) -> None:
        """The CONNECT is complete, or the connection has ended."""
        self._streams.pop(stream, None)

    def _relieve(self) -> None:
        for _ in range(CLOSINGS):
            if len(self._streams) <= self.limit:
                return
            stream = self._oldest()
            self.remove(stream)
            self.closed += 1
            stream.shed(f"{self.limit} connections have not completed their CONNECT, and this is one of the oldest")

    def _oldest(self) -> Buffering:
        """The oldest connection of the network that has the most of the oldest ones."""
        first: dict[str, Buffering] = {}
        numbers: dict[str, int] = {}
        for stream in islice(self._streams, SAMPLE):
            network = network_of(stream.peer.address)
            first.setdefault(network, stream)
            numbers[network] = numbers.get(network, 0) + 1
        return first[max(numbers, key=lambda network: numbers[network])]
