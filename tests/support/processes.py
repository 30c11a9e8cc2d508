"""A mesh without Ray: etcd and every node run as processes, which are restarted a moment after they end.

Their folders have different parents, so they connect over TCP as nodes on several machines do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mesh
from mesh.registry.audit import act
from mesh.registry.bans import Ban, BanStore, normal
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.load import load
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology, as_dict
from tests.support.loop import LoopThread
from tests.support.owners import edges_of
from tests.support.ports import free_ports
from tests.support.topologies import topology
from tests.support.waiting import PATIENCE

RESTART = 1.0  # seconds from the end of a node's process to its next start
POLL = 0.02
STOP = 8.0
PACKAGE = str(Path(mesh.__path__[0]).parent)  # the nodes run the package that the tests import
RUNNER = str(Path(__file__).with_name("runner.py"))


class Child:
    """One node and its current process."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._due = 0.0

    def start(self) -> None:
        """Start a process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": PACKAGE}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder
            )

    @property
    def pid(self) -> int:
        process = self._process
        return process.pid if process is not None and process.poll() is None else 0

    def watch(self) -> None:
        """Start a new process ``RESTART`` seconds after the old one ended."""
        if self.pid:
            return
        now = time.monotonic()
        if not self._due:
            self._due = now + RESTART
        elif now >= self._due:
            self._due = 0.0
            self.start()

    def kill(self) -> None:
        """Send SIGKILL and wait until the process has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL after ``STOP`` seconds."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)
        self._process = None


class Processes:
    """See ``Mesh``; runs within ``with``. ``folder`` holds data, logs and figures, and gives the mesh its name."""

    def __init__(
        self, folder: Path, edge_names: list[str], otlp: str = "", extra: str = "", edge_runner: str = RUNNER,
        given: Path | None = None, **options: Any,
    ) -> None:
        """``edge_runner`` is the program of an edge; ``given``: a topology file to start, which needs no other argument
        than ``folder``; ``options`` are further options of a file that is written here (see ``topologies.topology``).
        """
        self.vehicles, self.backends = free_ports(2)
        self._given = given
        self.name, self._data = folder.name, folder / "data"
        if given is not None:
            found = load(given)
            self.name, self._data = found.mesh, found.data
        self._folder = folder
        self._edges = list(edge_names)
        self._otlp = otlp
        self._extra = extra
        self._edge_runner = edge_runner
        self._options = options
        self._children: dict[str, Child] = {}
        self._etcd = EmbeddedEtcd(self._data / "etcd")
        self._lock = threading.RLock()
        self._watching = threading.Event()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._loop = LoopThread()  # the kernel ends etcd with the thread that started it

    # Life

    def __enter__(self) -> Processes:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start etcd and all nodes; return when all are ready."""
        self._loop.run(self._etcd.start())
        self._apply()
        self._wait_ready()
        self._watching.set()

    def stop(self) -> None:
        """End all processes and threads."""
        self._stop_nodes()
        self._ended.set()
        self._watcher.join(PATIENCE)
        self._loop.run(self._etcd.stop())
        self._loop.close()

    def _apply(self) -> Path:
        """Start the nodes of the topology that do not run yet; returns its file."""
        file = self._given or topology(
            self._folder, self.vehicles, self.backends, self._edges, self._otlp, extra=self._extra, **self._options
        )  # fmt: skip
        with self._lock:
            for spec in nodes(load(file)):
                if spec.name not in self._children:
                    folder = self._data / spec.name / spec.name
                    runner = self._edge_runner if spec.role == "edge" else RUNNER
                    command = [sys.executable, "-P", runner, str(file), spec.name, self._etcd.endpoint]
                    child = self._children[spec.name] = Child(spec.name, [*command, str(folder)], folder)
                    child.start()
        return file

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not all(self.figures(name) for name in self._children):
            for child in self._children.values():
                if not child.pid or time.monotonic() > deadline:
                    raise AssertionError(f"{child.name} did not start:\n{self.log(child.name)[-3000:]}")
            time.sleep(POLL)

    def _stop_nodes(self) -> None:
        self._watching.clear()
        with self._lock:
            for child in reversed(self._children.values()):
                child.stop()

    def _watch(self) -> None:
        while not self._ended.wait(POLL):
            if self._watching.is_set():
                with self._lock:
                    for child in self._children.values():
                        child.watch()

    # Mesh

    def names(self) -> list[str]:
        return list(self._children)

    def pid(self, name: str) -> int:
        return self._etcd.pid if name == "etcd" else self._children[name].pid

    def figures(self, name: str) -> dict[str, float]:
        found: dict[str, float] = self._told(name).get("figures", {})
        return found

    def metrics(self, name: str) -> str:
        """The address of the node's metrics."""
        return str(self._told(name).get("metrics", ""))

    def _told(self, name: str) -> dict[str, Any]:
        """The status that the node's current process has written; empty until it is ready."""
        child = self._children[name]
        try:
            told: dict[str, Any] = json.loads((child.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return told if told["pid"] == child.pid else {}

    def log(self, name: str) -> str:
        try:
            return (self._children[name].folder / "log").read_text(errors="replace")
        except OSError:
            return ""

    def kill(self, *names: str) -> None:
        with self._lock:
            for name in names:
                if name == "etcd":
                    os.kill(self._etcd.pid, signal.SIGKILL)
                else:
                    os.kill(self._children[name].pid, signal.SIGKILL)
            for name in names:
                if name != "etcd":
                    self._children[name].kill()

    def where(self, vehicle: str) -> str:
        return self.owners([vehicle])[vehicle]

    def owners(self, vehicles: Sequence[str]) -> dict[str, str]:
        return self._loop.run(self._owners(vehicles))

    async def _owners(self, vehicles: Sequence[str]) -> dict[str, str]:
        client = self._etcd.client()
        try:
            return await edges_of(client, self.name, vehicles)
        finally:
            await client.close()

    def restart(self) -> None:
        self._stop_nodes()
        self._loop.run(self._etcd.stop())
        self._loop.run(self._etcd.start())
        with self._lock:
            for child in self._children.values():
                child.start()
        self._wait_ready()
        self._watching.set()

    def add_edge(self, name: str) -> None:
        self._edges.append(name)
        changed = load(self._apply())
        self._loop.run(self._put(changed))
        self._wait_ready()

    async def _put(self, changed: Topology) -> None:
        """Put a changed topology in force."""
        client = self._etcd.client()
        try:
            made = Revision(0, as_dict(changed), time.time(), "tester", "here")
            await SettingsStore(client, changed.mesh).first(made)
        finally:
            await client.close()

    def ban(self, kind: str, value: str) -> None:
        """Put a ban in force."""
        self._loop.run(self._ban(Ban(kind, normal(kind, value), "a test", "tester", time.time())))

    async def _ban(self, ban: Ban) -> None:
        client = self._etcd.client()
        try:
            await BanStore(client, self.name).add(ban, act("test", str(ban)))
        finally:
            await client.close()

    def stop_etcd(self) -> None:
        self.kill("etcd")
        self._loop.run(self._etcd.stop())

    def start_etcd(self) -> None:
        self._loop.run(self._etcd.start())
