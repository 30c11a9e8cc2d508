"""All calls of Ray, and no thought of our own: the only file that imports it.

What always holds: no call waits longer than its deadline; Ray's errors leave this file as ``OSError`` or ``RuntimeError`` with one
sentence. What Ray does on its own is listed in docs/ray.md.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, final

import ray
import ray.exceptions
import ray.util
from ray._private.node import Node as RayNode
from ray._private.parameter import RayParams

from mesh.cluster import host
from mesh.cluster.controller import Controller
from mesh.cluster.host import Host, Report, log_to_file
from mesh.cluster.node import Assignment
from mesh.cluster.plan import LOCAL, Plan, PlannedNode, objections
from mesh.cluster.rayenv import OBJECT_STORE_BYTES
from mesh.cluster.spares import Spares

log = logging.getLogger(__name__)

CONTROLLER: Final = "controller"

# Ray's call to an actor that is starting waits for it; the controller looks again in the next round instead.
_ANSWER: Final = 0.5

# Creating an actor only registers it. A cluster that cannot do even that in this time is not well.
_REGISTER: Final = 30.0

# Calls of one actor at a time: a report must get through while another call waits for the node to end.
_CALLS: Final = 4


def actor_name(mesh: str, node: str) -> str:
    return f"mesh/{mesh}/{node}"


class NodeActor:
    """The process of one node. Ray runs the constructor again after a crash, so this is where the node is started then."""

    def __init__(self, assignment: Assignment) -> None:
        log_to_file(Path(assignment.data), assignment.name)
        again = bool(ray.get_runtime_context().was_current_actor_reconstructed)
        self._host = Host(assignment, begin=again)

    def report(self) -> dict[str, object]:
        return self._host.report().plain()

    def begin(self) -> None:
        self._host.begin()

    def end(self, grace: float) -> bool:
        return self._host.end(grace)


class ControllerActor:
    """The process of the controller: its loop runs in a thread from the constructor on, so that a restart needs no call."""

    def __init__(self, plan: Plan, namespace: str, status_file: str) -> None:
        log_to_file(Path(plan.data), CONTROLLER)
        self._plan = plan
        spares = Spares(_raylet_port(), len(_WARM)) if plan.ray == LOCAL else None
        self._controller = Controller(plan, RayRuntime(plan.mesh, namespace), tell=log.info)
        self._rounds = Rounds(self._controller, Path(status_file) if status_file else None, spares)
        threading.Thread(target=self._rounds.run, name="mesh-controller", daemon=True).start()

    def snapshot(self) -> dict[str, object]:
        return self._controller.snapshot()

    def objections(self, plan: Plan) -> list[str]:
        return objections(self._plan, plan)

    def stop(self, grace: float) -> None:
        self._controller.stop(grace)
        self._rounds.write()


_WARM: Final = ("one spare process",)


@final
class RayRuntime:
    """A ``Runtime`` on the Ray that this process is connected to."""

    def __init__(self, mesh: str, namespace: str) -> None:
        self._mesh = mesh
        self._namespace = namespace
        self._handles: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}

    def names(self) -> set[str]:
        prefix = actor_name(self._mesh, "")
        found = _guard(lambda: ray.util.list_named_actors())
        return {name[len(prefix) :] for name in found if name.startswith(prefix)} - {CONTROLLER}

    def reports(self, names: Iterable[str]) -> Mapping[str, Report | None]:
        reports: dict[str, Report | None] = {}
        for name in names:
            if name not in self._asked:
                with contextlib.suppress(ValueError, ray.exceptions.RayError):
                    self._asked[name] = self._handle(name).report.remote()
        asked = {reference: name for name, reference in self._asked.items()}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER) if asked else ([], [])
        for reference in answered:
            name = asked[reference]
            del self._asked[name]
            try:
                reports[name] = Report(**ray.get(reference))
            except ray.exceptions.RayError:
                self._handles.pop(name, None)
                reports[name] = None
        return reports

    def create(self, node: PlannedNode, plan: Plan) -> None:
        options = _options(self._mesh, node.name, self._namespace, dict(node.resources))
        actor = ray.remote(NodeActor).options(**options)
        self._handles[node.name] = _guard(lambda: actor.remote(plan.assignment(node)))

    def begin(self, name: str) -> None:
        _guard(lambda: self._handle(name).begin.remote())

    def restart(self, name: str) -> None:
        self._asked.pop(name, None)
        _guard(lambda: ray.kill(self._handle(name), no_restart=False))

    def end(self, names: Iterable[str], grace: float) -> None:
        calls = []
        for name in names:
            with contextlib.suppress(ValueError, ray.exceptions.RayError):
                calls.append(self._handle(name).end.remote(grace))
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=grace + 2.0)

    def remove(self, name: str) -> None:
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            ray.kill(self._handle(name), no_restart=True)
        self._handles.pop(name, None)
        self._asked.pop(name, None)

    def _handle(self, name: str) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = ray.get_actor(actor_name(self._mesh, name), namespace=self._namespace)
        return handle


@final
class Rounds:
    """The controller's rounds: quick ones while something is not ready, one a second else."""

    def __init__(self, controller: Controller, status_file: Path | None, spares: Spares | None) -> None:
        self._controller = controller
        self._status_file = status_file
        self._spares = spares

    def run(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                self._controller.tick()
                self.write()
                if self._spares is not None and self._controller.ready:
                    self._spares.tend()
            except Exception:
                log.exception("a round of the controller failed; the next one tries again")
            pause = 1.0 if self._controller.ready else 0.1
            time.sleep(max(0.05, pause - (time.monotonic() - begun)))

    def write(self) -> None:
        if self._status_file is not None:
            write_status(self._status_file, self._controller.snapshot())


def connect(address: str, namespace: str) -> None:
    """Become a driver of the Ray at ``address``. Raises ``ConnectionError``."""
    try:
        ray.init(address, namespace=namespace, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {host.sentence(error)}") from error


def disconnect() -> None:
    ray.shutdown()
