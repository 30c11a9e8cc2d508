"""The mesh's own Ray on one machine: a head node that runs in this process's session and ends with this process.

Knows Ray's processes and no actor. It uses Ray's ``Node`` class directly: ``ray start`` also opens a client server on a
fixed port and keeps one more process, and ``ray.init`` starts two more that the mesh does not need. What always holds:
the kernel kills Ray when this process ends (Ray sets PR_SET_PDEATHSIG on its processes); Ray's folders, which it gives
mode 0777 again and again, lie in one that no other user can enter.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final, final

from ray._private.node import Node as RayNode
from ray._private.parameter import RayParams

from mesh.cluster.rayenv import LONGEST_RAY_FOLDER, OBJECT_STORE_BYTES, ray_folder
from mesh.private import make_private

# How many earlier sessions of Ray keep their logs.
_KEPT: Final = 2


@final
class Head:
    """The running head node. Create it in a process that does nothing else."""

    def __init__(self, data: Path, processes: int) -> None:
        """``processes``: how many workers Ray starts in advance. Raises any exception that Ray raises."""
        above = ray_folder(data)
        make_private(above)
        _forget(above)  # where earlier releases had them
        folder = above / "run"
        folder.mkdir(exist_ok=True)
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
        """A sentence that names Ray's processes that have ended; empty if all run."""
        dead = [str(kind) for kind, process in self._node.dead_processes()]
        return f"Ray's {' and '.join(dead)} ended unexpectedly" if dead else ""

    def _short(self, folder: Path) -> str:
        """A path of the folder that is short enough for the sockets in it. If its own path is too long, the path leads
        through an open file of this process."""
        if len(os.fsencode(folder)) <= LONGEST_RAY_FOLDER or not Path("/proc/self/fd").exists():
            return str(folder)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/{os.getpid()}/fd/{self._folder}"


def _forget(folder: Path) -> None:
    """Remove the files of earlier runs, except for the latest logs."""
    sessions = sorted(path for path in folder.glob("session_*") if path.is_dir() and not path.is_symlink())
    for path in sessions[: max(0, len(sessions) - _KEPT)]:
        shutil.rmtree(path, ignore_errors=True)
    (folder / "session_latest").unlink(missing_ok=True)
