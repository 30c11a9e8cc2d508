"""Membership: edges, cores and front doors announce themselves in etcd under a lease.

It knows names, addresses and epochs. It must never know the messages between members, nor their health: the links show
that.

What always holds:

- A member's epoch is higher than that of every earlier process with its name, and a process that sees a higher one
  stops announcing itself.
- While etcd is unavailable the last known members stay: an unavailable registry must not remove any member.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, absent, get, holds, put, unchanged
from mesh.registry.errors import BadRecord, Conflict, Superseded
from mesh.registry.keys import Keys
from mesh.registry.lease import TTL, Lease
from mesh.registry.watch import PORTION, Watch

log = logging.getLogger("mesh.registry.members")

MAX_MEMBERS: Final = 10_000
"""Members in memory; far more than one mesh can link, so only a fault or foreign keys can reach this limit."""

TRIES: Final = 16
"""How often an epoch is requested again because another process of the same name took one at the same time."""


@final
class Member:
    """One node. ``role`` is ``edge``, ``core`` or ``door``; ``ports`` are TCP ports of ``host`` by purpose, such as
    ``device`` and ``tier``; ``pool`` is the pool of an edge, else empty. Members with equal fields are equal."""

    FIELDS = ("name", "role", "host", "ports", "pid", "epoch", "pool")
    __slots__ = FIELDS

    def __init__(
        self, name: str, role: str, host: str, ports: Mapping[str, int], pid: int = 0, epoch: int = 0, pool: str = ""
    ) -> None:
        self.name = name
        self.role = role
        self.host = host
        self.ports = dict(ports)
        self.pid = pid
        self.epoch = epoch
        self.pool = pool

    def fields(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.FIELDS}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash((self.name, self.epoch))

    def __repr__(self) -> str:
        return f"Member({', '.join(f'{name}={value!r}' for name, value in self.fields().items())})"

    def value(self) -> bytes:
        """The value in etcd: a JSON object with all fields."""
        return json.dumps(self.fields(), separators=(",", ":")).encode()


def decode(entry: pb.KeyValue) -> Member:
    """The member in ``entry``. Raises BadRecord."""
    try:
        fields = json.loads(entry.value)
        member = Member(*(fields[name] for name in Member.FIELDS))
        texts = (member.name, member.role, member.host, member.pool)
        numbers = (member.pid, member.epoch, *member.ports.values())
        if all(type(text) is str for text in texts) and all(type(number) is int for number in numbers):
            return member
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise BadRecord(
        f"{entry.key.decode(errors='replace')} holds {entry.value[:200]!r}, which is not a member; "
        f"right would be a JSON object with the fields {', '.join(Member.FIELDS)}"
    )


OnChange = Callable[[Member | None, Member | None], None]
"""Old and new state of one member; ``old`` None: it is new, ``new`` None: it was removed."""


def ignore(old: Member | None, new: Member | None) -> None:
    """The default: no listener."""


def nothing() -> None:
    """The default: no listener."""


@final
class Announcement:
    """The entry of this process, kept while the process lives."""

    __slots__ = ("_client", "_keys", "_lease", "member", "on_lost", "on_superseded")

    def __init__(
        self,
        client: EtcdClient,
        mesh: str,
        *,
        name: str,
        role: str,
        host: str,
        ports: Mapping[str, int],
        pool: str = "",
        ttl: int = TTL,
    ) -> None:
        self._client = client
        self._keys = Keys(mesh)
        self._keys.member(name)
        self._lease = Lease(client, self._announce, self._lost, ttl=ttl)
        self.member = Member(name, role, host, ports, os.getpid(), 0, pool)
        """The announced entry. Its epoch is 0 until etcd assigned one."""
        self.on_lost: Callable[[], None] = nothing
        """Called if the lease may have ended: others may not see this member until it is announced again, without a
        call."""
        self.on_superseded: Callable[[], None] = nothing
        """Called if a newer process has this name. This process is not announced any longer, and should end."""

    @property
    def epoch(self) -> int:
        return self.member.epoch

    @property
    def announced(self) -> bool:
        """Whether the current entry is in etcd, as far as this process knows."""
        return self._lease.held

    async def start(self, wait: float = 5.0) -> bool:
        """Take an epoch and announce; return whether that succeeded within ``wait`` seconds. If not, the attempts
        continue.

        Raises RegistryError if waiting cannot help (wrong password)."""
        return await self._lease.start(wait)

    def update(self, *, host: str | None = None, ports: Mapping[str, int] | None = None) -> None:
        """Announce another address, as soon as etcd is available."""
        old = self.member
        self.member = Member(
            old.name, old.role, host or old.host, old.ports if ports is None else ports, old.pid, old.epoch, old.pool
        )
        self._lease.refresh()

    async def stop(self) -> None:
        """Remove the entry."""
        await self._lease.stop()

    def _lost(self) -> None:
        self.on_lost()

    async def _announce(self, lease: int) -> None:
        """Write the entry if no newer process has the name, that is, if the counter still equals this epoch."""
        if not self.member.epoch:
            self.member.epoch = await self._take_epoch()
        counter = self._keys.epoch(self.member.name)
        entry = put(self._keys.member(self.member.name), self.member.value(), lease)
        for _ in range(TRIES):
            mine = holds(counter, b"%d" % self.member.epoch)
            done = await self._client.txn(
                pb.TxnRequest(compare=[mine], success=[entry], failure=[get(counter)]), retry=True
            )
            if done.succeeded:
                return
            found = done.responses[0].range.kvs
            if found and _number(found[0]) > self.member.epoch:
                self.on_superseded()
                raise Superseded(f"a newer process has the name {self.member.name}: its epoch is {_number(found[0])}")
            # etcd lost its state, or was restored to an older one: the counter must not go back.
            await self._count(counter, found, self.member.epoch)
        raise Conflict(f"the epoch of {self.member.name} was changed by other processes in {TRIES} tries")

    async def _take_epoch(self) -> int:
        counter = self._keys.epoch(self.member.name)
        for _ in range(TRIES):
            entry = await self._client.get(counter)
            found = [] if entry is None else [entry]
            epoch = _number(found[0]) + 1 if found else 1
            # If an answer is lost and the call is repeated, the second try fails and the next number is taken: a gap in
            # the epochs is harmless.
            if await self._count(counter, found, epoch):
                return epoch
        raise Conflict(f"the epoch of {self.member.name} was changed by other processes in {TRIES} tries")

    async def _count(self, counter: bytes, found: Sequence[pb.KeyValue], epoch: int) -> bool:
        """Set the counter to ``epoch`` if it is still as found; return whether it was set."""
        unseen = unchanged(counter, found[0].mod_revision) if found else absent(counter)
        request = pb.TxnRequest(compare=[unseen], success=[put(counter, b"%d" % epoch)])
        return (await self._client.txn(request, retry=True)).succeeded


def _number(entry: pb.KeyValue) -> int:
    try:
        return int(entry.value)
    except ValueError:
        raise BadRecord(
            f"{entry.key.decode(errors='replace')} holds {entry.value[:80]!r}; right would be an integer"
        ) from None


@final
class Members:
    """All members of one mesh, as one process sees them."""

    __slots__ = ("_found", "_keys", "_members", "_watch", "on_change")

    def __init__(self, client: EtcdClient, mesh: str) -> None:
        self._keys = Keys(mesh)
        self._watch = Watch(client, self._keys.members, self)
        self._members: dict[bytes, Member] = {}
        self._found: dict[bytes, Member] = {}
        self.on_change: OnChange = ignore
        """Called for every change, after it is applied; also for each member that exists at the start."""

    async def start(self, wait: float = 5.0) -> bool:
        """Load and follow the members; return whether they were loaded within ``wait`` seconds. If not, the attempts
        continue.

        Raises RegistryError if waiting cannot help (wrong password)."""
        return await self._watch.start(wait)

    async def stop(self) -> None:
        await self._watch.stop()

    @property
    def live(self) -> bool:
        """Whether the watch is open and up to date."""
        return self._watch.live

    def get(self, name: str) -> Member | None:
        return self._members.get(self._keys.member(name))

    def all(self, role: str | None = None) -> list[Member]:
        """The members, or those of one role, sorted by name."""
        found = (member for member in self._members.values() if role is None or member.role == role)
        return sorted(found, key=lambda member: member.name)

    # The follower of the watch

    def begin(self, revision: int, since: int) -> None:
        self._found = {}

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        for entry in entries:
            member = self._decoded(entry)
            if member is not None and len(self._found) < MAX_MEMBERS:
                self._found[entry.key] = member
        return len(self._found) < MAX_MEMBERS

    def end(self) -> Iterator[None]:
        found, self._found = self._found, {}
        changes: list[tuple[bytes, Member | None]] = [(key, None) for key in self._members if key not in found]
        changes += found.items()
        for index, (key, member) in enumerate(changes):
            self._set(key, member)
            if index % PORTION == PORTION - 1:
                yield

    def apply(self, events: Sequence[pb.Event]) -> None:
        for event in events:
            if event.type == pb.Event.DELETE:
                self._set(event.kv.key, None)
            else:
                member = self._decoded(event.kv)
                if member is not None:
                    self._set(event.kv.key, member)

    def _set(self, key: bytes, new: Member | None) -> None:
        old = self._members.get(key)
        if old == new:
            return
        if new is None:
            del self._members[key]
        elif old is None and len(self._members) >= MAX_MEMBERS:
            log.error("ignoring %s: there are already %d members", key.decode(errors="replace"), MAX_MEMBERS)
            return
        else:
            self._members[key] = new
        self.on_change(old, new)

    def _decoded(self, entry: pb.KeyValue) -> Member | None:
        try:
            return decode(entry)
        except BadRecord as error:
            log.error("ignoring a member: %s", error)
            return None


async def members(client: EtcdClient, mesh: str) -> list[Member]:
    """All members, read from etcd, sorted by name. Raises RegistryError."""
    found: list[Member] = []
    pages = client.pages(Keys(mesh).members)
    try:
        async for page in pages:
            found.extend(decode(entry) for entry in page.kvs)
    finally:
        await pages.aclose()
    return found
