"""What ``mesh status`` shows: read from the data folder, or asked of the controller when the mesh is on a cluster.

Knows the shape of a snapshot and how fresh it must be. What always holds: a snapshot that nobody renews is not shown as
the truth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from mesh.cluster.processes import started
from mesh.cluster.run import FAILED, STOPPING, Run, age, load_plan, load_status

# The controller writes each second; while Ray brings it back nobody does. Older than this, the states are "unknown".
FRESH: Final = 15.0

READY: Final = "ready"
UNKNOWN: Final = "unknown"


def text_of(snapshot: dict[str, object]) -> str:
    """A snapshot for the file: with the time, by which a reader sees whether anybody still writes."""
    return json.dumps({**snapshot, "written": time.time()})


def status_of(run: Run, ask: Callable[[Run], dict[str, object]] | None = None) -> dict[str, object]:
    """The state of a run that is alive: ``mesh``, ``state``, ``error`` and one entry of ``nodes`` for each planned
    node. ``ask`` gets the answer of a controller on a cluster; else this process connects to Ray for it."""
    found = load_status(Path(run.data)) if run.local else (ask or ask_cluster)(run)
    if found is None or (run.local and _before(found, run)):
        found = unknown(run, "starting")
    elif run.local and age(found) > FRESH:
        found = unknown(run, UNKNOWN)
    elif run.local:
        found = {**found, "nodes": [_as_of_now(row) for row in rows(found)]}
    if run.state in (STOPPING, FAILED):
        found = {**found, "state": run.state}
    return {
        "mesh": run.mesh,
        "state": found["state"],
        "error": run.error,
        "topology": run.topology,
        "data": run.data,
        "ray": run.address,
        "etcd": list(run.endpoints),
        "supervisor": run.supervisor,
        "nodes": found["nodes"],
    }


def all_ready(status: dict[str, object]) -> bool:
    nodes = rows(status)
    return bool(nodes) and all(node["state"] == READY for node in nodes) and status["state"] not in (STOPPING, FAILED)


def rows(status: dict[str, object]) -> list[dict[str, object]]:
    return cast("list[dict[str, object]]", status["nodes"])


def _as_of_now(row: dict[str, object]) -> dict[str, object]:
    """A row that does not show a process as alive that has died since it was written."""
    pid = row["pid"]
    if row["state"] == READY and isinstance(pid, int) and started(pid) is None:
        return {**row, "state": "starting", "pid": 0, "uptime": 0.0}
    return row


def unknown(run: Run, state: str) -> dict[str, object]:
    """A snapshot for a mesh of which nothing is known but its plan."""
    empty = {"pid": 0, "host": "", "connections": 0, "sessions": 0, "queued": 0, "restarts": 0, "attempts": 0}
    nodes: list[dict[str, object]] = [
        {
            "name": node.name, "role": node.role, "state": state, **empty, "uptime": 0.0, "detail": "",
            "listen": list(node.listens), "figures": {},
        }
        for node in load_plan(Path(run.data)).nodes
    ]  # fmt: skip
    return {"mesh": run.mesh, "state": state, "nodes": nodes}


def _before(status: dict[str, object], run: Run) -> bool:
    """Whether a snapshot is of an earlier run in the same folder."""
    return age(status) > time.time() - run.since


def ask_cluster(run: Run) -> dict[str, object]:
    """The controller's own answer. Takes the seconds that Ray needs to connect."""
    from mesh.cluster import launch  # Ray: only where it is needed, so that the command starts quickly

    return launch.snapshot(run)
