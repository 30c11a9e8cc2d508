"""The nodes of a plan in this process, without Ray."""

from __future__ import annotations

import importlib
from typing import Any

from mesh.cluster.plan import ClusterPlan
from tests.support.loop import LoopThread

START_SECONDS = 60.0


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
