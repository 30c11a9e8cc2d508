"""A mesh as its users run it: started with the ``mesh`` command on a real Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from mesh.cluster.look import status_of
from mesh.cluster.run import load_run, logs_path, topology_of
from mesh.cluster.status import NodeRow
from mesh.node.registry import client_of, etcd_folder
from tests.support.owners import edges_of
from tests.support.ports import free_ports
from tests.support.topologies import topology
from tests.support.waiting import PATIENCE, wait_until

COMMAND = 120.0  # seconds; the deadline of a command on a shared machine


class Cluster:
    """See ``Mesh``. ``mesh up`` writes its data below ``folder``; the mesh has the name of the folder."""

    def __init__(
        self, folder: Path, edge_names: list[str], otlp: str = "", extra: str = "", prometheus: str = ""
    ) -> None:
        self.vehicles, self.backends = free_ports(2)
        self.file = folder / "mesh.yaml"
        self.console = ""  # its URL, if the topology has one
        self.name = folder.name
        self._folder = folder
        self._data = folder / "data"
        self._edges = list(edge_names)
        self._otlp = otlp
        self._extra = extra
        self._prometheus = prometheus
        self._etcd = 0
        self._processes: list[psutil.Process] = []

    # Life

    def command(self, *words: str, expected: int = 0) -> str:
        """Run ``mesh WORDS``, which must end with the exit code ``expected``; return its output."""
        done = self.outcome(*words)
        assert done.returncode == expected, f"mesh {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def outcome(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``mesh WORDS``."""
        return subprocess.run(
            [sys.executable, "-m", "mesh.cli.main", *words], capture_output=True, text=True, timeout=COMMAND
        )

    def write(self) -> None:
        """Write the topology file."""
        topology(
            self._folder, self.vehicles, self.backends, self._edges, self._otlp, extra=self._extra,
            prometheus=self._prometheus,
        )  # fmt: skip

    def start(self) -> None:
        """Run ``mesh up --detach``, which returns when all nodes are ready."""
        self.write()
        self.command("up", str(self.file), "--detach")
        run = load_run(self._data)
        assert run is not None
        supervisor = psutil.Process(run.supervisor)
        self._processes = [supervisor, *supervisor.children(recursive=True)]

    def stop(self) -> None:
        """Run ``mesh down``; no process may remain."""
        self.command("down", "--topology", str(self.file))
        left = [process for process in self._processes if process.is_running() and process.status() != "zombie"]
        assert not left, f"processes still running after mesh down: {left}"

    def restart(self) -> None:
        self.stop()
        self.start()

    def add_edge(self, name: str) -> None:
        self._edges.append(name)
        self.start()

    # Observation

    def names(self) -> list[str]:
        return [row.name for row in self._rows() if row.role not in ("etcd", "console")]

    def pid(self, name: str) -> int:
        if name == "etcd":
            return int((etcd_folder(self._data) / "lock").read_text())
        return self._row(name).pid

    def figures(self, name: str) -> dict[str, float]:
        return self._row(name).figures

    def log(self, name: str) -> str:
        files = sorted(logs_path(self._data).glob(f"*{name}*"))
        return "".join(file.read_text(errors="replace") for file in files)

    def where(self, vehicle: str) -> str:
        return self.owners([vehicle])[vehicle]

    def owners(self, vehicles: Sequence[str]) -> dict[str, str]:
        """Reads etcd directly: the ``mesh where`` command takes a third of a second, and scenarios need hundreds."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._owners(vehicles)).result(PATIENCE)

    async def _owners(self, vehicles: Sequence[str]) -> dict[str, str]:
        run = load_run(self._data)
        assert run is not None
        client = client_of(topology_of(run), run.endpoints)
        try:
            return await edges_of(client, run.mesh, vehicles)
        finally:
            await client.close()

    def _rows(self) -> tuple[NodeRow, ...]:
        run = load_run(self._data)
        assert run is not None
        return status_of(run).nodes

    def _row(self, name: str) -> NodeRow:
        return next(row for row in self._rows() if row.name == name)

    # Faults

    def kill(self, *names: str) -> None:
        pids = [self.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(_alive(pid) for pid in pids), "the end of the killed processes")

    def stop_etcd(self) -> None:
        """Stop etcd with SIGSTOP, because its node would restart a killed one. Its connections stay open but silent."""
        self._etcd = self.pid("etcd")
        os.kill(self._etcd, signal.SIGSTOP)

    def start_etcd(self) -> None:
        os.kill(self._etcd, signal.SIGCONT)


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
