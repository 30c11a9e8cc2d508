"""``mesh journal``: checks, shows and salvages the journal of an edge or a core.

It knows where the journal of a node is and what the kinds of its items are. What always holds: ``verify`` and
``inspect`` change nothing; ``salvage`` changes nothing without ``--yes``, and never while the node has its journal
open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.broker import records
from mesh.broker.records import letter_texts, retained_topic, session_key
from mesh.cli.guarded import note
from mesh.cli.which import reached_mesh, topology_in
from mesh.cluster.node import CORE, EDGE
from mesh.cluster.run import Run, load_run
from mesh.core import kinds
from mesh.journal.errors import LockedError
from mesh.journal.files import SystemFiles
from mesh.journal.lock import DirectoryLock
from mesh.journal.manifest import Mark
from mesh.journal.salvage import OLD, Salvaged, salvage
from mesh.journal.survey import Gap, LiveItem, Survey, survey
from mesh.node.marks import JournalMarks
from mesh.node.registry import client_of
from mesh.registry.errors import RegistryError
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology

DAMAGED: Final = 4

EXAMPLES: Final = """\
examples:
  mesh journal verify edge-1              read every byte; says what is damaged and what is lost; changes nothing
  mesh journal inspect edge-1 --json      what is in it: segments, items by kind, sessions with waiting messages
  mesh journal salvage edge-1             says what a salvage would lose; changes nothing
  mesh journal salvage edge-1 --yes       start with the rest; the damaged files are kept, with the suffix .damaged

A node with a damaged journal stays down while all others serve. After a salvage it starts by itself if the mesh runs.
The command runs on the machine that has the node's folder. If the mesh does not run, --topology FILE is needed.

exit codes: 0 the journal is whole, or there never was one, or it was salvaged, 1 it could not be read or salvaged, or
is not there and etcd could not be asked, 3 no such mesh, 4 it is damaged or missing
"""

_MARK_WAIT: Final = 2.0  # seconds for etcd
_LOCK_WAIT: Final = 8.0  # seconds for a node that just looks whether its journal is repaired
_TRIES: Final = 3  # of a survey of a journal in use
_SHOWN: Final = 20  # lines of a list; JSON has all

_KINDS: Final = {
    records.SESSION: "session",
    records.INTEREST: "subscription",
    records.DELIVERY: "message",
    records.BODY: "shared body",
    records.RELEASE: "released message",
    records.INCOMING: "QoS 2 identifier",
    records.LEDGER: "ledger",
    records.RETAINED: "retained message",
    records.TOMBSTONE: "deleted retained message",
    records.DEAD_LETTER: "dead letter",
    records.FAN_OUT: "message that is being sent to many",
    kinds.SPOOLED: "spooled message",
    kinds.SPOOL_RELEASED: "released spooled message",
    kinds.TIER_INCOMING: "QoS 2 identifier of an edge",
    kinds.TIER_FILTER: "filter of an edge",
    kinds.IDENTIFIER: "subscription identifier",
    kinds.WITHDRAWN: "withdrawn retained message",
}


class _Wrong(Exception):
    """The command cannot be carried out; one sentence."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The journal of one node. ``mark`` is what etcd has; ``unknown`` is why it could not be read. ``run``: the last
    one of the mesh here."""

    node: str
    folder: Path
    mark: Mark | None
    unknown: str
    topology: Topology
    run: Run | None


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("verify", "inspect", "salvage"))
    parser.add_argument("node", metavar="NODE", help="the name of an edge or a core")
    parser.add_argument("--yes", action="store_true", help="salvage: accept the loss")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--topology", metavar="FILE", help="the mesh's topology file; needed if the mesh does not run")


def run(arguments: argparse.Namespace) -> int:
    try:
        target = _target(arguments.topology, arguments.node)
        if arguments.action == "salvage" and arguments.yes:
            return _salvage(target, arguments.json)
        found, in_use = _look(target)
    except (_Wrong, OSError, LockedError) as error:
        print(error, file=sys.stderr)
        return 1
    plain = _plain(target, found, in_use, arguments.action == "inspect")
    if arguments.json:
        print(json.dumps(plain, indent=2))
    else:
        _show(target, found, in_use, arguments.action == "inspect")
    if not found.whole:
        if arguments.action == "salvage":
            print("nothing was changed; --yes accepts the loss and starts with the rest", file=sys.stderr)
        return DAMAGED
    return 1 if _absent(found) and target.unknown else 0


def _target(file: str | None, node: str) -> _Target:
    """Raises ``Unclear``, ``_Wrong``."""
    last: Run | None
    if file is None:
        current = reached_mesh(None)
        topology, last = current.topology, current.run
        data, endpoints = Path(current.run.data), current.run.endpoints
    else:
        topology = topology_in(file)
        data = topology.data
        last = load_run(data)
        endpoints = tuple(topology.etcd.endpoints) or (() if last is None else last.endpoints)
    names = [spec.name for spec in nodes(topology) if spec.role in (EDGE, CORE)]
    if node not in names:
        raise _Wrong(f"there is no edge or core {node!r} with a journal; there are {', '.join(names)}")
    mark, unknown = _mark(topology, endpoints, node)
    return _Target(node, data / "nodes" / node / "journal", mark, unknown, topology, last)


def _mark(topology: Topology, endpoints: tuple[str, ...], node: str) -> tuple[Mark | None, str]:
    """What etcd says of the journal, or why it says nothing."""
    if not endpoints:
        return None, "the address of etcd is not known"

    async def ask() -> Mark | None:
        client = client_of(topology, endpoints)
        try:
            return await JournalMarks(client, topology.mesh, node).read(_MARK_WAIT)
        finally:
            await client.close()

    try:
        return asyncio.run(ask()), ""
    except RegistryError as error:
        return None, str(error)


def _look(target: _Target) -> tuple[Survey, bool]:
    """The survey, and whether the node has its journal open. It may remove a segment while that is read: what is
    damaged is damaged at the next look, too."""
    tries = 0
    while True:
        tries += 1
        in_use = _in_use(target.folder)
        try:
            found = survey(SystemFiles(), target.folder, target.mark, in_use)
        except FileNotFoundError:
            if tries == _TRIES:
                raise
            continue
        if found.whole or not in_use or tries == _TRIES:
            return found, in_use


def _in_use(folder: Path) -> bool:
    """Whether the node has the journal open."""
    if not folder.is_dir():
        return False
    try:
        DirectoryLock(folder).release()
    except LockedError:
        return True
    return False


def _salvage(target: _Target, as_json: bool) -> int:
    end = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            done = salvage(SystemFiles(), target.folder, target.mark, lambda kind: kind == records.SESSION)
            break
        except LockedError:
            if time.monotonic() > end:
                raise _Wrong(f"{target.node} runs and has its journal open: nothing is to be salvaged") from None
            time.sleep(0.05)
    if done is not None:
        _note(target, f"{target.node}: {done.kept} items are kept, {done.lost} are lost")
    if as_json:
        print(json.dumps(_salvaged(target, done), indent=2))
    elif done is None:
        print(f"{target.folder} is whole: nothing was changed")
        if target.unknown:
            print(f"etcd, which may know of a lost journal, was not asked: {target.unknown}", file=sys.stderr)
    elif done.survey is None:
        print(f"{target.folder}: an interrupted salvage was finished")
    else:
        _show(target, done.survey, False, False)
        print(f"salvaged: {done.kept} items are kept, {done.stripped} of them without their body; {done.lost} are lost")
        print(f"the damaged files are in {target.folder}, with the suffix {OLD}")
    return 0


def _note(target: _Target, what: str) -> None:
    if target.run is not None and not target.unknown:
        note(target.topology, target.run, "mesh journal salvage", what)
    else:
        print(f"this is not in the audit log of the mesh: {target.unknown}", file=sys.stderr)


def _salvaged(target: _Target, done: Salvaged | None) -> dict[str, object]:
    plain: dict[str, object] = {"node": target.node, "folder": str(target.folder), "salvaged": done is not None}
    if done is not None:
        plain |= {"kept": done.kept, "stripped": done.stripped, "lost": done.lost}
        if done.survey is not None:
            plain["before"] = _plain(target, done.survey, False, False)
    return plain


# What is shown


def _absent(found: Survey) -> bool:
    return found.whole and not found.segments


def _state(found: Survey) -> str:
    return "absent" if _absent(found) else "whole" if found.whole else "damaged"


def _plain(target: _Target, found: Survey, in_use: bool, contents: bool) -> dict[str, object]:
    sessions = _sessions(found)
    plain: dict[str, object] = {
        "node": target.node,
        "folder": str(target.folder),
        "state": _state(found),
        "in_use": in_use,
        "journal": found.id,
        "manifest": found.manifest,
        "position": found.position,
        "mark": None if target.mark is None else {"journal": target.mark.id, "position": target.mark.position},
        "mark_unknown": target.unknown,
        "faults": found.all_faults(),
        "segments": [
            {
                "number": segment.number,
                "state": segment.state,
                "first": segment.first,
                "records": segment.records,
                "bytes": segment.length,
            }
            for segment in found.segments
        ],
        "kept_items": sum(item.intact for item in found.items.values()),
        "lost_records": [{"first": gap.first, "last": gap.last or None} for gap in found.gaps],
        "lost_items": [_item(item, sessions) for item in found.lost()],
    }
    if contents:
        plain["kinds"] = _kinds(found)
        plain["sessions"] = [
            {"name": name, "client": client, "messages": count} for (name, client), count in _queues(found, sessions)
        ]
    return plain


def _item(item: LiveItem, sessions: dict[int, tuple[str, str]]) -> dict[str, object]:
    """A lost item. ``name`` and ``client`` are of the session that it belongs to."""
    plain: dict[str, object] = {"id": item.id, "kind": _KINDS.get(item.kind, str(item.kind)), "bytes": item.size}
    if item.owner in sessions:
        plain["name"], plain["client"] = sessions[item.owner]
    if item.kind == records.RETAINED:
        plain["topic"] = retained_topic(item.meta)
    elif item.kind == records.DEAD_LETTER:
        plain["share"], plain["topic"] = letter_texts(item.meta)
    return plain


def _sessions(found: Survey) -> dict[int, tuple[str, str]]:
    """The name and client id of each session, by its number."""
    return {
        item.owner: session_key(item.meta) for item in found.items.values() if item.kind == records.SESSION
    }


def _kinds(found: Survey) -> dict[str, int]:
    return dict(Counter(_KINDS.get(item.kind, str(item.kind)) for item in found.items.values()))


def _queues(found: Survey, sessions: dict[int, tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
    """The sessions with waiting messages, the longest queue first."""
    counts: Counter[tuple[str, str]] = Counter()
    for item in found.items.values():
        if item.kind in (records.DELIVERY, records.RELEASE) and item.owner in sessions:
            counts[sessions[item.owner]] += 1
    return counts.most_common()


def _show(target: _Target, found: Survey, in_use: bool, contents: bool) -> None:
    print(f"the journal of {target.node} is {_state(found)}: {target.folder}" + (" (in use)" if in_use else ""))
    if target.unknown:
        print(f"  etcd, which knows whether a journal was here, was not asked: {target.unknown}")
    kept = sum(item.intact for item in found.items.values())
    print(f"  {len(found.segments)} segments, records up to {found.position}, {kept} live items can be read")
    for fault in found.all_faults():
        print(f"  fault: {fault}")
    for gap in found.gaps:
        print(f"  lost: {_gap(gap)}")
    sessions = _sessions(found)
    lost = found.lost()
    for item in lost[:_SHOWN]:
        plain = _item(item, sessions)
        print("  lost: " + ", ".join(f"{key} {value}" for key, value in plain.items()))
    if len(lost) > _SHOWN:
        print(f"  lost: {len(lost) - _SHOWN} more items; --json has all")
    if contents:
        for segment in found.segments:
            print(f"  segment {segment.number}: {segment.state}, {segment.records} records, {segment.length} bytes")
        for kind, count in sorted(_kinds(found).items()):
            print(f"  {count} x {kind}")
        for (name, client), count in _queues(found, sessions)[:_SHOWN]:
            print(f"  {name or '(no name)'} / {client}: {count} messages wait")


def _gap(gap: Gap) -> str:
    if not gap.last:
        return f"all records from {gap.first} on"
    return f"records {gap.first} to {gap.last} ({gap.last - gap.first + 1})"
