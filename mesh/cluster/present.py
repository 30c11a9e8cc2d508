"""The settings that are in force in a mesh, for ``mesh plan`` and ``mesh up``: from etcd, or from the data folder.

Knows where they are kept. What always holds: it is said where they are from, and why not from etcd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar, final

from mesh.cluster.find import Found
from mesh.cluster.known import AWAY, ask, silent
from mesh.cluster.look import status_of
from mesh.cluster.raycalls import snapshot
from mesh.cluster.revise import (
    CONFIRMATIONS,
    VOTES,
    Changed,
    Difference,
    NotChanged,
    Tell,
    begin,
    change,
    difference,
    pending,
    refusals,
    without_etcd,
)
from mesh.cluster.revisions import topology_in
from mesh.cluster.run import Run, load_plan, topology_of
from mesh.cluster.status import NodeRow
from mesh.node.registry import etcd_folder
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import RegistryError
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.change import Kind
from mesh.topology.topology import Topology, from_dict

Result = TypeVar("Result")
Edit = Callable[[Topology], Topology]

# Seconds for all that is asked of etcd to compare settings; and of Ray meanwhile, for what cores own.
_DEADLINE: Final = 6.0
_ROWS: Final = 4.0

# Seconds for a change: its votes and confirmations have deadlines of their own.
_CHANGE: Final = VOTES + CONFIRMATIONS + _DEADLINE

_OLD: Final = "the settings in the data folder, of the last start or change that this machine has seen"


@final
@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, and where the old settings are from. ``difference`` is ``None`` if the mesh never ran; ``notes``
    say what could not be reached."""

    difference: Difference | None
    source: str
    notes: tuple[str, ...] = ()


def endpoints_of(topology: Topology, run: Run | None) -> tuple[str, ...]:
    """The addresses of the etcd of a mesh that runs."""
    return topology.etcd.endpoints or (() if run is None else run.endpoints)


def compare(new: Topology, found: Found) -> Compared:
    """Compare the settings in force with those of a file. Raises ``OSError``, ``ValueError``."""
    notes = list(found.notes)
    rows = _rows(found, notes)
    endpoints = endpoints_of(new, found.run)
    # An etcd that did not answer a moment ago is not asked again: each attempt takes some seconds.
    if endpoints and not found.silent and (found.alive or not new.etcd.embedded):
        try:
            compared = ask(
                new, endpoints, lambda client: _with_etcd(client, new, lambda old: new, rows, found.alive), _DEADLINE
            )
            if compared is not None:
                return Compared(compared, f"revision {compared.revision}", tuple(notes))
        except (RegistryError, OSError, ValueError) as error:
            notes.append(silent(error))
    old = of_folder(new)
    if old is None:
        return Compared(None, "", tuple(notes))
    compared = without_etcd(old, new, found.alive)
    if new.etcd.embedded and not found.alive and any(one.nodes for one in compared.of(Kind.REFUSED)):
        notes.append("the mesh's own etcd does not run: 'mesh up' starts it, and counts what the removed nodes own")
    return Compared(compared, _OLD, tuple(notes))


def compare_moved(new: Topology, run: Run) -> Compared:
    """Compare a file that names another data folder with the mesh that runs and was started from it. Raises
    ``OSError``, ``ValueError``."""
    return Compared(without_etcd(topology_of(run), new), f"the settings in {run.data}")


async def _with_etcd(
    client: EtcdClient, file: Topology, edit: Edit, rows: Callable[[], Sequence[NodeRow]], alive: bool
) -> Difference | None:
    """The comparison of the settings in etcd with what ``edit`` makes of them; ``None`` if it has none."""
    current = await SettingsStore(client, file.mesh).current()
    if current is None:
        old = of_folder(file)
        if old is None:
            return None
        return replace(await difference(client, old, edit(old), 0, rows, alive), kept=kept_number(file))
    old = topology_in(current)
    return await difference(client, old, edit(old), current.number, rows, alive)


def of_folder(topology: Topology) -> Topology | None:
    """The settings of the plan in the data folder, if it has a plan that can be read. Raises ``NotPrivate``."""
    try:
        return from_dict(dict(load_plan(topology.data).settings))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def in_force(file: Topology, run: Run) -> tuple[Topology, str]:
    """The topology that a mesh follows, and a sentence if that is not known: then the file's is as good a guess as
    any. On the machine of a mesh with its own Ray the data folder has it; otherwise etcd."""
    if run.local and run.here:
        return of_folder(file) or file, ""
    try:
        current = asked(file, endpoints_of(file, run), lambda client: SettingsStore(client, file.mesh).current())
        return (of_folder(file) or file, "") if current is None else (topology_in(current), "")
    except (RegistryError, OSError, ValueError) as error:
        return of_folder(file) or file, silent(error)


def first(new: Topology, endpoints: tuple[str, ...], why: str = "") -> tuple[Revision | None, str]:
    """The revision with which a mesh starts that does not run; ``None`` and a sentence if its etcd does not answer.
    ``why`` it did not a moment ago: then it is not asked again.
    Starts an embedded etcd for this moment, before any node could follow other settings. Raises ``NotChanged`` if the
    mesh cannot start with these settings, ``RegistryError``, ``OSError``, ``ValueError``."""
    before, kept = of_folder(new), kept_number(new)
    if new.etcd.embedded:
        return asyncio.run(_in_own_etcd(new, before, kept)), ""
    if not why:
        try:
            return ask(new, endpoints, lambda client: begin(client, new, before, kept), _DEADLINE), ""
        except RegistryError as error:
            why = silent(error)
    if before is not None and (reasons := refusals(without_etcd(before, new, running=False))):
        raise NotChanged([*reasons, why])
    return None, f"{why}; the mesh starts with the settings of the file; they become a revision when it does"


async def _in_own_etcd(new: Topology, before: Topology | None, kept: int) -> Revision:
    server = EmbeddedEtcd(etcd_folder(new.data))
    await server.start()
    try:
        client = server.client()
        try:
            return await begin(client, new, before, kept)
        finally:
            await client.close()
    finally:
        await server.stop()


def kept_number(topology: Topology) -> int:
    """The number of the settings in the data folder; 0 if there is none. Raises ``NotPrivate``."""
    try:
        return load_plan(topology.data).revision
    except (FileNotFoundError, ValueError, TypeError):
        return 0


@final
@dataclass(frozen=True, slots=True)
class PutInForce:
    """What ``mesh up`` did in a mesh that runs. ``changed`` is ``None`` if there was no difference."""

    difference: Difference
    changed: Changed | None
    source: str


def put_in_force(new: Topology, found: Found, over: float, tell: Tell) -> PutInForce:
    """Put the settings of ``new`` in force in a mesh that runs, on all its nodes. Raises ``NotChanged``;
    ``RegistryError`` if it is not known whether they are."""
    return amend(new, lambda old: new, found, over, tell)


def amend(
    file: Topology, edit: Edit, found: Found, over: float, tell: Tell, command: str = "mesh up"
) -> PutInForce:
    """Put what ``edit`` makes of the settings in force into force, whatever ``file`` says. Raises as
    ``put_in_force``, and what ``edit`` raises."""
    notes: list[str] = []
    rows = _rows(found, notes)
    endpoints = endpoints_of(file, found.run)
    if found.silent:
        raise NotChanged([AWAY])
    try:
        compared = ask(file, endpoints, lambda client: _with_etcd(client, file, edit, rows, True), _DEADLINE)
    except (RegistryError, OSError, ValueError) as error:
        raise NotChanged([*notes, silent(error)]) from error
    if compared is None:
        raise NotChanged(["neither etcd nor the data folder has the settings that are in force"])
    if reasons := refusals(compared):
        raise NotChanged(reasons)
    source = f"revision {compared.revision}" if compared.revision else _OLD
    if not compared.changes:
        return PutInForce(compared, None, source)
    made = ask(file, endpoints, lambda client: change(client, compared, over, tell, command), _CHANGE)
    return PutInForce(compared, made, source)


def pending_of(topology: Topology, run: Run, rows: Sequence[NodeRow]) -> list[str]:
    """The nodes that the revision in force still restarts. Raises ``RegistryError``, ``OSError``, ``ValueError``."""
    return asked(topology, endpoints_of(topology, run), lambda client: pending(client, topology.mesh, rows))


def earlier(topology: Topology, found: Found, number: int) -> Topology:
    """The topology of an earlier revision. Raises ``RegistryError``, ``OSError``, ``ValueError``."""
    if topology.etcd.embedded and not found.alive:
        raise ValueError(f"mesh {topology.mesh!r} does not run, and its own etcd keeps the revisions: start it first")
    if found.silent:
        raise RegistryError(f"{AWAY}, and only etcd has the earlier revisions")
    endpoints = endpoints_of(topology, found.run)
    revision = asked(topology, endpoints, lambda client: SettingsStore(client, topology.mesh).revision(number))
    if revision is None:
        raise ValueError(f"there is no revision {number}: 'mesh history' shows those that are kept")
    return topology_in(revision)


def _rows(found: Found, notes: list[str]) -> Callable[[], Sequence[NodeRow]]:
    """Gets the rows of a mesh that runs, for what its cores own."""

    def rows() -> Sequence[NodeRow]:
        if found.run is None or not found.alive:
            return ()
        status = status_of(found.run, lambda run: snapshot(run, _ROWS))
        notes.extend(status.notes)
        return status.nodes

    return rows


def asked(
    topology: Topology, endpoints: tuple[str, ...], question: Callable[[EtcdClient], Awaitable[Result]]
) -> Result:
    """An answer of the settings in etcd. Raises ``RegistryError``, ``OSError``, ``ValueError``."""
    return ask(topology, endpoints, question, _DEADLINE)
