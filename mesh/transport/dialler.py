"""Keeps one connection to another node open: connects, waits until it ends, connects again.

It knows addresses and time: never what is sent on the connection. What always holds:

* one task and one connection at a time; ``stop`` ends the task, and leaves an open connection to its owner;
* attempts are spread by a back-off with jitter from ``FIRST_RETRY`` to ``LAST_RETRY``, which restarts when the other
  node has accepted this one, or when there is news of it (``poke``, ``moved``);
* a line is logged when the other node's condition changes, not for each attempt.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol, cast, final

from mesh.transport.unixsocket import Secure, UnixPath, connect

CONNECT: Final = 3.0  # seconds for a TCP connection within one site
FIRST_RETRY: Final = 0.05  # seconds; a node that died restarts within a few seconds, and messages wait for it
LAST_RETRY: Final = 1.0  # seconds; a hundred nodes that retry at this rate are no load

log = logging.getLogger(__name__)

Address = tuple[str, int]


class Dialled(Protocol):
    """A connection, as the dialler sees it: an ``asyncio`` protocol that is connected once."""

    @property
    def over(self) -> asyncio.Future[str]:
        """Done when the connection is closed. The result says why if this side knows, as in "edge-1 …"."""

    def abort(self) -> None:
        """Close the socket at once, if there is one."""


@final
class Dialler:
    """``name`` and ``peer`` are for the log: "``name``: ``peer`` is disconnected". ``address`` returns the address of
    the other node, or ``None`` while it is unknown; ``unix_path`` its Unix socket on this machine; ``make`` a new
    protocol, which calls ``welcomed`` when the other node has accepted this one; ``secure`` the TLS context of a
    connection, if it has TLS."""

    def __init__(
        self,
        name: str,
        peer: str,
        address: Callable[[], Address | None],
        unix_path: UnixPath,
        make: Callable[[], Dialled],
        secure: Secure | None = None,
    ) -> None:
        self.trouble = ""  # what was last logged about the other node; empty while it is connected
        self._name = name
        self._peer = peer
        self._address = address
        self._unix_path = unix_path
        self._make = make
        self._secure = secure
        self._connection: Dialled | None = None
        self._connected = False
        self._welcome = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect; a second call does nothing."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"{self._name} to {self._peer}")

    async def stop(self) -> None:
        """Stop connecting."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def poke(self) -> None:
        """There is news of the other node: if it is not connected, try at once."""
        if not self._connected:
            self._news.set()

    def moved(self) -> None:
        """The other node has a new address: drop the connection to the old one."""
        if self._connection is not None:
            self._connection.abort()
        self._news.set()

    def welcomed(self) -> None:
        """The other node has accepted this one."""
        self._welcome = True
        if self.trouble:
            self.trouble = ""
            log.info("%s: %s is connected again", self._name, self._peer)

    def _report(self, what: str) -> None:
        if what != self.trouble:
            self.trouble = what
            log.warning("%s: %s %s", self._name, self._peer, what)

    async def _run(self) -> None:
        pause = FIRST_RETRY
        while True:
            self._news.clear()
            address = self._address()
            if address is None:
                self._report("has not announced its address yet")
            elif await self._connect(address):
                pause = FIRST_RETRY
            # Nodes that lost the same peer must not reconnect in step.
            news = await self._wait_for_news(pause * random.uniform(0.5, 1.0))
            pause = FIRST_RETRY if news else min(2 * pause, LAST_RETRY)

    async def _wait_for_news(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for news; returns whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def _connect(self, address: Address) -> bool:
        """Run one connection from its beginning to its end; returns whether the other node had accepted this one."""
        self._welcome = False
        connection = self._connection = self._make()
        try:
            if not await self._open(connection, address):
                return False
            self._connected = True
            self._news.clear()
            if self._address() != address:
                connection.abort()  # the node moved while the connection was being made
            await asyncio.wait([connection.over])  # an await of the future itself would cancel it with this task
            why = connection.over.result()
        finally:
            self._connection = None
            self._connected = False
        closed = "is disconnected" if self._welcome else "closed the connection before it accepted this node"
        self._report(why or closed)
        return self._welcome

    async def _open(self, connection: Dialled, address: Address) -> bool:
        protocol = cast(asyncio.BaseProtocol, connection)
        host, port = address
        try:
            async with asyncio.timeout(CONNECT):
                loop, path = asyncio.get_running_loop(), self._unix_path(port)
                await connect(loop, lambda: protocol, path, host, port, self._secure)
        except (OSError, TimeoutError) as error:
            connection.abort()
            self._report(f"cannot be reached at {host}:{port}: {str(error) or 'no answer'}")
            return False
        return True
