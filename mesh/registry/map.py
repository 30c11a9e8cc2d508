"""The vehicle map: which edge owns which vehicle.

It knows records, keeps a bounded part of them in memory, and creates a record by the first claim that etcd accepts. It
must never know the health of members, connections or messages.

What always holds:

- An existing record is the answer, even if its edge is not healthy; ``claim`` chooses only for a vehicle without a
  record, and only ``move`` changes one.
- A cached record is never older than one that was returned before, and follows etcd by a watch.
- While etcd is unavailable, cached records are returned as before; a miss raises Unavailable within ``DEADLINE``
  seconds. When etcd is available again, the map recovers without a call.
- At most ``limit`` records are in memory; the least recently used one is evicted first.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.batch import DEADLINE, Batcher
from mesh.registry.cache import RecordCache
from mesh.registry.client import EtcdClient, absent, get, put, unchanged
from mesh.registry.errors import BadRecord, Conflict, NoEdge, Unavailable
from mesh.registry.keys import Keys, after
from mesh.registry.record import Record, decode
from mesh.registry.rendezvous import choose
from mesh.registry.watch import PORTION, Watch

log = logging.getLogger("mesh.registry.map")

LIMIT: Final = 200_000
"""Records in memory: about 0.3 KB each, so some 60 MB. One process serves at most about as many vehicles; the fleet may
be many times larger."""

BATCH: Final = 120
"""Keys in one transaction. etcd accepts 128 operations, and counts the outer and the inner ones of a claim together."""

TRIES: Final = 8
"""How often a claim may be merged into a pending lookup that finds no record."""

OnChange = Callable[[Record | None, Record | None], None]
"""Old and new record of one vehicle. ``old`` None: it had none, or the old one is unknown. ``new`` None: it was
deleted."""

Proposal = tuple[str, str] | None
"""The (pool, edge) to write if the vehicle has no record; None: only look up."""


def ignore(old: Record | None, new: Record | None) -> None:
    """The default: no listener."""


def nothing() -> None:
    """The default: no listener."""


@final
class VehicleMap:
    """The map of one mesh, as one process sees it. Use it in one event loop."""

    __slots__ = (
        "_batcher",
        "_changes",
        "_client",
        "_complete",
        "_fits",
        "_keys",
        "_loaded",
        "_prefix",
        "_renewed",
        "_seen",
        "_since",
        "_snapshot",
        "_watch",
        "evicted",
        "on_change",
        "on_reset",
        "recent",
    )

    def __init__(self, client: EtcdClient, mesh: str, *, limit: int = LIMIT, deadline: float = DEADLINE) -> None:
        if limit < 1:
            raise ValueError(f"the limit of the map's memory must be at least 1 record, not {limit}")
        self._client = client
        self._keys = Keys(mesh)
        self._prefix = len(self._keys.vehicles)
        self.recent = RecordCache(limit)
        """The records in memory, for callers that look up too often to call ``cached``."""
        self._batcher: Batcher[Proposal, Record | BadRecord | None] = Batcher(
            "vehicle", self._ask, size=BATCH, deadline=deadline
        )
        self._watch = Watch(client, self._keys.vehicles, self)
        # Changes that the watch reported for vehicles with a pending question: (revision, record).
        self._changes: dict[str, tuple[int, Record | None]] = {}
        self._complete = False
        self._loaded = False
        # Of the snapshot that is being read: its revision, the last revision applied before it, whether all records fit
        # into memory, and its vehicles.
        self._snapshot = 0
        self._since = 0
        self._fits = False
        self._seen: set[str] = set()
        self._renewed = False
        self.on_reset: Callable[[], None] = nothing
        """Called after a snapshot of another history than the one followed before: etcd was emptied or set back."""
        self.on_change: OnChange = ignore
        """Called for every change of the map, in order, after it is applied here: for cached and other records, and for
        own claims and moves."""
        self.evicted = 0
        """Records evicted from memory to make room for others."""

    async def start(self, wait: float = 5.0) -> bool:
        """Load and follow the map; return whether it was loaded within ``wait`` seconds. If not, the attempts continue,
        and single questions are answered as soon as etcd is available. Raises RegistryError if waiting cannot help
        (wrong password)."""
        return await self._watch.start(wait)

    async def renew(self, wait: float = 5.0) -> bool:
        """Load the map again, as after a reset that the watch cannot have seen; ``on_reset`` is not called. Returns
        whether it was loaded within ``wait`` seconds; if not, the attempts continue."""
        await self._watch.stop()
        self._renewed = True
        self._watch = Watch(self._client, self._keys.vehicles, self)
        return await self._watch.start(wait)

    async def stop(self) -> None:
        """End the watch; all pending questions fail with Unavailable. The client stays open."""
        await self._watch.stop()
        await self._batcher.close()
        self._changes.clear()

    @property
    def live(self) -> bool:
        """Whether the watch is open and up to date."""
        return self._watch.live

    @property
    def revision(self) -> int:
        """etcd's revision up to which changes are applied here."""
        return self._watch.revision

    def __len__(self) -> int:
        """Records in memory."""
        return len(self.recent)

    def cached(self, vehicle: str) -> Record | None:
        """The record in memory, or None, which does not mean that etcd has none."""
        return self.recent.get(vehicle)

    async def lookup(self, vehicle: str) -> Record | None:
        """The vehicle's record; None if it has none. Raises Unavailable, BadRecord; ValueError for an invalid name."""
        record = self.cached(vehicle)
        if record is None:
            self._keys.vehicle(vehicle)
            record = _unwrap(await self._batcher.ask(vehicle, None))
        return record

    async def claim(self, vehicle: str, pool: str, edges: Mapping[str, float]) -> Record:
        """The vehicle's record; if it has none, write one with an edge chosen from ``edges``, the pool's healthy edges
        (name → weight).

        The first write decides; all other callers get the same answer. Raises NoEdge if there is neither a record nor
        an edge to choose, and what ``lookup`` raises. After Unavailable the record may have been written; claiming
        again is safe."""
        record = await self.lookup(vehicle) if not edges else self.cached(vehicle)
        if record is not None:
            return record
        edge = choose(vehicle, edges)
        if edge is None:
            raise NoEdge(f"vehicle {vehicle!r} is new and pool {pool!r} has no healthy edge for it")
        self._keys.vehicle(vehicle)
        for _ in range(TRIES):
            record = _unwrap(await self._batcher.ask(vehicle, (pool, edge)))
            if record is not None:
                return record
        raise Unavailable(f"vehicle {vehicle!r}: {TRIES} claims were merged into lookups")

    async def move(self, vehicle: str, edge: str, pool: str | None = None) -> Record:
        """Make ``edge`` the owner of the vehicle, with the next epoch; the pool stays the same unless ``pool`` is
        given.

        Raises Conflict if the vehicle has no record or another process changes it at the same time, Unavailable if the
        result is unknown; moving again is safe."""
        key = self._keys.vehicle(vehicle)
        old = await where(self._client, self._keys.mesh, vehicle)
        if old is None:
            raise Conflict(f"vehicle {vehicle!r} has no record, so it cannot be moved")
        if old.edge == edge and pool in (None, old.pool):
            return old
        new = Record(vehicle, edge, old.pool if pool is None else pool, old.epoch + 1)
        request = pb.TxnRequest(
            compare=[unchanged(key, old.revision)], success=[put(key, new.value())], failure=[get(key)]
        )
        done = await self._client.txn(request, retry=True)
        if done.succeeded:
            new.revision = done.header.revision
        else:
            # An earlier try whose answer was lost may have written this record.
            found = done.responses[0].range.kvs
            current = decode(self._prefix, found[0]) if found else None
            if current != new or current is None:
                raise Conflict(f"vehicle {vehicle!r} was not moved: another process changed it to {current!r}")
            new = current
        self._learn(vehicle, new, done.header.revision)
        return new

    # Questions

    async def _ask(self, batch: Sequence[tuple[str, Proposal]], timeout: float) -> dict[str, Record | BadRecord | None]:
        """Look up or claim several vehicles in one transaction. Without a claim among them etcd writes nothing."""
        try:
            request = pb.TxnRequest(success=[self._operation(vehicle, proposal) for vehicle, proposal in batch])
            # A retry of a claim is harmless: it finds the record of the first try.
            done = await self._client.txn(request, timeout=timeout, retry=True)
            answers: dict[str, Record | BadRecord | None] = {}
            for (vehicle, proposal), outcome in zip(batch, done.responses, strict=True):
                try:
                    record = self._result(vehicle, proposal, outcome, done.header.revision)
                except BadRecord as error:
                    answers[vehicle] = error
                else:
                    answers[vehicle] = self._learn(vehicle, record, done.header.revision)
            return answers
        finally:
            for vehicle, _ in batch:
                self._changes.pop(vehicle, None)

    def _operation(self, vehicle: str, proposal: Proposal) -> pb.Operation:
        key = self._keys.vehicle(vehicle)
        if proposal is None:
            return get(key)
        record = Record(vehicle, proposal[1], proposal[0], 1)
        return pb.Operation(
            txn=pb.TxnRequest(compare=[absent(key)], success=[put(key, record.value())], failure=[get(key)])
        )

    def _result(self, vehicle: str, proposal: Proposal, outcome: pb.Outcome, revision: int) -> Record | None:
        if proposal is not None:
            if outcome.txn.succeeded:
                return Record(vehicle, proposal[1], proposal[0], 1, revision)
            outcome = outcome.txn.responses[0]
        found = outcome.range.kvs
        return decode(self._prefix, found[0]) if found else None

    def _learn(self, vehicle: str, record: Record | None, revision: int) -> Record | None:
        """Apply etcd's answer as of ``revision``, unless the watch reported a newer state; return the newest record."""
        change = self._changes.pop(vehicle, None)
        if change is not None and change[0] > revision:
            record = change[1]
        else:
            known = self.recent.peek(vehicle)
            if known is not None and known.revision > revision:
                record = known
        if record is None:
            self.recent.forget(vehicle)
        else:
            self._store(record)
        return record

    def _store(self, record: Record) -> None:
        if self.recent.put(record):
            self.evicted += 1
            self._complete = self._fits = False

    # The follower of the watch

    def begin(self, revision: int, since: int) -> None:
        self._snapshot = revision
        self._since = since
        self._fits = True
        self._seen = set()

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        """The first snapshot fills the memory and stops there. A later one is read to its end: it replaces changes that
        the watch missed, and a listener may wait for a change of a vehicle that is not in memory."""
        for entry in entries:
            record = self._decoded(entry)
            if record is not None:
                self._take(record)
        return self._loaded or self._fits

    def _take(self, record: Record) -> None:
        vehicle = record.vehicle
        known = self.recent.peek(vehicle)
        if known is not None and self._since and known.revision > self._snapshot:
            self._seen.add(vehicle)
            return
        if self.recent.fill(record):
            self._seen.add(vehicle)
        else:
            self._fits = False
        if (known is not None and known != record) or (self._since and record.revision > self._since):
            self.on_change(None if known == record else known, record)

    def end(self) -> Iterator[None]:
        if self._loaded:
            yield from self._drop_unseen()
        self._seen = set()
        self._complete = self._fits
        reset = self._loaded and self._since == 0 and not self._renewed
        self._loaded = True
        self._renewed = False
        if reset:
            self.on_reset()

    def _drop_unseen(self) -> Iterator[None]:
        """A record in memory that is not in the snapshot was deleted, unless it is newer than the snapshot: written
        after it, or in the meantime."""
        for index, record in enumerate(self.recent.all()):
            if index % PORTION == 0:
                yield
            newer = self._since and record.revision > self._snapshot
            if self.recent.peek(record.vehicle) is record and record.vehicle not in self._seen and not newer:
                self.recent.forget(record.vehicle)
                self.on_change(record, None)

    def apply(self, events: Sequence[pb.Event]) -> None:
        for event in events:
            vehicle = event.kv.key[self._prefix :].decode(errors="replace")
            record = self._decoded(event.kv) if event.type == pb.Event.PUT else None
            if record is None and event.type == pb.Event.PUT:
                continue
            self._change(vehicle, record, event)

    def _change(self, vehicle: str, record: Record | None, event: pb.Event) -> None:
        revision = event.kv.mod_revision
        known = self.recent.peek(vehicle)
        old = known if known is not None and known.revision < revision else None
        if old is None and event.prev_kv.mod_revision:
            old = self._decoded(event.prev_kv)
        if vehicle in self._batcher:
            self._changes[vehicle] = (revision, record)
        if known is None or known.revision < revision:
            if record is None:
                self.recent.forget(vehicle)
            elif known is not None:
                self.recent.fill(record)
            elif self._complete:
                self._store(record)
        self.on_change(old, record)

    def _decoded(self, entry: pb.KeyValue) -> Record | None:
        try:
            return decode(self._prefix, entry)
        except BadRecord as error:
            log.error("ignoring a record of the map: %s", error)
            return None


def _unwrap(answer: Record | BadRecord | None) -> Record | None:
    if isinstance(answer, BadRecord):
        raise answer
    return answer


async def where(client: EtcdClient, mesh: str, vehicle: str) -> Record | None:
    """One vehicle's record, read from etcd without a map; None if it has none. Raises RegistryError."""
    keys = Keys(mesh)
    entry = await client.get(keys.vehicle(vehicle))
    return None if entry is None else decode(len(keys.vehicles), entry)


async def kept_by(client: EtcdClient, mesh: str, vehicle: str) -> list[str]:
    """The edges that keep sessions of a vehicle that belongs to another edge, sorted. Raises RegistryError."""
    prefix = Keys(mesh).kept_of(vehicle)
    found = await client.range(pb.RangeRequest(key=prefix, range_end=after(prefix), keys_only=True, limit=BATCH))
    return [entry.key[len(prefix) :].decode(errors="replace") for entry in found.kvs]


async def records(client: EtcdClient, mesh: str) -> AsyncGenerator[list[Record], None]:
    """All records of the mesh as of one revision, some hundred at a time, sorted by vehicle. Raises RegistryError."""
    keys = Keys(mesh)
    pages = client.pages(keys.vehicles)
    try:
        async for page in pages:
            yield [decode(len(keys.vehicles), entry) for entry in page.kvs]
    finally:
        await pages.aclose()
