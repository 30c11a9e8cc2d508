"""The socket of a tier link.

It knows when the socket opens, closes, and takes no more bytes: never packets. What always holds: the link is told of
each once; ``over`` is done when the socket is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from mesh.core.tier import TierLink
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.turn import Turn


@final
class TierSocket(Stream):
    """``welcomed`` is called when the edge has accepted this core."""

    __slots__ = ("_link", "_turn", "_welcomed", "over")

    def __init__(self, group: StreamGroup, link: TierLink, turn: Turn, welcomed: Callable[[], None]) -> None:
        super().__init__(group)
        self._link = link
        self._turn = turn
        self._welcomed = welcomed
        self.over: asyncio.Future[str] = group.loop.create_future()

    def established(self) -> None:
        """The edge has accepted this core."""
        self._welcomed()

    def opened(self) -> None:
        """The socket is connected."""
        self._link.opened(self)
        self._turn.wake()

    def received(self, data: bytes) -> None:
        """Bytes from the edge."""
        self._link.received(data)
        self._turn.wake()

    def congested(self) -> None:
        """The edge does not read."""
        self._link.congested()

    def relieved(self) -> None:
        """The edge reads again."""
        self._link.relieved()
        self._turn.wake()

    def lost(self, error: Exception | None) -> None:
        """The socket is closed."""
        self._link.lost()
        self._turn.wake()
        if not self.over.done():
            self.over.set_result(self._link.ended)

    def expired(self) -> None:
        """Not used: the link itself checks that the edge is alive."""
