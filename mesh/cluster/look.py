"""Looking at a mesh: its status from the data folder, or from the controller when the mesh is on a cluster.

Knows how fresh a snapshot must be. What always holds: a snapshot that nobody renews is not shown as the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from mesh.cluster.processes import started
from mesh.cluster.run import FAILED, STOPPING, Run, load_plan
from mesh.cluster.status import READY, UNKNOWN, MeshStatus, NodeRow, Snapshot, load_status

# The controller writes each second; while Ray brings it back nobody does. Older than this, the states are "unknown".
FRESH: Final = 15.0


def status_of(run: Run, ask: Callable[[Run], Snapshot] | None = None) -> MeshStatus:
    """The state of a run that is alive, with one row for each planned node. ``ask`` gets the answer of a controller on
    a cluster; else this process connects to Ray for it."""
    found = _local(run) if run.local else (ask or ask_cluster)(run)
    return MeshStatus(
        mesh=run.mesh,
        state=run.state if run.state in (STOPPING, FAILED) else found.state,
        error=run.error,
        topology=run.topology,
        data=run.data,
        ray=run.address,
        etcd=run.endpoints,
        supervisor=run.supervisor,
        nodes=found.nodes,
    )


def _local(run: Run) -> Snapshot:
    found = load_status(Path(run.data))
    if found is None or found.written < run.since:  # none, or that of an earlier run in the same folder
        return unknown(run, "starting")
    if found.age > FRESH:
        return unknown(run, UNKNOWN)
    return replace(found, nodes=tuple(_as_of_now(row) for row in found.nodes))


def _as_of_now(row: NodeRow) -> NodeRow:
    """A row that does not show a process as alive that has died since it was written."""
    if row.state == READY and started(row.pid) is None:
        return replace(row, state="starting", pid=0, uptime=0.0)
    return row


def unknown(run: Run, state: str) -> Snapshot:
    """A snapshot for a mesh of which nothing is known but its plan."""
    plan = load_plan(Path(run.data))
    rows = tuple(NodeRow(node.name, node.role, state, listen=node.listens) for node in plan.nodes)
    return Snapshot(run.mesh, state, rows)


def ask_cluster(run: Run) -> Snapshot:
    """The controller's own answer. Takes the seconds that Ray needs to connect."""
    from mesh.cluster import launch  # Ray: only where it is needed, so that the command starts quickly

    return launch.snapshot(run)
