"""A running mesh as the scenarios see it, with or without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from tests.support.waiting import until


class Mesh(Protocol):
    """``vehicles`` and ``backends`` are the ports of front door and core. Only ``pid`` and ``figures`` may be called
    on an event loop; the other methods block."""

    vehicles: int
    backends: int

    def names(self) -> list[str]:
        """The names of all nodes."""

    def pid(self, name: str) -> int:
        """The process id of a node; 0 while no process runs."""

    def figures(self, name: str) -> dict[str, float]:
        """The figures of the node's current process, by series; empty until it is ready."""

    def log(self, name: str) -> str:
        """The log of all processes of a node."""

    def kill(self, *names: str) -> None:
        """Send SIGKILL to processes, all at once; ``etcd`` is a valid name. Their supervisor restarts nodes."""

    def where(self, vehicle: str) -> str:
        """The edge of a vehicle in the map; empty if there is no record."""

    def owners(self, vehicles: Sequence[str]) -> dict[str, str]:
        """The same of many vehicles, by vehicle."""

    def restart(self) -> None:
        """Stop all nodes in order and start them again."""

    def add_edge(self, name: str) -> None:
        """Apply the topology with a further edge to the running mesh."""

    def stop_etcd(self) -> None:
        """Make etcd unavailable until ``start_etcd``."""

    def start_etcd(self) -> None:
        """Make etcd available again."""


async def kill_and_wait(mesh: Mesh, *names: str) -> None:
    """Kill nodes and wait until their new processes are ready."""
    before = {name: mesh.pid(name) for name in names}
    await asyncio.to_thread(mesh.kill, *names)
    await until(lambda: replaced(mesh, before), f"{', '.join(names)} running again after the kill")


def replaced(mesh: Mesh, before: dict[str, int]) -> bool:
    """Whether each node has a new process that is ready; ``before`` holds the old process ids."""
    return all(mesh.pid(name) not in (0, process) and mesh.figures(name) for name, process in before.items())


def edges(mesh: Mesh) -> list[str]:
    """The names of the edges."""
    return [name for name in mesh.names() if name.startswith("edge")]
