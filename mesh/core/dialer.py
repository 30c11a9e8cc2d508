"""Keeps the socket of one tier link open: finds the edge, connects, waits, connects again.

It knows addresses and time: never packets. What always holds: one task for each link, which ends with ``stop``;
attempts are spread by a jittered backoff, so that many cores do not meet an edge that has just come back in one moment.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, cast, final

from mesh.core.tier import TierLink
from mesh.transport.near import Near, connect
from mesh.transport.stream import Home, Stream
from mesh.transport.turn import Turn

_FIRST: Final = 0.05  # seconds before the second attempt
_LAST: Final = 1.0  # the longest pause: an edge that is back should not be left waiting
_CONNECT: Final = 3.0  # seconds for the TCP handshake

log = logging.getLogger(__name__)

Address = tuple[str, int]


@final
class TierSocket(Stream):
    """The socket of a tier link."""

    __slots__ = ("_link", "_turn", "gone")

    def __init__(self, home: Home, link: TierLink, turn: Turn) -> None:
        super().__init__(home)
        self._link = link
        self._turn = turn
        self.gone: asyncio.Future[None] = home.loop.create_future()

    def opened(self) -> None:
        """The TCP handshake is done."""
        self._link.connected(self)
        self._turn.wake()

    def received(self, data: bytes) -> None:
        """Bytes of the edge."""
        self._link.received(data, self._turn)
        self._turn.wake()

    def lost(self, error: Exception | None) -> None:
        """The socket is gone."""
        self._link.lost()
        self._turn.wake()
        if not self.gone.done():
            self.gone.set_result(None)

    def expired(self) -> None:
        """Silence is the link's own business."""


@final
class Dialer:
    """``address`` gives where the edge is reached now, or ``None`` while it has not announced itself; ``near`` its
    socket on this machine."""

    def __init__(
        self, link: TierLink, address: Callable[[], Address | None], near: Near, home: Home, turn: Turn
    ) -> None:
        self._link = link
        self._address = address
        self._near = near
        self._home = home
        self._turn = turn
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def moved(self) -> None:
        """The edge has announced itself anew: try at once."""
        self._moved.set()

    async def stop(self) -> None:
        """Close the socket and end the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = _FIRST
        while True:
            self._moved.clear()
            address = self._address()
            if address is not None and await self._once(address):
                pause = _FIRST
            await self._pause(pause)
            pause = min(_LAST, pause * 2)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds * (0.5 + random.random())):
                await self._moved.wait()
        except TimeoutError:
            return

    async def _once(self, address: Address) -> bool:
        """One connection, from its beginning to its end; whether the edge had let this core in."""
        socket = TierSocket(self._home, self._link, self._turn)
        try:
            async with asyncio.timeout(_CONNECT):
                protocol = cast(asyncio.BaseProtocol, socket)
                await connect(self._home.loop, lambda: protocol, self._near(address[1]), *address)
        except (OSError, TimeoutError) as error:
            self._link.last_error = f"{address[0]}:{address[1]}: {error}"
            return False
        let_in = False
        try:
            while not socket.gone.done():
                await asyncio.wait([socket.gone], timeout=1.0)
                let_in = let_in or self._link.up
        finally:
            socket.abort()
        log.info("the link to edge %s is closed: %s", self._link.edge, self._link.last_error or "by the edge")
        return let_in
