"""Requests to the controller from other processes: create it, stop it, read its status.

Knows the controller's actor by name. It must never know the settings: the controller follows them itself.
"""

from __future__ import annotations

from typing import Final, cast

from mesh.cluster import runtime
from mesh.cluster.actors import ControllerActor
from mesh.cluster.plan import ClusterPlan
from mesh.cluster.runtime import CONTROLLER
from mesh.cluster.status import Snapshot

# Seconds. Longer than a controller needs to restart after a crash.
_ANSWER: Final = 30.0

# Seconds for each of the four stages.
GRACE: Final = 5.0
STOP_DEADLINE: Final = 4 * (GRACE + 2.0)


def place(plan: ClusterPlan, namespace: str) -> None:
    """Create a controller for this plan; keep one that runs already."""
    runtime.create(ControllerActor, CONTROLLER, plan.mesh, namespace, {}, plan, namespace)


def stop(mesh: str, namespace: str) -> None:
    """Stop all nodes, then the controller."""
    controller = runtime.find(CONTROLLER, mesh, namespace)
    runtime.ask(controller.stop.remote(GRACE), STOP_DEADLINE)
    runtime.kill(controller, restart=False)


def snapshot_within(mesh: str, namespace: str) -> Snapshot:
    """The controller's view of a mesh, for a process that is connected to its Ray."""
    controller = runtime.find(CONTROLLER, mesh, namespace)
    return cast("Snapshot", runtime.ask(controller.snapshot.remote(), _ANSWER))

