"""Puts a changed file in force in a mesh that runs, for ``mesh up``, and shows what each node has confirmed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mesh.cli.changes import lines
from mesh.cli.lines import Progress, Waiting
from mesh.cli.starting import warn
from mesh.cluster.find import Found
from mesh.cluster.lifecycle import READY_DEADLINE
from mesh.cluster.look import status_of
from mesh.cluster.present import PutInForce, pending_of, put_in_force
from mesh.cluster.revise import NOTHING_CHANGED, Changed, Difference, NotChanged
from mesh.cluster.run import Run
from mesh.cluster.status import DAMAGED, READY, NodeRow
from mesh.registry.errors import RegistryError
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology

_POLL: Final = 0.5


def change(new: Topology, found: Found, over: float, wait: bool) -> int:
    """Put the settings of ``new`` in force, or change nothing; returns the exit code."""
    begun = time.time()
    run = found.run
    assert run is not None, "the mesh runs"
    left, why = _pending(new, run)
    try:
        done = put_in_force(new, found, over, Waiting())
    except NotChanged as error:
        show_refusal(f"{NOTHING_CHANGED} in mesh {new.mesh!r}", error)
        return 1
    except (RegistryError, OSError, ValueError) as error:
        print(f"whether mesh {new.mesh!r} has changed is not known: {error}; 'mesh history' shows it", file=sys.stderr)
        return 1
    if done.changed is None:
        print(f"mesh {new.mesh!r} runs as the file describes ({done.source}); nothing was changed")
        return _rolls(left, why, run, wait, over) or warn(run)
    code = show_changed(done, done.changed, run.mesh)
    if left:
        print(f"an earlier change was still restarting {', '.join(left)}: those that are left get this one as well")
    restarted = done.difference.restarted
    if restarted:
        print(f"restarts one after another: {', '.join(restarted)}" + ("" if wait else "; 'mesh status' shows them"))
    added = _added(done.difference)
    if added or (wait and restarted):
        code = _wait(run, added, restarted if wait else [], begun, over) or code
    return warn(run) or code


def show_refusal(what: str, error: NotChanged) -> None:
    """Show the reasons of a refusal, one line each, after ``what`` it means."""
    print(f"{what}:", file=sys.stderr)
    for reason in error.reasons:
        print(f"  {reason}", file=sys.stderr)


def show_changed(done: PutInForce, changed: Changed, mesh: str) -> int:
    """Show the changes and who has them; returns the exit code."""
    print("\n".join(lines(done.difference.changes)))
    number = changed.revision.number
    confirmed = [name for name, error in changed.confirmed.items() if not error]
    by = f", confirmed by {', '.join(confirmed)}" if confirmed else ""
    print(f"revision {number} is in force in mesh {mesh!r}{by}", flush=True)
    for name, error in changed.confirmed.items():
        if error:
            print(f"  {name:<16} does not follow it: {error}")
    for name in changed.silent:
        print(f"  {name:<16} has not confirmed it yet: it takes it when it answers")
    down = _staying(done.difference) - set(changed.confirmed) - set(changed.silent)
    for name in sorted(down):
        print(f"  {name:<16} does not run: it takes it when it starts")
    return 1 if down or changed.silent or any(changed.confirmed.values()) else 0


def _staying(difference: Difference) -> set[str]:
    """The nodes that both files have."""
    return {spec.name for spec in nodes(difference.old)} & {spec.name for spec in nodes(difference.new)}


def _added(difference: Difference) -> list[str]:
    """The nodes that the new file has and the old one has not."""
    before = {spec.name for spec in nodes(difference.old)}
    return [spec.name for spec in nodes(difference.new) if spec.name not in before]


def _pending(new: Topology, run: Run) -> tuple[list[str], str]:
    """The nodes that an earlier change still restarts; a sentence if that is not known."""
    try:
        return pending_of(new, run, status_of(run).nodes), ""
    except (RegistryError, OSError, ValueError) as error:
        return [], str(error)


def _rolls(left: Sequence[str], why: str, run: Run, wait: bool, over: float) -> int:
    """Tell of nodes that an earlier change still restarts; returns the exit code."""
    if why:
        print(why, file=sys.stderr)
    if not left:
        return 0
    print(f"an earlier change still restarts {', '.join(left)}", flush=True)
    return _wait(run, [], left, time.time(), over) if wait else 0


def _wait(run: Run, added: Sequence[str], restarted: Sequence[str], since: float, over: float) -> int:
    """Show the progress until the added nodes are ready and the others were restarted; returns the exit code."""
    progress = Progress()
    end = time.monotonic() + READY_DEADLINE + (READY_DEADLINE + over) * len(restarted)
    while True:
        status = status_of(run)
        rows = {row.name: row for row in status.nodes if row.name in (*added, *restarted)}
        progress(replace(status, nodes=tuple(rows.values())))
        ready = all(name in rows and rows[name].state in (READY, DAMAGED) for name in added)
        if ready and all(name in rows and _restarted(rows[name], since) for name in restarted):
            print("every added or restarted node is ready")
            return 0
        if time.monotonic() > end:
            print(f"not all of {', '.join([*added, *restarted])} are ready: 'mesh status' shows why", file=sys.stderr)
            return 1
        time.sleep(_POLL)


def _restarted(row: NodeRow, since: float) -> bool:
    return row.state == READY and time.time() - row.uptime >= since
