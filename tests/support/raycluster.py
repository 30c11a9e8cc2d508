"""A Ray cluster of one machine that no mesh has started, and whose head can be lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import final

import psutil

from mesh.cluster.processes import kill_session, of_session, started
from mesh.cluster.rayenv import environment, ray_folder
from tests.support.ports import free_port

_HEAD = """\
import sys
from ray._private.node import Node
from ray._private.parameter import RayParams

folder, port = sys.argv[1], int(sys.argv[2])
node = Node(
    RayParams(
        node_ip_address="127.0.0.1", gcs_server_port=port, temp_dir=folder, plasma_directory=folder,
        object_store_memory=80 << 20, num_cpus=4, num_gpus=0, include_dashboard=False, dashboard_port=0,
        include_log_monitor=False, no_monitor=True,
    ),
    head=True, shutdown_at_exit=False, spawn_reaper=True,
)
print("up", flush=True)
sys.stdin.read()
"""


@final
class RayCluster:
    """Its address stays the same when it is started again; its memory does not."""

    def __init__(self) -> None:
        folder = self._folder = Path(tempfile.mkdtemp(prefix="ray"))  # Ray's sockets need a short path
        self._port = free_port()
        self._head: subprocess.Popen[bytes] | None = None
        self.environment = environment(folder)
        (ray_folder(folder) / "run").mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-P", "-c", _HEAD, str(ray_folder(self._folder) / "run"), str(self._port)]
        self._head = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._head.stdout is not None
        assert self._head.stdout.readline() == b"up\n", "Ray's head did not start"

    def lose_head(self) -> None:
        """Kill the process that knows the actors; the others, and the nodes of meshes, go on without it."""
        assert self._head is not None
        for pid in of_session(self._head.pid, started(self._head.pid) or 0.0):
            if "gcs_server" in psutil.Process(pid).name():
                os.kill(pid, signal.SIGKILL)

    def lose(self) -> None:
        """Kill all processes of the cluster, as in a crash of its machine."""
        head = self._head
        if head is not None:
            kill_session(head.pid, started(head.pid) or 0.0)
            head.wait()
            self._head = None

    def close(self) -> None:
        """End it, and remove its folder."""
        self.lose()
        shutil.rmtree(self._folder, ignore_errors=True)
