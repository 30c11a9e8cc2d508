"""The Ray actors of a mesh: one process for each node, one for the controller.

They hold the parts that do the work (``Host``, ``Controller``) and nothing else. What always holds: the constructor
alone brings a process back into service, because after a crash Ray calls nothing else; a node's identity is its name
and its epoch in etcd, never the existence of an actor of this name.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Final, final

from mesh.cluster.controller import Controller
from mesh.cluster.host import Host, Report, all_file_descriptors, log_to_file
from mesh.cluster.node import Assignment
from mesh.cluster.plan import LOCAL, ClusterPlan, objections
from mesh.cluster.runtime import CONTROLLER, RayRuntime, restarted
from mesh.cluster.spares import Spares
from mesh.cluster.status import Snapshot, save_status
from mesh.node.ending import Ending

log = logging.getLogger(__name__)

# Seconds between two rounds of the controller until all nodes are ready; then between two parts of one round.
_BUSY: Final = 0.1
_CALM: Final = 0.2
_PARTS: Final = 5

# Seconds between two counts of the spare processes while no node restarts: a count reads the list of all processes.
_COUNT: Final = 10.0

# Seconds to write the last lines of the log: Ray kills a process when its last call has returned.
_DRAIN: Final = 0.5

# One spare process is enough: two crashes within one second are rare, and each spare costs memory.
_SPARES: Final = 1


class NodeActor:
    """The process of one node."""

    def __init__(self, assignment: Assignment) -> None:
        self._logs = log_to_file(Path(assignment.data), assignment.name)
        all_file_descriptors()
        ending = Ending(assignment.folder)
        self._host = Host(assignment, begin=restarted(), on_orphan=self._end_now, ending=ending)

    def report(self) -> Report:
        return self._host.report()

    def begin(self) -> None:
        self._host.begin()

    def end(self, grace: float) -> bool:
        ended = self._host.end(grace)
        self._logs.drain(_DRAIN)
        return ended

    def _end_now(self) -> None:
        """Exit at once: in a normal exit of Python, Ray waits for processes that have ended already."""
        self._logs.close()
        os._exit(1)


class ControllerActor:
    """The process of the controller. The constructor starts a thread that runs its rounds."""

    def __init__(self, plan: ClusterPlan, namespace: str) -> None:
        data = Path(plan.data)
        self._logs = log_to_file(data, CONTROLLER)
        self._plan = plan
        self._controller = Controller(plan, RayRuntime(NodeActor, plan.mesh, namespace), tell=log.info)
        self._rounds = Rounds(self._controller, data, Spares(_SPARES) if plan.ray == LOCAL else None)
        threading.Thread(target=self._rounds.run, name="mesh-controller", daemon=True).start()

    def snapshot(self) -> Snapshot:
        return self._controller.snapshot()

    def has(self, plan: ClusterPlan) -> bool:
        """Whether this controller has this plan: a controller that is being replaced still has the old one."""
        return self._plan == plan

    def objections(self, plan: ClusterPlan) -> list[str]:
        return objections(self._plan, plan)

    def stop(self, grace: float) -> None:
        self._controller.stop(grace)
        self._rounds.write()
        self._logs.drain(_DRAIN)


@final
class Rounds:
    """The controller's rounds. After each one the status file is written."""

    def __init__(self, controller: Controller, data: Path, spares: Spares | None) -> None:
        self._controller = controller
        self._data = data
        self._spares = spares
        self._counted = (0.0, 0)

    def run(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                self._next()
            except Exception:
                log.exception("a round of the controller failed; the next round tries again")
            pause = _CALM if self._controller.settled else _BUSY
            time.sleep(max(0.02, begun + pause - time.monotonic()))

    def _next(self) -> None:
        if self._controller.settled:
            whole = self._controller.glance(_PARTS)
        else:
            self._controller.tick()
            whole = True
        if whole:
            self.write()
            self._tend()

    def _tend(self) -> None:
        """Count the spare processes if a node may have taken one, and ask Ray for those that are missing."""
        then, restarts = self._counted
        now = time.monotonic()
        if self._spares is None or not self._controller.settled:
            return
        if now - then > _COUNT or self._controller.restarts != restarts:
            self._counted = (now, self._controller.restarts)
            self._spares.tend()

    def write(self) -> None:
        save_status(self._data, self._controller.snapshot())
