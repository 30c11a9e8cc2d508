"""A spare process: an idle Ray worker that has imported the mesh's code.

If a spare is idle, a killed node has a new process in 0.03 s; if Ray must start Python first, in 0.7 to 1 s. Ray starts
workers in advance only when it boots, so the controller asks its raylet for more through the raylet's gRPC service
(``NodeManagerService.PrestartWorkers``). This is not a public interface: if a version of Ray does not have it, nodes
restart more slowly, with no other effect. Spares are for the mesh's own local Ray; on an existing cluster the mesh
starts no process that was not asked for.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, Final, final

import psutil
import ray

from mesh.private import read_own

log = logging.getLogger(__name__)

# The title of an idle worker's process, and the program of a worker that is starting.
_IDLE: Final = "ray::IDLE"
_NEW: Final = "default_worker.py"

_CALL: Final = 5.0

# Seconds between attempts after a failure: it may be permanent, and the log is bounded.
_AGAIN: Final = 60.0

# Seconds, ten years: by default Ray ends idle workers.
_KEEP_ALIVE: Final = 10 * 365 * 86400


@final
class Spares:
    """Keeps ``wanted`` spare workers on the raylet that this process belongs to."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._stub: Any = None
        self._not_before = 0.0

    def tend(self) -> None:
        """Count the idle workers, and ask Ray for those that are missing. Never raises."""
        if time.monotonic() < self._not_before:
            return
        try:
            missing = self._wanted - waiting(os.getppid())
            if missing > 0:
                self._prestart(missing)
        except Exception as error:  # noqa: BLE001 - without a spare the mesh works, too
            self._not_before = time.monotonic() + _AGAIN
            self._stub = None
            log.warning("no spare process: a node that crashes restarts more slowly (%s)", error)

    def _prestart(self, count: int) -> None:
        from ray.core.generated import node_manager_pb2 as messages  # here: another version of Ray may not have it

        request = messages.PrestartWorkersRequest(num_workers=count, keep_alive_duration_secs=_KEEP_ALIVE)
        if self._stub is None:
            self._stub = _stub()
        self._stub.PrestartWorkers(request, metadata=_proof(), timeout=_CALL)


def waiting(raylet: int) -> int:
    """The number of workers of a raylet that are idle or starting."""
    count = 0
    for child in psutil.Process(raylet).children():
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        if words and (words[0].startswith(_IDLE) or any(word.endswith(_NEW) for word in words[:4])):
            count += 1
    return count


def _stub() -> Any:
    import grpc
    from ray.core.generated import node_manager_pb2_grpc as services

    own = ray.get_runtime_context().get_node_id()
    port = next(node["NodeManagerPort"] for node in ray.nodes() if node["NodeID"] == own)
    return services.NodeManagerServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))


def _proof() -> list[tuple[str, str]]:
    """Ray's own token, which every process of this Ray has."""
    token = read_own(Path(os.environ["RAY_AUTH_TOKEN_PATH"]), secret=True).decode("ascii").strip()
    return [("authorization", f"Bearer {token}")]
