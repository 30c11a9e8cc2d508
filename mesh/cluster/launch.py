"""Requests to the controller from other processes: create it, change its plan, stop it, read its status.

Knows the controller's actor by name. What always holds: a controller has one whole plan for its lifetime; a changed
plan takes a new controller, and the nodes go on running.

As a program, ``python -m mesh.cluster.launch DATA`` gives the running mesh the plan in ``DATA/next.json``. It is for a
mesh with its own Ray, and the caller must set Ray's environment.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final, cast

from mesh.cluster import runtime
from mesh.cluster.actors import ControllerActor
from mesh.cluster.plan import ClusterPlan
from mesh.cluster.run import load_run, save_plan
from mesh.cluster.runtime import CONTROLLER
from mesh.cluster.status import Snapshot
from mesh.private import read_own

# Seconds. Longer than a controller needs to restart after a crash.
_ANSWER: Final = 30.0

# Seconds between attempts to use a name that is not free yet.
_AGAIN: Final = 0.05

# Seconds for each of the four stages.
GRACE: Final = 5.0
STOP_DEADLINE: Final = 4 * (GRACE + 2.0)


def place(plan: ClusterPlan, namespace: str) -> None:
    """Create a controller for this plan; keep one that runs already."""
    runtime.create(ControllerActor, CONTROLLER, plan.mesh, namespace, {}, plan, namespace)


def adopt(plan: ClusterPlan, namespace: str) -> list[str]:
    """Replace the controller by one with this plan. Returns the objections; if there are any, nothing has changed."""
    old = runtime.find(CONTROLLER, plan.mesh, namespace)
    wrong = cast("list[str]", runtime.ask(old.objections.remote(plan), _ANSWER))
    if not wrong:
        save_plan(plan)
        runtime.kill(old, restart=False)
        _place_again(plan, namespace)
    return wrong


def _place_again(plan: ClusterPlan, namespace: str) -> None:
    """Create the controller until it has this plan: for a moment after an actor was killed, Ray still finds it by its
    name, and it may even answer one more call."""
    end = time.monotonic() + _ANSWER
    while True:
        try:
            place(plan, namespace)
            if runtime.ask(runtime.find(CONTROLLER, plan.mesh, namespace).has.remote(plan), _ANSWER):
                return
            fault = RuntimeError("the previous controller does not end")
        except RuntimeError as error:
            fault = error
        if time.monotonic() > end:
            raise fault
        time.sleep(_AGAIN)


def stop(mesh: str, namespace: str) -> None:
    """Stop all nodes, then the controller."""
    controller = runtime.find(CONTROLLER, mesh, namespace)
    runtime.ask(controller.stop.remote(GRACE), STOP_DEADLINE)
    runtime.kill(controller, restart=False)


def snapshot_within(mesh: str, namespace: str) -> Snapshot:
    """The controller's view of a mesh, for a process that is connected to its Ray."""
    controller = runtime.find(CONTROLLER, mesh, namespace)
    return cast("Snapshot", runtime.ask(controller.snapshot.remote(), _ANSWER))


def next_path(data: Path) -> Path:
    return data / "next.json"


def main() -> int:
    data = Path(sys.argv[1])
    run = load_run(data)
    if run is None:
        print(f"no mesh runs in {data}", file=sys.stderr)
        return 1
    plan = ClusterPlan.from_json(read_own(next_path(data), secret=True))
    runtime.connect(run.address, run.namespace)
    wrong = adopt(plan, run.namespace)
    print("\n".join(wrong), file=sys.stderr)
    sys.stderr.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
