"""The mesh of the demonstration, run through the ``mesh`` command.

It knows the command and its status. What always holds: ``stop`` ends every process that ``start`` has started, also
during the start; signals from the terminal reach only the demonstration, which stops the mesh.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mesh.cluster.look import status_of
from mesh.cluster.run import Run, load_run, run_path, topology_of
from mesh.node.registry import client_of
from mesh.registry.map import records
from tools.demonstration.setting import MESH

READY: Final = "ready"
# Seconds. Stopping the mesh takes a few; a busy machine needs longer.
_STOP_SECONDS: Final = 90.0
# Seconds until a starting mesh has written its run file, which it does first.
_RECORD_SECONDS: Final = 30.0
# Seconds between two readings. The screen asks several times a second; the status changes once or twice.
_FRESH: Final = 0.2


class Failed(Exception):
    """The demonstration cannot go on; one sentence, or the output of the failed command."""


@final
@dataclass(frozen=True, slots=True)
class NodeState:
    """One node as ``mesh status`` shows it; ``pid`` is 0 while it has no process."""

    name: str
    role: str
    state: str
    pid: int

    @property
    def ready(self) -> bool:
        return self.state == READY


@final
class RunningMesh:
    """One run of the mesh."""

    def __init__(self, group: Path) -> None:
        """``group``: the folder of the topology file and the mesh's data."""
        self._file = group / "topology.yaml"
        self._data = group / "data"
        self._starting: subprocess.Popen[str] | None = None
        self._read = 0.0
        self._nodes: list[NodeState] = []

    def clear(self) -> None:
        """Stop the mesh of an earlier run, and delete its data. Raises ``Failed``, ``OSError``."""
        if self._file.exists():
            if not self.stop():
                raise Failed(f"the mesh of an earlier demo could not be stopped: 'mesh down --topology {self._file}'")
            self._file.unlink()
        if self._data.exists():
            shutil.rmtree(self._data)

    def start(self) -> None:
        """Start the mesh. Raises ``Failed``."""
        with self._command("up", str(self._file), "--detach") as process:
            self._starting = process
            said, _ = process.communicate()
        self._starting = None
        if process.returncode:
            raise Failed("the mesh did not start:\n" + "\n".join(said.splitlines()[-20:]))

    def stop(self) -> bool:
        """Stop the mesh and all its processes; ``False`` if that failed."""
        if self._starting is not None:
            self._interrupt(self._starting)
        if not self._file.exists():
            return True
        with self._command("down", "--topology", str(self._file)) as process:
            try:
                process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.returncode == 0

    def _interrupt(self, starting: subprocess.Popen[str]) -> None:
        """Interrupt a start. Waits until the run file exists, because 'mesh down' needs it."""
        end = time.monotonic() + _RECORD_SECONDS
        while starting.poll() is None and not run_path(self._data).exists() and time.monotonic() < end:
            time.sleep(_FRESH)
        if starting.poll() is None:
            starting.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                starting.wait(_STOP_SECONDS)

    def nodes(self) -> list[NodeState]:
        """The latest known state of all nodes."""
        now = time.monotonic()
        if now - self._read > _FRESH:
            self._read = now
            self._nodes = self._ask()
        return self._nodes

    def node(self, name: str) -> NodeState | None:
        return next((node for node in self.nodes() if node.name == name), None)

    def kill(self, name: str) -> NodeState:
        """``kill -9`` the process of a node; returns its state before that. Raises ``Failed``."""
        node = self.node(name)
        if node is None or not node.pid:
            raise Failed(f"{name} has no process to kill")
        os.kill(node.pid, signal.SIGKILL)
        return node

    def edges(self) -> dict[str, str]:
        """The edge of each vehicle in the map."""
        run = load_run(self._data)
        if run is None:
            raise Failed("the mesh has ended")
        return asyncio.run(_edges(run))

    def _ask(self) -> list[NodeState]:
        run = load_run(self._data)
        if run is None or not run.is_alive():
            return []
        return [NodeState(row.name, row.role, row.state, row.pid) for row in status_of(run).nodes]

    def _command(self, *words: str) -> subprocess.Popen[str]:
        """Run ``mesh`` in its own session, so that Ctrl-C does not reach it."""
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "mesh.cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


async def _edges(run: Run) -> dict[str, str]:
    client = client_of(topology_of(run), run.endpoints)
    found: dict[str, str] = {}
    try:
        async for page in records(client, MESH):
            found.update((record.vehicle, record.edge) for record in page)
    finally:
        await client.close()
    return found


def folder(root: Path) -> Path:
    """The folder for all files of the demonstration."""
    return root / ".mesh" / "demo"
