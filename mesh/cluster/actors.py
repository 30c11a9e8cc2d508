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

from mesh.cluster.controller import PATIENCE, Controller
from mesh.cluster.following import Following
from mesh.cluster.host import Host, Report, all_file_descriptors, log_to_file
from mesh.cluster.leaving import Counts
from mesh.cluster.node import Assignment
from mesh.cluster.plan import LOCAL, ClusterPlan
from mesh.cluster.rayenv import short_lived
from mesh.cluster.revisions import Revisions
from mesh.cluster.run import load_plan, save_plan
from mesh.cluster.runtime import CONTROLLER, RayRuntime, restarted
from mesh.cluster.spares import Spares
from mesh.cluster.starts import count_start
from mesh.cluster.status import Snapshot, save_status
from mesh.node.ending import Ending
from mesh.topology.topology import from_dict

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
        before = count_start(assignment.folder, assignment.since)
        self._host = Host(
            assignment, begin=restarted(), on_orphan=self._end_now, ending=Ending(assignment.folder),
            restarts=before,
        )  # fmt: skip

    def report(self) -> Report:
        return self._host.report()

    def begin(self) -> None:
        self._host.begin()

    def finish(self, grace: float) -> None:
        self._host.finish(grace)

    def end(self, grace: float) -> bool:
        ended = self._host.end(grace)
        self._logs.drain(_DRAIN)
        return ended

    def _end_now(self) -> None:
        """Exit at once: in a normal exit of Python, Ray waits for processes that have ended already."""
        self._logs.close()
        os._exit(1)


class ControllerActor:
    """The process of the controller. The constructor starts a thread that runs its rounds, and one that follows the
    settings in force."""

    def __init__(self, plan: ClusterPlan, namespace: str) -> None:
        data = Path(plan.data)
        self._logs = log_to_file(data, CONTROLLER)
        revisions, counts = Revisions(plan), Counts()
        short = "" if plan.ray == LOCAL else short_lived(os.environ)
        self._plan = last_plan(plan)
        self._controller = Controller(
            self._plan, RayRuntime(NodeActor, plan.mesh, namespace), tell=log.info, behind=revisions.behind,
            patience=PATIENCE if restarted() else 0.0, warnings=tuple(filter(None, [short])),
            count=counts,
        )  # fmt: skip
        self._rounds = Rounds(self._controller, data, Spares(_SPARES) if plan.ray == LOCAL else None)
        threading.Thread(target=self._rounds.run, name="mesh-controller", daemon=True).start()
        self._following = Following(self._plan, revisions, counts, self._follow)
        self._following.start()

    def snapshot(self) -> Snapshot:
        return self._controller.snapshot()

    def stop(self, grace: float) -> None:
        self._following.stop()
        self._controller.stop(grace)
        self._rounds.write()
        self._logs.drain(_DRAIN)

    def _follow(self, plan: ClusterPlan, current: bool) -> None:
        if plan.revision > self._plan.revision:
            self._plan = plan
            try:
                save_plan(plan)
            except OSError as error:
                log.error("the plan of revision %d cannot be kept: %s", plan.revision, error)
        logs = from_dict(dict(plan.settings)).logs
        self._logs.take(logs.of(CONTROLLER), logs.modules)
        self._controller.follow(plan, current)


def last_plan(plan: ClusterPlan) -> ClusterPlan:
    """The last plan of this run that the data folder has, if it is newer than the one with which the controller was
    created: Ray starts it again with that one."""
    try:
        kept = load_plan(Path(plan.data))
    except (OSError, ValueError):
        return plan
    return kept if kept.since == plan.since and kept.revision > plan.revision else plan


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
            pause = _CALM if self._controller.calm else _BUSY
            time.sleep(max(0.02, begun + pause - time.monotonic()))

    def _next(self) -> None:
        if self._controller.calm:
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
