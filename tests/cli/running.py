"""One mesh with real sockets in this process, for tests of the ``mesh`` command.

The nodes run on one event loop in a thread, with a real etcd, so that the tests need no Ray.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from mesh.cluster.lifecycle import planned
from mesh.cluster.plan import ClusterPlan
from mesh.cluster.run import RUNNING, Run, save_plan, save_run
from mesh.topology.load import load
from tests.support.loop import LoopThread
from tests.support.ports import free_ports

START_SECONDS = 60.0

TOPOLOGY = """\
mesh: commands
etcd: embedded
identity: {{from: username, pattern: "[A-Z0-9-]{{3,32}}"}}
topics: {{vehicle: "vehicles/{{vehicle}}/#"}}
inbox: {{subscribe: ["vehicles/{{vehicle}}/cmd/#"]}}
front_doors: [{{name: door, listen: [{{mqtt: "127.0.0.1:{door}"}}]}}]
cores: [{{name: core, listen: [{{mqtt: "127.0.0.1:{core}"}}]}}]
backends: {{anonymous: true, users: [{{user: control, password: secret}}]}}
pools: [{{name: standard, edges: [{{name: edge-1}}]}}]
data: data
"""


@contextmanager
def running_mesh(folder: Path, extra: str = "") -> Iterator[Path]:
    """A running mesh; gives its topology file. ``extra`` is appended to it."""
    file = folder / "mesh.yaml"
    door, core = free_ports(2)
    file.write_text(TOPOLOGY.format(door=door, core=core) + extra)
    topology = load(file)
    topology.data.mkdir()
    plan = planned(topology)
    nodes = Nodes(plan)
    try:
        nodes.start()
        save_plan(plan)
        pid = os.getpid()
        save_run(
            Run(
                plan.mesh, str(file), plan.data, plan.ray, "", "", plan.endpoints, pid,
                psutil.Process(pid).create_time(), RUNNING,
            )
        )  # fmt: skip
        yield file
    finally:
        nodes.stop()


class Nodes:
    """The nodes of a plan, on an event loop in a thread."""

    def __init__(self, plan: ClusterPlan) -> None:
        self._plan = plan
        self._loop = LoopThread()
        self._nodes: list[Any] = []

    def node(self, name: str) -> Any:
        """A started node."""
        return self._nodes[[one.name for one in sorted(self._plan.nodes, key=lambda one: one.stage)].index(name)]

    def start(self) -> None:
        self._loop.run(self._start(), START_SECONDS)

    def stop(self) -> None:
        self._loop.run(self._stop(), START_SECONDS)
        self._loop.close()

    async def _start(self) -> None:
        for one in sorted(self._plan.nodes, key=lambda node: node.stage):
            assignment = self._plan.assignment(one)
            module, _, function = assignment.factory.partition(":")
            node = getattr(importlib.import_module(module), function)(assignment)
            self._nodes.append(node)
            await node.start()

    async def _stop(self) -> None:
        while self._nodes:
            await self._nodes.pop().stop(1.0)
