"""``mesh plan``: shows what a changed topology file would do to the mesh."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Final

from mesh.cli.changes import lines, summary
from mesh.cli.which import Unclear, say, topology_in
from mesh.cluster.find import find
from mesh.cluster.owned import Owned
from mesh.cluster.present import Compared, compare, compare_moved
from mesh.cluster.run import moved
from mesh.topology.change import Change, Kind

DIFFERS: Final = 5
REFUSED: Final = 6

EXAMPLES: Final = """\
examples:
  mesh plan topology/local.yaml            each difference from the settings in force, and what it does
  mesh plan topology/local.yaml --json | jq '.changes[] | select(.kind == "refused")'

  live      every node takes it while it serves
  rolling   the named nodes are restarted one after another; no vehicle loses a message
  refused   no change of the file is made then; the text says why, and what to do instead

A sign says whether the file adds (+), removes (-) or changes (~) it. A secret is never shown. The command changes
nothing; 'mesh up FILE' does exactly what it shows.

exit codes: 0 there is no difference, 1 the settings could not be compared, 2 wrong command line, 5 there are
            differences, and 'mesh up' makes them, 6 at least one is refused, and 'mesh up' changes nothing
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the topology file (YAML)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    try:
        new = topology_in(arguments.file)
        found = find(new)
        there = None if found.alive else moved(arguments.file, new)
        compared = compare(new, found) if there is None else compare_moved(new, there)
    except (Unclear, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    say(compared.notes)
    running = found.alive or there is not None
    if arguments.json:
        print(json.dumps(plain(new.mesh, running, compared), indent=2))
    else:
        _show(new.mesh, running, compared)
    return code_of(compared)


def code_of(compared: Compared) -> int:
    """The exit code that says whether there is a difference."""
    difference = compared.difference
    if difference is None:
        return DIFFERS
    if difference.of(Kind.REFUSED):
        return REFUSED
    return DIFFERS if difference.changes else 0


def plain(mesh: str, running: bool, compared: Compared) -> dict[str, object]:
    """The comparison as JSON. ``revision`` is null if it is not known; ``staying``: vehicles that stay on edges of
    other pools than the rules say."""
    difference = compared.difference
    found = () if difference is None else difference.changes
    return {
        "mesh": mesh,
        "running": running,
        "revision": None if difference is None else difference.revision or None,
        "source": compared.source,
        "changes": [_change(change) for change in found],
        "restarts": [] if difference is None else difference.restarted,
        "staying": 0 if difference is None else difference.owned.staying,
        "notes": list(compared.notes),
    }


def _change(change: Change) -> dict[str, object]:
    return {
        "path": change.path, "kind": change.kind.value, "what": change.what, "why": change.why,
        "instead": change.instead, "nodes": list(change.nodes),
    }  # fmt: skip


def _show(mesh: str, running: bool, compared: Compared) -> None:
    difference = compared.difference
    if difference is None:
        print(f"mesh {mesh!r} has no settings yet: 'mesh up' starts it")
        return
    state = "runs" if running else "does not run"
    print(f"mesh {mesh!r} {state}; the file is compared with {compared.source}")
    print("\n".join(lines(difference.changes)) or "the file makes no difference")
    if difference.owned.staying:
        print(_staying(difference.owned))
    if difference.changes:
        print(summary(difference.changes, running))


def _staying(owned: Owned) -> str:
    least = "" if owned.exact else "at least "
    vehicles = "1 vehicle stays on an edge" if owned.staying == 1 else f"{owned.staying} vehicles stay on edges"
    return f"{least}{vehicles} of other pools than the rules say"
