"""A Ray of our own, for a mesh on one machine: head node, started in this process's session and gone with it.

Knows Ray's processes and no actor. ``ray start`` does the same, but opens a client server on a fixed port and keeps one
more process; ``ray.init`` starts two more that we do not need. Hence Ray's own ``Node`` class, which both of them use.
What always holds: the kernel kills Ray when this process ends (Ray sets PR_SET_PDEATHSIG on its processes).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final, final

from ray._private.node import Node as RayNode
from ray._private.parameter import RayParams

from mesh.cluster.rayenv import LONGEST_RAY_FOLDER, OBJECT_STORE_BYTES, ray_folder

# Sessions of earlier runs whose logs are kept.
_KEPT: Final = 2

# Enough of any resource that the topology asks for: on one machine there is nothing to place.
_PLENTY: Final = 1_000_000.0


@final
class Head:
    """The running head node. Start it in a process that does nothing else."""

    def __init__(self, data: Path, processes: int, resources: Iterable[str]) -> None:
        """``processes``: how many workers Ray starts at once, ahead of need. Raises whatever Ray raises."""
        folder = ray_folder(data)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget(folder)
        self._folder = -1
        self._node = RayNode(
            RayParams(
                node_ip_address="127.0.0.1",
                temp_dir=self._short(folder),
                plasma_directory=str(folder),
                object_store_memory=OBJECT_STORE_BYTES,
                num_cpus=processes,
                num_gpus=0,
                resources=dict.fromkeys(resources, _PLENTY),
                include_dashboard=False,
                dashboard_port=0,
                include_log_monitor=False,
                no_monitor=True,
            ),
            head=True,
            shutdown_at_exit=False,
            spawn_reaper=True,
        )

    @property
    def address(self) -> str:
        return str(self._node.gcs_address)

    def fault(self) -> str:
        """Which process of Ray has died; empty when all live."""
        dead = [str(kind) for kind, process in self._node.dead_processes()]
        return f"Ray's {' and '.join(dead)} ended unexpectedly" if dead else ""

    def _short(self, folder: Path) -> str:
        """A name of the folder that is short enough for the sockets in it: by way of this process's open file, if need
        be."""
        if len(os.fsencode(folder)) <= LONGEST_RAY_FOLDER or not Path("/proc/self/fd").exists():
            return str(folder)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/{os.getpid()}/fd/{self._folder}"


def _forget(folder: Path) -> None:
    """Remove what earlier runs left, but for the latest logs."""
    sessions = sorted(path for path in folder.glob("session_*") if path.is_dir() and not path.is_symlink())
    for path in sessions[: max(0, len(sessions) - _KEPT)]:
        shutil.rmtree(path, ignore_errors=True)
    (folder / "session_latest").unlink(missing_ok=True)
