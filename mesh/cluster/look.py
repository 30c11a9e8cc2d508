"""Reads the status of a mesh: from its data folder, or from the controller if the mesh runs on a Ray cluster.

Knows how fresh a snapshot must be. What always holds: a snapshot that is out of date is not shown as the present state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from mesh.cluster.processes import started
from mesh.cluster.run import FAILED, STOPPING, Run, load_plan
from mesh.cluster.status import READY, UNKNOWN, MeshStatus, NodeRow, Snapshot, load_status

# The controller writes every second, except while Ray restarts it. In an older snapshot the states are "unknown".
FRESH: Final = 15.0


def status_of(run: Run, ask: Callable[[Run], Snapshot] | None = None) -> MeshStatus:
    """The state of a living run, with one row for each planned node. ``ask`` gets the snapshot from a controller on a
    Ray cluster; without it this process connects to Ray itself."""
    found = _local(run) if run.local else (ask or ask_cluster)(run)
    return MeshStatus(
        mesh=run.mesh,
        state=run.state if run.state in (STOPPING, FAILED) else found.state,
        error=run.error or found.note,
        topology=run.topology,
        data=run.data,
        ray=run.address,
        etcd=run.endpoints,
        supervisor=run.supervisor,
        nodes=found.nodes,
    )


def _local(run: Run) -> Snapshot:
    found = load_status(Path(run.data))
    if found is None or found.written < run.since:  # no snapshot, or the snapshot of an earlier run in this folder
        return unknown(run, "starting")
    if found.age > FRESH:
        return unknown(run, UNKNOWN)
    return replace(found, nodes=tuple(_as_of_now(row) for row in found.nodes))


def _as_of_now(row: NodeRow) -> NodeRow:
    """The row, without a process that has ended since the row was written."""
    if row.state == READY and started(row.pid) is None:
        return replace(row, state="starting", pid=0, uptime=0.0)
    return row


def unknown(run: Run, state: str) -> Snapshot:
    """The snapshot of a mesh of which only the plan is known."""
    plan = load_plan(Path(run.data))
    rows = tuple(NodeRow(node.name, node.role, state, listen=node.listens) for node in plan.nodes)
    return Snapshot(run.mesh, state, rows)


def ask_cluster(run: Run) -> Snapshot:
    """The snapshot from the controller. Takes some seconds, because it connects to Ray."""
    from mesh.cluster import launch  # imports Ray: here, so that other commands start quickly

    return launch.snapshot(run)
