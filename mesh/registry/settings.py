"""The settings of a mesh in etcd: revisions, the one in force, a proposal, the nodes' votes and confirmations; the run.

It knows keys and compare-and-swap. It must never know what the settings mean, nor which nodes have to agree.

What always holds:

- A number names one revision for ever: it is not used again after a proposal was withdrawn, so a late vote for a
  withdrawn proposal counts for no other.
- There is one proposal at a time. It and its revision are under a lease, so that a command that was killed leaves
  nothing behind; with the commit the revision stays.
- What puts a revision in force also notes that in the audit log.
- Of two writers that have seen the same revision in force, one succeeds and the other gets ``Conflict``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.audit import Act, AuditLog, shortened
from mesh.registry.client import EtcdClient, absent, get, holds, put, unchanged
from mesh.registry.errors import BadRecord, Conflict, LeaseLost, RegistryError, TooLarge
from mesh.registry.keys import Keys

KEPT: Final = 100
"""Revisions that are kept."""

MOST: Final = 1_500_000
"""Bytes of one revision: etcd takes requests of 1.5 MiB."""

PROPOSED: Final = 30
"""Seconds that a proposal lives after its command was killed."""

_TRIES: Final = 16  # of a number that other processes write at the same time
_PAGE: Final = 8  # revisions in one answer of etcd, each of which may have ``MOST`` bytes


@final
@dataclass(frozen=True, slots=True)
class Revision:
    """``number``: of a draft, a number below which none is given, as etcd may have lost the last one. ``settings`` is a
    whole topology as plain values. ``at``: when it was made, in seconds since 1970; ``by``,
    ``host``: the user who made it, and the machine; ``changes``: a line for each; ``over``: the seconds in which a
    front door that is restarted for it sends its connections away; ``command``: which made it."""

    number: int
    settings: dict[str, Any]
    at: float
    by: str
    host: str
    changes: tuple[str, ...] = ()
    over: float = 0.0
    command: str = "mesh up"


@final
@dataclass(frozen=True, slots=True)
class Proposal:
    """A revision that is proposed. ``seen``: etcd's revision of the key of the settings in force, 0 for none."""

    revision: Revision
    lease: int
    seen: int

    @property
    def number(self) -> int:
        return self.revision.number


@final
@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a node says of the settings in force: an empty ``error`` if it follows ``revision``."""

    revision: int
    error: str
    at: float


@final
class SettingsStore:
    """Reads and writes the settings, for nodes, commands and the controller. Every method raises RegistryError."""

    __slots__ = ("_audit", "_client", "_keys")

    def __init__(self, client: EtcdClient, mesh: str) -> None:
        self._client = client
        self._keys = Keys(mesh)
        self._audit = AuditLog(client, mesh)

    # Reading

    async def current(self) -> Revision | None:
        """The revision in force."""
        number, _ = await self._number(self._keys.current)
        return await self.revision(number) if number else None

    async def revision(self, number: int) -> Revision | None:
        """A revision that was in force, or is proposed."""
        found = await self._client.get(self._keys.revision(number))
        return None if found is None else revision_in(found)

    async def history(self) -> list[Revision]:
        """The revisions that are or were in force, newest first."""
        found: list[Revision] = []
        async for page in self._client.pages(self._keys.revisions, page=_PAGE):
            found += [revision_in(entry) for entry in page.kvs if not entry.lease]
        return found[::-1]

    async def votes(self, number: int) -> dict[str, str]:
        """What nodes say against this proposal, by name; an empty sentence is a vote for it."""
        said = await self._by_node(self._keys.votes)
        return {name: str(value["error"]) for name, value in said.items() if value["revision"] == number}

    async def confirmed(self) -> dict[str, Confirmation]:
        """What each node says of the settings in force, by name."""
        said = await self._by_node(self._keys.confirmed)
        return {
            name: Confirmation(int(value["revision"]), str(value["error"]), float(value.get("at", 0.0)))
            for name, value in said.items()
        }

    # Writing

    async def propose(self, draft: Revision, base: int, ttl: int = PROPOSED) -> Proposal:
        """Propose a revision, which gets its number here. ``base``: the one that it was made for, 0 for none. Nothing
        is proposed if this raises: ``Conflict`` if another is in force by now, or proposed; ``TooLarge``."""
        made, seen, last_seen = await self._numbered(draft, base)
        value = encode(made)
        lease, _ = await self._client.grant(ttl)
        request = pb.TxnRequest(
            compare=[
                absent(self._keys.proposed), _as_seen(self._keys.current, seen), _as_seen(self._keys.last, last_seen)
            ],
            success=[
                put(self._keys.revision(made.number), value, lease),
                put(self._keys.proposed, _number_value(made.number), lease),
                put(self._keys.last, _number_value(made.number)),
            ],
        )  # fmt: skip
        try:
            if (await self._client.txn(request)).succeeded:
                return Proposal(made, lease, seen)
        except BaseException:
            # It may have been written. What cannot be removed now ends with its lease.
            with contextlib.suppress(RegistryError):
                await self._client.revoke(lease)
            raise
        await self._revoke(lease)
        raise Conflict("another command proposes a change at present; try again when it has ended")

    async def commit(self, proposal: Proposal) -> None:
        """Put a proposal in force. Raises ``Conflict`` if its time is over, or another revision is in force; after
        ``Unavailable`` it may be in force or not."""
        keys, number = self._keys, proposal.number
        request = pb.TxnRequest(
            compare=[holds(keys.proposed, _number_value(number)), _as_seen(keys.current, proposal.seen)],
            success=[
                *self._in_force(proposal.revision),
                pb.Operation(delete=pb.DeleteRequest(key=keys.proposed)),
            ],
            failure=[get(keys.revision(number))],
        )
        done = await self._client.txn(request, retry=True)
        if done.succeeded:
            await self._trim()
            return
        # A repeated call whose first try was written finds the revision, which has no lease then.
        found = done.responses[0].range.kvs
        if not found or found[0].lease:
            raise Conflict(f"the proposal of revision {number} has ended: no command may take longer than its time")

    async def withdraw(self, proposal: Proposal) -> None:
        """Remove a proposal. One that is in force stays so."""
        await self._revoke(proposal.lease)

    async def first(self, draft: Revision) -> Revision:
        """Put a revision in force without votes, for a mesh that does not run. A proposal that a killed command left is
        no obstacle, and cannot be committed then. Raises ``Conflict``, ``TooLarge``."""
        made, seen, last_seen = await self._numbered(draft)
        request = pb.TxnRequest(
            compare=[_as_seen(self._keys.current, seen), _as_seen(self._keys.last, last_seen)],
            success=[*self._in_force(made), put(self._keys.last, _number_value(made.number))],
        )
        if not (await self._client.txn(request)).succeeded:
            raise Conflict("another command changes the settings at present")
        await self._trim()
        return made

    async def raise_last(self, number: int) -> None:
        """See that no number up to this one is given again: etcd may have been emptied, or set back to an older state.
        Raises ``Conflict`` if other processes write all the time."""
        for _ in range(_TRIES):
            last, seen = await self._number(self._keys.last)
            if last >= number:
                return
            request = pb.TxnRequest(
                compare=[_as_seen(self._keys.last, seen)], success=[put(self._keys.last, _number_value(number))]
            )
            if (await self._client.txn(request, retry=True)).succeeded:
                return
        raise Conflict(f"the number of the last revision was changed by other processes in {_TRIES} tries")

    # The run of the mesh

    async def run(self) -> dict[str, Any] | None:
        """What ``write_run`` wrote; ``None`` if the mesh does not run."""
        found = await self._client.get(self._keys.run)
        return None if found is None else _object(found)

    async def write_run(self, value: Mapping[str, Any]) -> None:
        await self._client.put(self._keys.run, json.dumps(value).encode(), retry=True)

    async def remove_run(self) -> None:
        await self._client.delete(self._keys.run, retry=True)

    async def _number(self, key: bytes) -> tuple[int, int]:
        """The number in a key, and etcd's revision of the key; both 0 if there is none."""
        found = await self._client.get(key)
        return (0, 0) if found is None else (number_in(found), found.mod_revision)

    async def _by_node(self, prefix: bytes) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        async for page in self._client.pages(prefix):
            for entry in page.kvs:
                value = _object(entry)
                if type(value.get("revision")) is int and type(value.get("error")) is str:
                    found[entry.key[len(prefix) :].decode(errors="replace")] = value
        return found

    async def _numbered(self, draft: Revision, base: int | None = None) -> tuple[Revision, int, int]:
        """The draft with its number, and etcd's revisions of the keys of the present and of the last number. Raises
        ``Conflict`` if another revision than ``base`` is in force, ``TooLarge``."""
        number, seen = await self._number(self._keys.current)
        if base is not None and number != base:
            raise Conflict(f"revision {number} is in force by now, made by another command")
        last, last_seen = await self._number(self._keys.last)
        made = replace(draft, number=max(last, number, draft.number) + 1)
        size = len(encode(made))
        if size > MOST:
            raise TooLarge(f"the settings have {size} bytes as JSON; etcd can keep at most {MOST}")
        return made, seen, last_seen

    def _in_force(self, revision: Revision) -> list[pb.Operation]:
        """What puts a revision in force, and forgets the oldest ones. Numbers of withdrawn proposals are missing, so
        fewer than ``KEPT`` may stay."""
        keys, number = self._keys, revision.number
        what = "; ".join(revision.changes) or "the settings as a whole"
        text = shortened(f"revision {number}: {what}")
        made = Act(revision.at, revision.by, revision.host, revision.command, text)
        done = [
            put(keys.revision(number), encode(revision)), put(keys.current, _number_value(number)),
            self._audit.noting(made),
        ]  # fmt: skip
        if number > KEPT:
            oldest = pb.DeleteRequest(key=keys.revision(0), range_end=keys.revision(number - KEPT + 1))
            done.append(pb.Operation(delete=oldest))
        return done

    async def _trim(self) -> None:
        with contextlib.suppress(RegistryError):  # the revision is in force; the next act makes up
            await self._audit.trim()

    async def _revoke(self, lease: int) -> None:
        with contextlib.suppress(LeaseLost):  # its time was over
            await self._client.revoke(lease)


def plain(revision: Revision) -> dict[str, Any]:
    """A revision as plain values, in etcd and in files."""
    return {
        "revision": revision.number, "settings": revision.settings, "at": revision.at, "by": revision.by,
        "host": revision.host, "changes": list(revision.changes), "over": revision.over,
        "command": revision.command,
    }  # fmt: skip


def encode(revision: Revision) -> bytes:
    """The value of a revision in etcd."""
    return json.dumps(plain(revision)).encode()


def from_plain(value: Mapping[str, Any]) -> Revision:
    """The inverse of ``plain``. Raises ``KeyError``, ``TypeError`` or ``ValueError`` for other values."""
    return Revision(
        int(value["revision"]), dict(value["settings"]), float(value["at"]), str(value["by"]), str(value["host"]),
        tuple(str(line) for line in value["changes"]), float(value.get("over", 0.0)),
        str(value.get("command", "mesh up")),
    )  # fmt: skip


def revision_in(entry: pb.KeyValue) -> Revision:
    """The revision in a value. Raises ``BadRecord``."""
    try:
        return from_plain(_object(entry))
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(entry, "an object with revision, settings, at, by, host and changes") from error


def number_in(entry: pb.KeyValue) -> int:
    """The number in a value. Raises ``BadRecord``."""
    number = _object(entry).get("revision")
    if type(number) is int and number > 0:
        return number
    raise _bad(entry, '{"revision": number}')


def _object(entry: pb.KeyValue) -> dict[str, Any]:
    try:
        value = json.loads(entry.value)
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    raise _bad(entry, "a JSON object")


def _bad(entry: pb.KeyValue, right: str) -> BadRecord:
    return BadRecord(f"{entry.key.decode(errors='replace')} holds {entry.value[:80]!r}; right would be {right}")


def _as_seen(key: bytes, seen: int) -> pb.Compare:
    return unchanged(key, seen) if seen else absent(key)


def _number_value(number: int) -> bytes:
    return json.dumps({"revision": number}).encode()
