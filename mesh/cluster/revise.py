"""How ``mesh plan`` and ``mesh up`` compare a file with the settings in force, and how a change becomes a revision.

Knows the registry's settings and the differences of topologies; never how a node takes a setting. What always holds:
both commands see the same differences; a change that any node refuses, or that one does not answer in time, is
withdrawn; success is reported only for nodes that have confirmed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from mesh.cluster.known import members
from mesh.cluster.owned import Owned, removed_cores, sessions, vehicles
from mesh.cluster.status import NodeRow
from mesh.registry.audit import user
from mesh.registry.client import EtcdClient
from mesh.registry.errors import Conflict, RegistryError
from mesh.registry.settings import Confirmation, Revision, SettingsStore
from mesh.topology.change import Change, Kind, changes, orphans, restarted
from mesh.topology.topology import Topology, as_dict, from_dict

# Seconds for the votes of all nodes, and for their confirmations.
VOTES: Final = 10.0
CONFIRMATIONS: Final = 10.0

_POLL: Final = 0.1

NOTHING_CHANGED: Final = "nothing was changed"

Tell = Callable[[str], None]


class NotChanged(Exception):
    """The settings in force are as before. One sentence for each reason."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(*reasons)
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        return "\n".join(self.reasons)


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """The differences between the settings in force and those of a file. ``revision``: of the settings in force, 0 if
    they are from the data folder's plan; that plan's number is ``kept`` then, as etcd may have lost its keys."""

    old: Topology
    new: Topology
    revision: int
    changes: tuple[Change, ...]
    owned: Owned = field(default_factory=Owned)
    kept: int = 0

    def of(self, kind: Kind) -> list[Change]:
        return [change for change in self.changes if change.kind is kind]

    @property
    def restarted(self) -> list[str]:
        """The nodes that are restarted, in the order of the changes."""
        return list(dict.fromkeys(name for change in self.of(Kind.ROLLING) for name in change.nodes))


@final
@dataclass(frozen=True, slots=True)
class Changed:
    """A revision that is in force. ``confirmed``: what each node says of it, an empty sentence if it has it;
    ``silent``: nodes that have not confirmed it in time."""

    revision: Revision
    confirmed: Mapping[str, str]
    silent: tuple[str, ...]


async def difference(
    client: EtcdClient, old: Topology, new: Topology, revision: int, rows: Callable[[], Sequence[NodeRow]],
    running: bool = True,
) -> Difference:  # fmt: skip
    """Compare two topologies, with what nodes own that the new one lacks. ``rows`` gets the status of all nodes; it is
    called only if a core is removed. A mesh that is down is also refused without any edge that owns vehicles. Raises
    ``RegistryError``."""
    found = changes(old, new, running=running)
    sections = {change.path.partition(".")[0] for change in found}
    owned = await vehicles(client, old, new) if "pools" in sections or not running else Owned()
    if removed_cores(old, new):
        owned = Owned({**owned.nodes, **sessions(old, new, await asyncio.to_thread(rows))}, owned.staying, owned.exact)
    if owned != Owned():
        found = changes(old, new, owned.nodes, exact=owned.exact, running=running)
    if not running:
        known = {edge.name for edge in old.edges()}
        unknown = {name: count for name, count in owned.nodes.items() if name not in known}
        found += orphans(new, unknown, exact=owned.exact)
    return Difference(old, new, revision, found, owned)


def without_etcd(old: Topology, new: Topology, running: bool = True) -> Difference:
    """Compare two topologies when etcd cannot be asked: what nodes own is not known."""
    return Difference(old, new, 0, changes(old, new, running=running))


def refusals(found: Difference) -> list[str]:
    """Why the changes are refused, one sentence each; empty if they are not."""
    return [_reason(change) for change in found.changes if _refused(change)]


def _refused(change: Change) -> bool:
    return change.kind is Kind.REFUSED


def _reason(change: Change) -> str:
    return f"{change.path} ({change.what}): {change.why}; instead: {change.instead}"


def draft(
    new: Topology, found: Sequence[Change], kept: int, over: float = 0.0, command: str = "mesh up"
) -> Revision:
    """The revision to propose, which gets a number above ``kept``."""
    texts = tuple(f"{change.path}: {change.what}" for change in found)
    return Revision(kept, as_dict(new), time.time(), user(), socket.gethostname(), texts, over, command)


async def change(
    client: EtcdClient, found: Difference, over: float, tell: Tell, command: str = "mesh up"
) -> Changed:
    """Put changes that are not refused in force: propose them, wait for the votes of all nodes that are announced,
    commit them, and wait for the confirmations. ``over``: seconds in which a front door that is restarted sends its
    connections away; ``command``: which makes the change. Raises ``NotChanged``; ``RegistryError`` if it is not known
    whether the change is in force."""
    store = SettingsStore(client, found.new.mesh)
    voters = await members(client, found.new.mesh)
    try:
        proposal = await store.propose(draft(found.new, found.changes, found.kept, over, command), found.revision)
    except Conflict as error:
        raise NotChanged([str(error)]) from error
    try:
        await _vote(client, store, proposal.number, set(voters), found.new.mesh, tell)
        await store.commit(proposal)
    except BaseException as error:
        # Also after Ctrl-C. After an error of etcd the commit may have been made: a revision in force stays so. What is
        # not withdrawn ends with its lease.
        with contextlib.suppress(RegistryError):
            await store.withdraw(proposal)
        if isinstance(error, Conflict):
            raise NotChanged([str(error)]) from error
        raise
    return await _confirmations(client, store, proposal.revision, set(voters), tell)


async def _vote(
    client: EtcdClient, store: SettingsStore, number: int, voters: set[str], mesh: str, tell: Tell
) -> None:
    """Wait until each of ``voters`` that is still announced has agreed. Raises ``NotChanged``."""
    end = time.monotonic() + VOTES
    while True:
        votes = await store.votes(number)
        errors = [f"{name}: {error}" for name, error in sorted(votes.items()) if error]
        if errors:
            raise NotChanged(errors)
        missing = voters - set(votes)
        if missing:
            missing &= set(await members(client, mesh))
        if not missing:
            return
        if time.monotonic() > end:
            raise NotChanged([f"{name} did not answer within {VOTES:.0f} s" for name in sorted(missing)])
        tell(f"waits for the votes of {', '.join(sorted(missing))}")
        await asyncio.sleep(_POLL)


async def _confirmations(
    client: EtcdClient, store: SettingsStore, made: Revision, voters: set[str], tell: Tell
) -> Changed:
    """Wait until each of ``voters`` that is still announced has said that it follows the revision, or why not."""
    mesh = str(made.settings["mesh"])
    end = time.monotonic() + CONFIRMATIONS
    said: dict[str, Confirmation] = {}
    while True:
        # What a node has said counts, also if it is being restarted since then: its confirmation ends with it.
        said |= {name: one for name, one in (await store.confirmed()).items() if one.revision >= made.number}
        missing = (voters - set(said)) & set(await members(client, mesh))
        if not missing or time.monotonic() > end:
            return Changed(made, _errors(said, voters), tuple(sorted(missing)))
        tell(f"waits for the confirmations of {', '.join(sorted(missing))}")
        await asyncio.sleep(_POLL)


def _errors(said: Mapping[str, Confirmation], voters: set[str]) -> dict[str, str]:
    return {name: said[name].error for name in sorted(said) if name in voters}


async def begin(client: EtcdClient, new: Topology, before: Topology | None, kept: int) -> Revision:
    """The revision with which a mesh starts that does not run: the present one if it has these settings, else a new
    one. ``before``, ``kept``: the settings of the last run and their number, if etcd has none. Raises ``NotChanged`` if
    a mesh that is down cannot take them either."""
    store = SettingsStore(client, new.mesh)
    current = await store.current()
    old = before if current is None else from_dict(current.settings)
    found = await difference(client, old or new, new, 0, lambda: (), running=False)
    if reasons := refusals(found):
        raise NotChanged(reasons)
    if current is not None and same(current.settings, as_dict(new)):
        return current
    return await store.first(draft(new, found.changes, kept))


def same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two settings are equal: those of etcd went through JSON."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


async def pending(client: EtcdClient, mesh: str, rows: Sequence[NodeRow]) -> list[str]:
    """The nodes that have to be restarted for the revision in force, and still run as before it. Raises
    ``RegistryError``."""
    history = await SettingsStore(client, mesh).history()
    left: list[str] = []
    for row in rows:
        taken = next((one for one in history if one.number <= row.begun), history[-1] if history else None)
        if taken is not None and row.name in _restarts(taken, history[0]):
            left.append(row.name)
    return left


def _restarts(before: Revision, current: Revision) -> frozenset[str]:
    if before.number == current.number:
        return frozenset()
    return restarted(from_dict(before.settings), from_dict(current.settings))
