"""Compares the vehicles of which this edge holds anything with the map: which of them belong to this edge.

After a loss of the map another edge may have claimed a vehicle while this one was away. Two owners would both take
messages for it. So this edge compares its vehicles with the map when it starts, at each new generation of the map, and
at each change of a record. It claims those without a record. Those that belong to another edge are *foreign*: this edge
no longer serves them, keeps what waits for them, and names them in its log, its status and a key that ``mesh where``
reads.

It knows vehicles, records and a few functions of the node. It must never know sockets, sessions or packets. What always
holds:

- the work is done in slices, however many vehicles there are; while etcd does not answer, it waits;
- a foreign vehicle is not claimed: its edge, which has the newer state, may be away at the moment;
- a vehicle is no longer foreign when a record names this edge, or when nothing of it is left here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Protocol, final

from mesh.broker.notices import Notices
from mesh.broker.principal import VEHICLE
from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, put
from mesh.registry.errors import RegistryError, Unavailable
from mesh.registry.keys import Keys
from mesh.registry.map import BATCH, VehicleMap
from mesh.registry.record import Record
from mesh.registry.tasks import end

log = logging.getLogger(__name__)

SLICE: Final = 1000
"""Vehicles that are looked at in one turn without a question to etcd: about a millisecond."""

AGAIN: Final = 1.0
"""Seconds until the next attempt while etcd does not answer."""

REST: Final = 0.2
"""Seconds that changes are collected, so that many take one pass over the connections."""

SWEEP: Final = 60.0
"""Seconds between two looks for foreign vehicles of which nothing is left here."""

_NAMED: Final = 3  # foreign vehicles that the status names


class Holdings(Protocol):
    """What this edge holds (``broker.quotas``)."""

    def identities(self) -> list[tuple[int, str]]: ...

    def holds(self, kind: int, name: str) -> bool: ...


class Connections(Protocol):
    """The connections of vehicles (``Devices``)."""

    def expel(self, vehicles: set[str]) -> Iterator[None]:
        """End the connections of these vehicles without their wills, one at each step."""


@final
class Ownership:
    """One task from ``start`` to ``stop``. ``foreign`` has the owners of the foreign vehicles."""

    def __init__(
        self, edge: str, pool: str, map: VehicleMap, client: EtcdClient, mesh: str, holdings: Holdings,
        connections: Connections,
    ) -> None:  # fmt: skip
        self.foreign: dict[str, str] = {}
        self.reclaimed = 0
        self._edge = edge
        self._pool = pool
        self._map = map
        self._client = client
        self._keys = Keys(mesh)
        self._holdings = holdings
        self._connections = connections
        self._notices = Notices(log.warning, time.monotonic)
        self._wake = asyncio.Event()
        self._compare = False
        self._expelled: set[str] = set()
        self._unwritten: set[str] = set()  # vehicles whose key in etcd is not up to date
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the map."""
        self._map.on_change = self._changed
        self._task = asyncio.create_task(self._run(), name="ownership of vehicles")

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)

    def compare(self) -> None:
        """Compare all vehicles with the map: it is another one than before, or is known for the first time."""
        self._compare = True
        self._wake.set()

    @property
    def detail(self) -> str:
        """One sentence if there are foreign vehicles; else empty."""
        if not self.foreign:
            return ""
        named = ", ".join(f"{vehicle} ({edge})" for vehicle, edge in islice(self.foreign.items(), _NAMED))
        more = f" and {len(self.foreign) - _NAMED} more" if len(self.foreign) > _NAMED else ""
        return f"keeps messages of vehicles that belong to other edges now: {named}{more}"

    # Changes

    def _changed(self, old: Record | None, new: Record | None) -> None:
        """A record has changed in etcd."""
        if new is not None and (new.vehicle in self.foreign or self._holdings.holds(VEHICLE, new.vehicle)):
            self._judge(new)
            self._wake.set()

    def _judge(self, record: Record) -> None:
        vehicle, owner = record.vehicle, record.edge
        if owner == self._edge:
            if self.foreign.pop(vehicle, None) is not None:
                self._unwritten.add(vehicle)
                self._notices.warn("owned", "vehicle %s belongs to this edge again", vehicle)
        elif self.foreign.get(vehicle) != owner:
            self.foreign[vehicle] = owner
            self._expelled.add(vehicle)
            self._unwritten.add(vehicle)
            self._notices.warn(
                "foreign", "vehicle %s belongs to %s now: this edge serves it no more and keeps what waits for it here",
                vehicle, owner,
            )  # fmt: skip

    # The task

    async def _run(self) -> None:
        swept = asyncio.get_running_loop().time()
        while True:
            self._wake.clear()
            try:
                if self._compare:
                    self._compare = False
                    await self._compare_all()
                await self._expel()
                await self._write()
                if asyncio.get_running_loop().time() - swept > SWEEP:
                    swept = asyncio.get_running_loop().time()
                    await self._sweep()
            except RegistryError as error:
                log.warning("the owners of the vehicles are not up to date in etcd: %s", error)
                await asyncio.sleep(AGAIN)
                self._wake.set()
            except Exception:
                log.exception("the vehicles could not be compared with the map")
                self._compare = True
                await asyncio.sleep(AGAIN)
                self._wake.set()
            await asyncio.sleep(REST)
            try:
                async with asyncio.timeout(SWEEP):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _compare_all(self) -> None:
        """Compare all vehicles with the map, and claim those without a record."""
        begun, claimed, revision = time.monotonic(), self.reclaimed, self._map.revision
        self._unwritten.update(self.foreign)  # a new map has no keys
        names = (name for kind, name in self._holdings.identities() if kind == VEHICLE)
        while part := list(islice(names, SLICE)):
            unknown = [vehicle for vehicle in part if not self._is_known(vehicle)]
            for first in range(0, len(unknown), BATCH):
                await self._ask(unknown[first : first + BATCH], revision)
            await self._expel()
            await asyncio.sleep(0)
        if self.reclaimed > claimed or self.foreign:
            log.warning(
                "compared with the map in %.1f s: %d vehicles claimed again, %d belong to other edges",
                time.monotonic() - begun, self.reclaimed - claimed, len(self.foreign),
            )  # fmt: skip

    def _is_known(self, vehicle: str) -> bool:
        """Whether the record of a vehicle is in memory; it is judged then."""
        record = self._map.recent.peek(vehicle)
        if record is not None:
            self._judge(record)
        return record is not None

    async def _ask(self, vehicles: Sequence[str], revision: int) -> None:
        """Ask etcd for the records of some vehicles, until it answers. Records after ``revision`` are new."""
        left = list(vehicles)
        while left:
            left = [vehicle for vehicle in left if self._holdings.holds(VEHICLE, vehicle)]
            answers = await asyncio.gather(*[self._record_of(vehicle) for vehicle in left], return_exceptions=True)
            failed: dict[str, BaseException] = {}
            for vehicle, answer in zip(left, answers, strict=True):
                if isinstance(answer, Record):
                    self.reclaimed += answer.edge == self._edge and answer.revision > revision
                    self._judge(answer)
                elif isinstance(answer, Unavailable):
                    failed[vehicle] = answer
                elif answer is not None:
                    self._notices.warn("not compared", "vehicle %s is not compared with the map: %s", vehicle, answer)
            left = list(failed)
            if left:
                self._notices.warn("etcd", "not compared with the map yet: %s", failed[left[0]])
                await asyncio.sleep(AGAIN)

    async def _record_of(self, vehicle: str) -> Record | None:
        """The record of a vehicle. Without one, this edge becomes the owner, unless the vehicle is foreign. Questions
        of one turn share requests."""
        if vehicle in self.foreign:
            return await self._map.lookup(vehicle)
        return await self._map.claim(vehicle, self._pool, {self._edge: 1.0})

    async def _expel(self) -> None:
        """End the connections of vehicles that have become foreign."""
        expelled, self._expelled = self._expelled, set()
        if not expelled:
            return
        try:
            for number, _ in enumerate(self._connections.expel(expelled), 1):
                if number % BATCH == 0:
                    await asyncio.sleep(0)
        except Exception:  # for instance, the journal takes no more
            self._expelled |= expelled
            raise

    async def _write(self) -> None:
        """Bring the keys for ``mesh where`` up to date. Raises RegistryError; the rest is written later."""
        while self._unwritten:
            part = list(islice(self._unwritten, BATCH))
            request = pb.TxnRequest(success=[self._key_of(vehicle) for vehicle in part])
            await self._client.txn(request, retry=True)
            self._unwritten.difference_update(part)

    def _key_of(self, vehicle: str) -> pb.Operation:
        key = self._keys.kept_by(vehicle, self._edge)
        owner = self.foreign.get(vehicle)
        if owner is None:
            return pb.Operation(delete=pb.DeleteRequest(key=key))
        return put(key, owner.encode())

    async def _sweep(self) -> None:
        """Forget foreign vehicles of which nothing is left here."""
        vehicles = iter(list(self.foreign))
        while part := list(islice(vehicles, SLICE)):
            for vehicle in part:
                if not self._holdings.holds(VEHICLE, vehicle):
                    self.foreign.pop(vehicle, None)
                    self._unwritten.add(vehicle)
            await asyncio.sleep(0)
        await self._write()
