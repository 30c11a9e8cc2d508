"""Reads the status of a mesh: from its data folder, or from the controller if the mesh runs on a Ray cluster.

Knows how fresh a word must be. What always holds: a row says how old it is, and one that is out of date is not shown as
the present state; what could not be reached is said, and what is known without it is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from mesh.cluster import raycalls
from mesh.cluster.known import Known
from mesh.cluster.processes import started
from mesh.cluster.run import FAILED, STARTING, STOPPING, Run, load_plan
from mesh.cluster.status import READY, UNREACHABLE, MeshStatus, NodeRow, Snapshot, load_status

# Seconds. The controller writes every second, except while Ray restarts it.
FRESH: Final = 10.0

NOT_ASKED: Final = Known()


def status_of(
    run: Run, ask: Callable[[Run], Snapshot] | None = None, registry: Callable[[], Known] = lambda: NOT_ASKED
) -> MeshStatus:
    """The state of a living run, with one row for each node. ``ask`` gets the snapshot from a controller on a Ray
    cluster; without it a child process asks. ``registry`` gets what etcd has of the mesh; it is called last."""
    notes: list[str] = []
    try:
        found = _local(run) if run.local else (ask or raycalls.snapshot)(run)
    except (RuntimeError, OSError, ValueError) as error:
        notes.append(str(error))
        found = _last(run)
    reached = not notes
    known = registry()
    notes += known.notes
    if found is None:
        state = STARTING if run.local and run.here else UNREACHABLE
        found = unknown(run, state, known)
    rows = tuple(_with_registry(row, known) for row in _aged(found))
    return MeshStatus(
        mesh=run.mesh,
        state=run.state if run.state in (STOPPING, FAILED) else _state(found, rows, reached),
        error=run.error or found.note,
        topology=run.topology,
        data=run.data,
        ray=run.address,
        etcd=run.endpoints,
        supervisor=run.supervisor,
        nodes=rows,
        host=run.host,
        revision=known.revision,
        age=round(_age(found), 1),
        notes=tuple(notes),
        warnings=(*known.warnings, *found.warnings),
    )


def _local(run: Run) -> Snapshot | None:
    if not run.here:
        raise OSError(f"the mesh runs on {run.host}: the states and figures of its nodes are there")
    return _last(run)


def _last(run: Run) -> Snapshot | None:
    """The last snapshot of this run in the data folder."""
    found = load_status(Path(run.data))
    if found is None or found.written < run.since:  # no snapshot, or the snapshot of an earlier run in this folder
        return None
    return replace(found, nodes=tuple(_as_of_now(row) for row in found.nodes)) if run.local else found


def _as_of_now(row: NodeRow) -> NodeRow:
    """The row, without a process that has ended since the row was written."""
    if row.state == READY and started(row.pid) is None:
        return replace(row, state=STARTING, pid=0, uptime=0.0)
    return row


def _age(found: Snapshot) -> float:
    """Seconds since the snapshot was made; one that was just asked for was not written."""
    return found.age if found.written else 0.0


def _aged(found: Snapshot) -> list[NodeRow]:
    """The rows with their ages now. A row that is too old says nothing about the present."""
    passed = _age(found)
    rows = []
    for row in found.nodes:
        age = row.age + passed
        state = UNREACHABLE if age > FRESH else row.state
        rows.append(replace(row, age=round(age, 1), state=state))
    return rows


def _state(found: Snapshot, rows: tuple[NodeRow, ...], reached: bool) -> str:
    """The state of the mesh, as far as its controller was reached and its rows are not out of date."""
    lost = [row for row in rows if row.state == UNREACHABLE]
    if not reached or (lost and len(lost) == len(rows)):
        return UNREACHABLE
    return STARTING if lost and found.state == READY else found.state


def _with_registry(row: NodeRow, known: Known) -> NodeRow:
    """The row, with what etcd says of the node. A node that is announced there has said so within its lease."""
    member = known.members.get(row.name)
    host, pid = (row.host, row.pid) if member is None else (row.host or member.host, row.pid or member.pid)
    detail = row.detail
    revision = max(row.revision, known.confirmed.get(row.name, 0))
    if row.state == UNREACHABLE and known.asked:
        detail = "announced in etcd: its process runs" if member is not None else "not announced in etcd"
    detail = "; ".join(part for part in (known.against.get(row.name, ""), detail) if part)
    return replace(row, host=host, pid=pid, revision=revision, detail=detail)


def unknown(run: Run, state: str, known: Known = NOT_ASKED) -> Snapshot:
    """The snapshot of a mesh of which only the plan is known, or only what etcd has."""
    try:
        rows = tuple(
            NodeRow(node.name, node.role, state, listen=node.listens) for node in load_plan(Path(run.data)).nodes
        )
    except (OSError, ValueError):
        rows = known.rows(state)
    return Snapshot(run.mesh, state, rows)
