"""All calls of Ray that concern actors.

Makes no decisions. Only this file, ``head`` and ``spares`` import Ray. What always holds: no call waits longer than its
deadline; Ray's errors leave this file as ``OSError`` or ``RuntimeError`` with one sentence. docs/ray.md lists what Ray
does by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, final

import ray
import ray.exceptions
import ray.util

from mesh.cluster.host import Report, sentence
from mesh.cluster.plan import LOCAL, ClusterPlan, PlannedNode

Result = TypeVar("Result")

CONTROLLER: Final = "controller"

# Seconds that a round waits for answers. A later answer counts in the next round.
_ANSWER: Final = 0.5

# Calls of one actor at the same time: ``report`` must be answered while ``end`` waits for the node to stop.
_CALLS: Final = 4


def actor_name(mesh: str, node: str) -> str:
    return f"mesh/{mesh}/{node}"


def options(mesh: str, node: str, namespace: str, resources: Mapping[str, float]) -> dict[str, Any]:
    """The options of our actors: they outlive their creator, reserve no processor, restart without limit, and Ray does
    not repeat calls."""
    return {
        "name": actor_name(mesh, node),
        "namespace": namespace,
        "get_if_exists": True,
        "lifetime": "detached",
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": _CALLS,
        "num_cpus": 0,
        "resources": dict(resources),
    }


def guarded(call: Callable[[], Result]) -> Result:
    """The result of ``call()``. Turns Ray's errors into ``RuntimeError`` with one sentence."""
    try:
        return call()
    except (ray.exceptions.RayError, ValueError) as error:
        raise RuntimeError(sentence(error)) from error


def connect(address: str, namespace: str) -> None:
    """Become a driver of the Ray at ``address``. Raises ``ConnectionError``."""
    try:
        ray.init(address, namespace=namespace, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {sentence(error)}") from error


def disconnect() -> None:
    ray.shutdown()


def create(
    actor: type, name: str, mesh: str, namespace: str, resources: Mapping[str, float], *arguments: object
) -> Any:
    """The actor of this name. Creates it if there is none."""
    return guarded(lambda: ray.remote(actor).options(**options(mesh, name, namespace, resources)).remote(*arguments))


def find(name: str, mesh: str, namespace: str) -> Any:
    """The actor of this name. Raises ``RuntimeError`` if there is none."""
    return guarded(lambda: ray.get_actor(actor_name(mesh, name), namespace=namespace))


def named(mesh: str) -> set[str]:
    """The names of the mesh's actors in the namespace of this process, the controller among them, in any state but
    dead."""
    prefix = actor_name(mesh, "")
    found: list[str] = guarded(lambda: ray.util.list_named_actors())
    return {name[len(prefix) :] for name in found if name.startswith(prefix)}


def ask(call: Any, timeout: float) -> Any:
    """The answer to a call of an actor. Raises ``RuntimeError``, also if there is no answer in ``timeout`` seconds."""
    return guarded(lambda: ray.get(call, timeout=timeout))


def kill(handle: Any, restart: bool) -> None:
    """Kill the actor's process; with ``restart`` Ray starts a new one."""
    guarded(lambda: ray.kill(handle, no_restart=not restart))


def restarted() -> bool:
    """Whether this process is an actor that Ray has restarted."""
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)


@final
class RayRuntime:
    """A ``Runtime`` on the Ray that this process is connected to."""

    def __init__(self, actor: type, mesh: str, namespace: str) -> None:
        """``actor``: the class of the nodes' actors (see ``actors``)."""
        self._actor = actor
        self._mesh = mesh
        self._namespace = namespace
        self._handles: dict[str, Any] = {}
        self._asked: dict[str, Any] = {}

    def names(self) -> set[str]:
        return named(self._mesh) - {CONTROLLER}

    def reports(self, names: Iterable[str]) -> Mapping[str, Report | None]:
        reports: dict[str, Report | None] = {}
        for name in names:
            if name not in self._asked:
                with contextlib.suppress(RuntimeError, ray.exceptions.RayError):
                    self._asked[name] = self._handle(name).report.remote()
        asked = {reference: name for name, reference in self._asked.items()}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER) if asked else ([], [])
        for reference in answered:
            name = asked[reference]
            del self._asked[name]
            try:
                report: Report = ray.get(reference)
                reports[name] = report
            except ray.exceptions.RayError:
                self._handles.pop(name, None)
                reports[name] = None
        return reports

    def create(self, node: PlannedNode, plan: ClusterPlan) -> None:
        # The mesh's own Ray has one machine, which has whatever a node asks for.
        resources = {} if plan.ray == LOCAL else node.resources
        handle = create(self._actor, node.name, self._mesh, self._namespace, resources, plan.assignment(node))
        self._handles[node.name] = handle

    def begin(self, name: str) -> None:
        guarded(lambda: self._handle(name).begin.remote())

    def finish(self, name: str, grace: float) -> None:
        # A report that was asked for before may have been made before the node stops.
        self._asked.pop(name, None)
        guarded(lambda: self._handle(name).finish.remote(grace))

    def restart(self, name: str) -> None:
        self._asked.pop(name, None)
        kill(self._handle(name), restart=True)

    def end(self, names: Iterable[str], grace: float) -> None:
        calls = []
        for name in names:
            with contextlib.suppress(RuntimeError, ray.exceptions.RayError):
                calls.append(self._handle(name).end.remote(grace))
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=grace + 2.0)

    def remove(self, name: str) -> None:
        with contextlib.suppress(RuntimeError):
            kill(self._handle(name), restart=False)
        self._handles.pop(name, None)
        self._asked.pop(name, None)

    def _handle(self, name: str) -> Any:
        handle = self._handles.get(name)
        if handle is None:
            handle = self._handles[name] = find(name, self._mesh, self._namespace)
        return handle


