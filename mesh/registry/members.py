"""Who is there: edges, cores and front doors announce themselves in etcd under a lease.

It knows names, addresses and epochs. It never knows what members say to each other, nor whether one is well: that the
links show.

What always holds:

- A member's epoch is higher than that of every process that had its name before, and a process that sees a higher one
  stops announcing itself.
- While etcd is away the last known members stay: a registry that is away must not make anybody disappear.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, absent, get, holds, put, unchanged
from mesh.registry.errors import BadRecord, Conflict, Superseded
from mesh.registry.keys import Keys
from mesh.registry.lease import TTL, Lease
from mesh.registry.watch import Watch

log = logging.getLogger("mesh.registry.members")

MAX_MEMBERS: Final = 10_000
"""Members that are kept; far more than one mesh can link, so only a fault, or somebody else's keys, gets there."""

TRIES: Final = 16
"""How often an epoch is asked for again, because another process of the same name took one at the same time."""


@final
class Member:
    """One node. ``role`` is ``edge``, ``core`` or ``door``; ``ports`` are TCP ports of ``host`` by their purpose, as
    ``device`` and ``tier``; ``pool`` is that of an edge, else empty. Two are equal if they say the same."""

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
        """The form in etcd: a JSON object with all fields."""
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
    raise BadRecord(f"{entry.key.decode(errors='replace')} holds {entry.value[:200]!r}, which is no member")


OnChange = Callable[[Member | None, Member | None], None]
"""Old and new state of one member; ``old`` None: it has come, ``new`` None: it has gone."""


def ignore(old: Member | None, new: Member | None) -> None:
    """Nobody listens."""


def nothing() -> None:
    """Nobody listens."""


@final
class Announcement:
    """One process's own entry, kept for as long as it lives."""

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
        """What is announced. Its epoch is 0 until etcd gave one."""
        self.on_lost: Callable[[], None] = nothing
        """The lease may have ended: others may not see this member, until it is announced again by itself."""
        self.on_superseded: Callable[[], None] = nothing
        """A newer process has this name. This one is not announced any more, and should end."""

    @property
    def epoch(self) -> int:
        return self.member.epoch

    @property
    def announced(self) -> bool:
        """Whether others can see the present entry, as far as this process knows."""
        return self._lease.held

    async def start(self, wait: float = 5.0) -> bool:
        """Take an epoch and announce; gives whether that was done within ``wait`` seconds. If not, it goes on trying.

        Raises RegistryError for what waiting does not cure (wrong password)."""
        return await self._lease.start(wait)

    def update(self, *, host: str | None = None, ports: Mapping[str, int] | None = None) -> None:
        """Announce another address, soon; etcd may be away."""
        old = self.member
        self.member = Member(
            old.name, old.role, host or old.host, old.ports if ports is None else ports, old.pid, old.epoch, old.pool
        )
        self._lease.refresh()

    async def stop(self) -> None:
        """Take the entry back."""
        await self._lease.stop()

    def _lost(self) -> None:
        self.on_lost()

    async def _announce(self, lease: int) -> None:
        """Write the entry, if no newer process has the name: the counter still stands at our epoch."""
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
                raise Superseded(f"{self.member.name} was started again elsewhere, with epoch {_number(found[0])}")
            # etcd lost its state, or was set back: the counter must not go back with it.
            await self._count(counter, found, self.member.epoch)
        raise Conflict(f"the epoch of {self.member.name} is changed by others all the time")

    async def _take_epoch(self) -> int:
        counter = self._keys.epoch(self.member.name)
        for _ in range(TRIES):
            entry = await self._client.get(counter)
            found = [] if entry is None else [entry]
            epoch = _number(found[0]) + 1 if found else 1
            # If this is done twice because an answer was lost, the second try fails and takes the number after it: a
            # gap harms nobody.
            if await self._count(counter, found, epoch):
                return epoch
        raise Conflict(f"the epoch of {self.member.name} is changed by others all the time")

    async def _count(self, counter: bytes, found: Sequence[pb.KeyValue], epoch: int) -> bool:
        """Set the counter from what was found to ``epoch``; gives whether it was still so."""
        unseen = unchanged(counter, found[0].mod_revision) if found else absent(counter)
        request = pb.TxnRequest(compare=[unseen], success=[put(counter, b"%d" % epoch)])
        return (await self._client.txn(request, retry=True)).succeeded


def _number(entry: pb.KeyValue) -> int:
    try:
        return int(entry.value)
    except ValueError:
        raise BadRecord(
            f"{entry.key.decode(errors='replace')} holds {entry.value[:80]!r}, which is no number"
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
        """Called for every change, once it is applied; also for those who are there at the start."""

    async def start(self, wait: float = 5.0) -> bool:
        """Load and follow the members; gives whether they were loaded within ``wait`` seconds. If not, it goes on
        trying.

        Raises RegistryError for what waiting does not cure (wrong password)."""
        return await self._watch.start(wait)

    async def stop(self) -> None:
        await self._watch.stop()

    @property
    def live(self) -> bool:
        """Whether changes arrive at this time."""
        return self._watch.live

    def get(self, name: str) -> Member | None:
        return self._members.get(self._keys.member(name))

    def all(self, role: str | None = None) -> list[Member]:
        """The members, or those of one role, in the order of their names."""
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

    def end(self) -> None:
        found, self._found = self._found, {}
        for key in [key for key in self._members if key not in found]:
            self._set(key, None)
        for key, member in found.items():
            self._set(key, member)

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
            log.error("%s is ignored: there are %d members already", key.decode(errors="replace"), MAX_MEMBERS)
            return
        else:
            self._members[key] = new
        self.on_change(old, new)

    def _decoded(self, entry: pb.KeyValue) -> Member | None:
        try:
            return decode(entry)
        except BadRecord as error:
            log.error("a member is ignored: %s", error)
            return None


async def members(client: EtcdClient, mesh: str) -> list[Member]:
    """All members straight from etcd, in the order of their names. Raises RegistryError."""
    found: list[Member] = []
    pages = client.pages(Keys(mesh).members)
    try:
        async for page in pages:
            found.extend(decode(entry) for entry in page.kvs)
    finally:
        await pages.aclose()
    return found
