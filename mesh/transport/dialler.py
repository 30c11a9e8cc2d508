"""Keeps one connection to another node open: connects, waits until it is over, connects again.

It knows addresses and time: never what is said on the connection. What always holds:

* one task and one connection at a time; ``stop`` ends the task, and leaves an open connection to its owner;
* attempts are spread by a back-off with jitter from ``FIRST_RETRY`` to ``LAST_RETRY``, which begins anew when the other
  node has let this one in, or when there is news of it (``poke``, ``moved``);
* the log has a line when what there is to say changes, not for each attempt.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol, cast, final

from mesh.transport.near import Near, connect

CONNECT: Final = 3.0  # seconds for a TCP connection within one site
FIRST_RETRY: Final = 0.05  # seconds; a node that died is back within a few, and messages wait for it
LAST_RETRY: Final = 1.0  # seconds; a hundred nodes at that pace cost the other one nothing

log = logging.getLogger(__name__)

Address = tuple[str, int]


class Dialled(Protocol):
    """A connection, as the dialler sees it: an ``asyncio`` protocol that is connected once."""

    @property
    def over(self) -> asyncio.Future[str]:
        """Done when the connection is gone. The result says why if this side knows, as in "edge-1 …"."""

    def abort(self) -> None:
        """Close at once, if there is a socket."""


@final
class Dialler:
    """``who`` and ``peer`` are for the log: "``who``: ``peer`` is away". ``address`` gives where the other node is, or
    ``None`` while that is not known; ``near`` its Unix socket on this machine; ``make`` a new protocol, which calls
    ``welcomed`` when the other node has let this one in."""

    def __init__(
        self,
        who: str,
        peer: str,
        address: Callable[[], Address | None],
        near: Near,
        make: Callable[[], Dialled],
    ) -> None:
        self.trouble = ""  # what the log says about the other node at present; empty while it is connected
        self._who = who
        self._peer = peer
        self._address = address
        self._near = near
        self._make = make
        self._connection: Dialled | None = None
        self._connected = False
        self._welcome = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, if that is not done already."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"{self._who} to {self._peer}")

    async def stop(self) -> None:
        """Connect no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def poke(self) -> None:
        """There is news of the other node: if it is not connected, try at once."""
        if not self._connected:
            self._news.set()

    def moved(self) -> None:
        """The other node has another address: what is at the old one is not it any more."""
        if self._connection is not None:
            self._connection.abort()
        self._news.set()

    def welcomed(self) -> None:
        """The other node has let this one in."""
        self._welcome = True
        if self.trouble:
            self.trouble = ""
            log.info("%s: %s is back", self._who, self._peer)

    def _tell(self, what: str) -> None:
        if what != self.trouble:
            self.trouble = what
            log.warning("%s: %s %s", self._who, self._peer, what)

    async def _run(self) -> None:
        pause = FIRST_RETRY
        while True:
            self._news.clear()
            address = self._address()
            if address is None:
                self._tell("has not said yet where it is")
            elif await self._connect(address):
                pause = FIRST_RETRY
            # Nodes that lost the same peer must not come back in step.
            pause = FIRST_RETRY if await self._hears(pause * random.uniform(0.5, 1.0)) else min(2 * pause, LAST_RETRY)

    async def _hears(self, seconds: float) -> bool:
        """Wait; whether news came meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _connect(self, address: Address) -> bool:
        """One connection, from its beginning to its end; whether the other node had let this one in."""
        self._welcome = False
        connection = self._connection = self._make()
        try:
            if not await self._reaches(connection, address):
                return False
            self._connected = True
            self._news.clear()
            if self._address() != address:
                connection.abort()  # it moved while the connection was being made
            await asyncio.wait([connection.over])  # an await of the future itself would cancel it with this task
            why = connection.over.result()
        finally:
            self._connection = None
            self._connected = False
        self._tell(why or ("is away" if self._welcome else "closed the connection before it let this node in"))
        return self._welcome

    async def _reaches(self, connection: Dialled, address: Address) -> bool:
        protocol = cast(asyncio.BaseProtocol, connection)
        host, port = address
        try:
            async with asyncio.timeout(CONNECT):
                await connect(asyncio.get_running_loop(), lambda: protocol, self._near(port), host, port)
        except (OSError, TimeoutError) as error:
            connection.abort()
            self._tell(f"cannot be reached at {host}:{port}: {str(error) or 'no answer'}")
            return False
        return True
