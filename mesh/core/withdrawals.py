"""The retained messages of back ends that edges are to delete, because their senders may not publish them now.

It knows topics, when their messages were published, and the edges that have them: never who sent them. What always
holds:

* a withdrawal is in the journal from the moment at which this core drops its own message until it is in the spools of
  all edges concerned, where it waits behind the message itself;
* an edge whose spool is full, or a vehicle whose owner is unknown because etcd is away, delays no other withdrawal;
* each is done in steps of the broker's work. There are at most as many as there were retained messages.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.notices import Notices, shortened
from mesh.broker.versions import just_after
from mesh.core.kinds import WITHDRAWN
from mesh.core.owners import Owners, OwnerUnknown
from mesh.core.tier import TierLink
from mesh.session.store import Item

_META: Final = struct.Struct("!d")  # when the message was published; then the topic
_LOOK_UPS: Final = 64  # at the same time

# Steps of the work, see ``broker/work.py``.
_LOOK: Final = 2
_SPOOL: Final = 8  # for one edge

log = logging.getLogger(__name__)


@final
class Withdrawal:
    """``edges``: those that have to be told; ``None`` until they are known."""

    __slots__ = ("edges", "item", "time", "topic", "vehicle")

    def __init__(self, topic: str, time: float, vehicle: str | None, item: int) -> None:
        self.topic = topic
        self.time = time
        self.vehicle = vehicle
        self.item = item
        self.edges: list[str] | None = None


@final
class Withdrawals:
    """``links`` by edge, which ``link_to`` makes if it is missing. ``busy``: messages for a vehicle wait for its owner,
    and a withdrawal must not overtake them. ``wake`` begins a turn."""

    __slots__ = (
        "_begun", "_broker", "_busy", "_later", "_link_to", "_links", "_look_ups", "_notices", "_owners", "_queue",
        "_running", "_unknown", "_wake",
    )  # fmt: skip

    def __init__(
        self, broker: Broker, owners: Owners, links: Mapping[str, TierLink], link_to: Callable[[str], TierLink],
        busy: Callable[[str], bool], wake: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._owners = owners
        self._links = links
        self._link_to = link_to
        self._busy = busy
        self._wake = wake
        self._queue: deque[Withdrawal] = deque()
        self._later: list[Withdrawal] = []  # tried again once a second
        self._unknown: deque[Withdrawal] = deque()  # wait for a look-up
        self._look_ups: set[asyncio.Task[None]] = set()
        self._notices = Notices(log.warning, time.monotonic)
        self._running = False
        self._begun = False

    def __len__(self) -> int:
        return len(self._queue) + len(self._later) + len(self._unknown) + len(self._look_ups)

    def restore(self, items: Iterable[Item], vehicle_of: Callable[[str], str | None]) -> None:
        """Restore from the journal those that not all edges were told."""
        for item in items:
            (published,) = _META.unpack_from(item.meta)
            topic = item.meta[_META.size :].decode()
            self._queue.append(Withdrawal(topic, published, vehicle_of(topic), item.id))

    def begin(self) -> None:
        """The links to all edges are made: tell them."""
        self._begun = True
        self._start()

    def add(self, topic: str, published: float, vehicle: str | None) -> None:
        """Withdraw a message from the edge of ``vehicle`` or, if that is ``None``, from all edges. This core drops its
        own after this call."""
        if vehicle is None:
            self._broker.dispatcher.tombstones.add(topic, just_after(published))  # for edges that are added later
        meta = _META.pack(published) + topic.encode()
        self._queue.append(Withdrawal(topic, published, vehicle, self._broker.store.append(WITHDRAWN, 0, meta, b"")))
        self._start()

    def tick(self) -> None:
        """Called once a second: try again what could not be done."""
        if self._later:
            self._queue.extend(self._later)
            self._later.clear()
            self._start()

    async def stop(self) -> None:
        """Cancel the look-ups in progress. What is not done is in the journal."""
        self._begun = False
        tasks = list(self._look_ups)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        if self._begun and self._queue and not self._running:
            self._running = True
            self._broker.work.start(self._run())

    def _run(self) -> Iterator[int]:
        try:
            while self._queue and self._begun:
                yield self._handle(self._queue.popleft())
        finally:
            self._running = False

    def _handle(self, one: Withdrawal) -> int:
        """Tell the edges of one, as far as possible. Returns the steps that it took."""
        edges = one.edges
        if edges is None:
            edges = one.edges = self._concerned(one)
            if edges is None:
                self._unknown.append(one)
                self._look_up()
                return _LOOK
        if one.vehicle is not None and self._busy(one.vehicle):
            self._later.append(one)
            return _LOOK
        one.edges = [edge for edge in edges if not self._tell(edge, one)]
        if one.edges:
            self._later.append(one)
        else:
            self._broker.store.drop(one.item)
        return _LOOK + _SPOOL * len(edges)

    def _concerned(self, one: Withdrawal) -> list[str] | None:
        if one.vehicle is None:
            return list(self._links)
        edge = self._owners.cached(one.vehicle)
        return None if edge is None else [edge]

    def _tell(self, edge: str, one: Withdrawal) -> bool:
        """Whether an edge has been told, or need not be: it was removed from the mesh."""
        link = self._links.get(edge) if one.vehicle is None else self._link_to(edge)
        return link is None or link.withdraw(one.topic, one.time, one.vehicle is None)

    def _look_up(self) -> None:
        """Look for the owners of as many vehicles as may be looked up at the same time."""
        while self._unknown and len(self._look_ups) < _LOOK_UPS:
            task = asyncio.get_running_loop().create_task(self._find(self._unknown.popleft()))
            self._look_ups.add(task)
            task.add_done_callback(self._found)

    async def _find(self, one: Withdrawal) -> None:
        vehicle = one.vehicle or ""
        try:
            edge = await self._owners.find(vehicle)
        except OwnerUnknown as error:
            self._postpone(one, vehicle, str(error))
        except Exception as error:  # noqa: BLE001 - the others go on
            self._postpone(one, vehicle, f"{type(error).__name__}: {error}")
        else:
            one.edges = [] if edge is None else [edge]
            self._queue.append(one)

    def _postpone(self, one: Withdrawal, vehicle: str, why: str) -> None:
        self._later.append(one)
        self._later.extend(self._unknown)  # those fail as well
        self._unknown.clear()
        self._notices.warn(
            "owner", "%s is withdrawn when the owner of vehicle %s is known: %s", shortened(one.topic),
            shortened(vehicle), why,
        )  # fmt: skip

    def _found(self, task: asyncio.Task[None]) -> None:
        self._look_ups.discard(task)
        self._look_up()
        self._start()
        self._wake()
