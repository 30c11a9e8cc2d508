"""The listeners of one kind of clients of a node: a list that changes while they serve.

It knows addresses and which connection came through which listener: never what connections carry. What always holds:

* a change takes addresses before it takes effect (``prepare``), and opens none to clients; ``commit`` and ``withdraw``
  do not wait;
* a listener that is in both lists is not touched, and neither are its connections; one with the same place and other
  settings keeps its socket and its connections, and new connections get the new settings;
* the connections of a listener that is removed end as at the end of the node: told if their protocol allows it, and
  spread over ``ENDING`` seconds, since all their clients connect again elsewhere;
* each task that ends connections is owned, and ``stop`` cancels it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from typing import Final, final

from mesh.transport.accept import Arrive, Gate, anyone
from mesh.transport.listen import Listen
from mesh.transport.listener import SPARE, Listener
from mesh.transport.pace import Pace
from mesh.transport.rates import Rates
from mesh.transport.status import ListenerStatus
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.unixsocket import UnixPath, no_unix_path
from mesh.wire.limits import PacketLimits

ENDING: Final = 5.0  # seconds; half of what a node's stop takes to end its connections, as nothing waits for this one
_STEP: Final = 0.05  # seconds between two slices

log = logging.getLogger(__name__)


async def spread(streams: Sequence[Stream], end: Callable[[Stream], None], seconds: float) -> None:
    """Call ``end`` for each stream, in slices over ``seconds``."""
    steps = max(1, min(len(streams), int(seconds / _STEP)))
    size = max(1, -(-len(streams) // steps))
    for start in range(0, len(streams), size):
        for stream in streams[start : start + size]:
            try:
                end(stream)
            except Exception:
                log.exception("the connection of %s could not be ended", stream.peer)
        await asyncio.sleep(seconds / steps if len(streams) > 1 else 0)


@final
class ListenerChange:
    """A change that is prepared. It ends with exactly one of its calls; neither waits."""

    def __init__(
        self,
        listeners: Listeners,
        present: list[Listener],
        added: list[Listener],
        altered: list[tuple[Listener, Listen, Gate | None]],
    ) -> None:
        self._listeners = listeners
        self._present = present
        self._added = added
        self._altered = altered

    def commit(self) -> None:
        """Accept connections at the added listeners, end the removed ones, and give the others their settings. Raises
        ``OSError`` at last if another program took an address meanwhile; then nothing serves there."""
        for listener, listen, tls in self._altered:
            listener.take(listen, tls)
        self._listeners.take(self._present, self._added)

    def withdraw(self) -> None:
        """Give the addresses back."""
        for listener in self._added:
            listener.stop()


@final
class Listeners:
    """``factory`` makes the stream of a connection, ``end`` ends one whose listener was removed. ``limit`` is the most
    streams of ``group``, ``rates`` how often clients may begin a TLS handshake; for the others see ``Listener``. Change
    ``limit`` with ``allow``."""

    def __init__(
        self,
        name: str,
        group: StreamGroup,
        factory: Callable[[], Stream],
        end: Callable[[Stream], None],
        limit: int,
        *,
        shared: bool = False,
        unix_path: UnixPath = no_unix_path,
        handshake: float = 10.0,
        limits: PacketLimits | None = None,
        rates: Rates | None = None,
        arrive: Arrive = anyone,
    ) -> None:
        self._limits = limits
        self._name = name
        self._group = group
        self._factory = factory
        self._end = end
        self._limit = limit
        self._shared = shared
        self._unix_path = unix_path
        self._handshake = handshake
        self._pace = Pace(group.loop, rates)
        self._arrive = arrive
        self._present: list[Listener] = []
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def ports(self) -> list[int]:
        """The ports really bound, in the order of the list."""
        return [listener.port for listener in self._present]

    async def start(self, listen: Sequence[Listen]) -> None:
        """Listen at all of them. Raises ``OSError``, which names the address."""
        for where in listen:
            listener = self._make(where)
            self._present.append(listener)
            await listener.start()

    async def prepare(self, listen: Sequence[Listen]) -> ListenerChange:
        """Take the addresses of ``listen`` that are new, and read the files of those with other settings. Raises
        ``OSError``, which names the address or file, and then has taken none."""
        left = list(self._present)
        present: list[Listener] = []
        added: list[Listener] = []
        altered: list[tuple[Listener, Listen, Gate | None]] = []
        for where in listen:
            kept = next((one for one in left if one.listen == where), None) or _same_place(left, where)
            if kept is not None:
                left.remove(kept)
                if kept.listen != where:
                    altered.append((kept, where, await kept.secure(where)))
            else:
                added.append(self._make(where))
            present.append(kept or added[-1])
        try:
            for listener in added:
                await self._bind(listener, left)
        except BaseException:
            for listener in added:
                listener.stop()
            raise
        return ListenerChange(self, present, added, altered)

    def take(self, present: list[Listener], added: list[Listener]) -> None:
        """The list is ``present`` from now on. Called by ``ListenerChange``."""
        lost: OSError | None = None
        removed = [listener for listener in self._present if listener not in present]
        self._present = present
        for listener in removed:
            listener.stop()
        for listener in added:
            try:
                listener.serve()
            except OSError as error:  # the others serve, and the next change tries this one again
                listener.stop()
                present.remove(listener)
                lost = lost or error
        if removed:
            names = {listener.url for listener in removed}
            log.info("%s: no longer listening on %s", self._name, ", ".join(sorted(names)))
            # Connections that come later are not theirs, even if a listener with the same name is added meanwhile.
            streams = list(self._group.streams)
            task = self._group.loop.create_task(
                self._dismiss(streams, names), name=f"end of listeners of {self._name}"
            )
            self._endings.add(task)
            task.add_done_callback(self._endings.discard)
        if lost is not None:
            raise lost

    def allow(self, limit: int, handshake: float) -> None:
        """Other limits from now on; of more streams than ``limit`` none is closed."""
        self._limit = limit
        self._handshake = handshake
        for listener in self._present:
            listener.allow(limit, handshake)

    def close(self) -> None:
        """Stop listening; the connections stay open. Those of removed listeners no longer end by themselves."""
        for task in self._endings:
            task.cancel()
        for listener in self._present:
            listener.stop()

    def in_force(self) -> list[dict[str, object]]:
        """Where and how it listens, and how many connections each listener lets in."""
        return [{**one.listen.in_force(), "limit": one.limit} for one in self._present]

    def status(self) -> tuple[ListenerStatus, ...]:
        """One for each listener."""
        return tuple([listener.status() for listener in self._present])

    def detail(self) -> str:
        """What is wrong with certificates, or will be soon, in one sentence; else empty."""
        return next((text for text in map(Listener.detail, self._present) if text), "")

    def _make(self, listen: Listen) -> Listener:
        return Listener(
            self._name, listen, self._group, self._factory, self._limit, shared=self._shared,
            unix_path=self._unix_path, spare=SPARE, handshake=self._handshake, pace=self._pace, limits=self._limits,
            arrive=self._arrive,
        )  # fmt: skip

    async def _bind(self, listener: Listener, removed: list[Listener]) -> None:
        try:
            await listener.bind()
        except OSError as error:
            own = next((one for one in removed if one.port == listener.listen.port), None)
            if own is None or error.errno != errno.EADDRINUSE:
                raise
            raise OSError(
                error.errno,
                f"{self._name}: cannot listen on {listener.url} while it listens on {own.url}: remove this one with "
                "one change, and add the other with the next one",
            ) from error

    async def _dismiss(self, streams: list[Stream], names: set[str]) -> None:
        """End the connections of removed listeners."""
        await spread([one for one in streams if one.peer.listener in names], self._end, ENDING)


def _same_place(listeners: list[Listener], where: Listen) -> Listener | None:
    """The listener that can take the settings of ``where``."""
    return next((one for one in listeners if one.listen.place == where.place), None)
