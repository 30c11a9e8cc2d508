"""What an attack costs the nodes: memory, processor time and descriptors, read from the system while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import psutil

EVERY: Final = 0.2  # seconds between two looks
Pids = Callable[[], dict[str, int]]


@final
@dataclass
class Cost:
    """Of one node. Memory in bytes, processor time in seconds. ``restarts``: how often its process was another."""

    memory: int = 0
    peak: int = 0
    after: int = 0
    cpu: float = 0.0
    descriptors: int = 0
    most_descriptors: int = 0
    restarts: int = 0


@final
class Meter:
    """Looks at the processes of ``pids`` from ``begin`` until ``end``."""

    def __init__(self, pids: Pids) -> None:
        self.costs: dict[str, Cost] = {}
        self._pids = pids
        self._seen: dict[str, tuple[int, float]] = {}  # process id and its processor time at the last look
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """The first look."""
        self.costs = {name: Cost() for name in self._pids()}
        self._seen = {}
        self._look()
        for cost in self.costs.values():
            cost.memory, cost.descriptors, cost.cpu = cost.peak, cost.most_descriptors, 0.0
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._look()

    def _look(self) -> None:
        for name, pid in self._pids().items():
            cost = self.costs.get(name)
            if cost is None or not pid:
                continue
            with contextlib.suppress(psutil.Error):
                self._one(name, pid, cost, psutil.Process(pid))

    def _one(self, name: str, pid: int, cost: Cost, process: psutil.Process) -> None:
        with process.oneshot():
            memory = int(process.memory_info().rss)
            times = process.cpu_times()
            descriptors = int(process.num_fds())
        used = float(times.user + times.system)
        before, counted = self._seen.get(name, (pid, used))
        if before != pid:
            cost.restarts += 1
            counted = 0.0
        cost.cpu += used - counted
        self._seen[name] = pid, used
        cost.after = memory
        cost.peak = max(cost.peak, memory)
        cost.most_descriptors = max(cost.most_descriptors, descriptors)

    async def end(self) -> dict[str, Cost]:
        """The last look; the costs since ``begin``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._look()
        return self.costs
