"""A running mesh as the scenarios see it, whoever started its processes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tests.support.waiting import until


class Mesh(Protocol):
    """``vehicles`` and ``backends`` are the ports of front door and core. Nothing here is called on an event loop
    that has other work, except ``pid`` and ``figures``."""

    vehicles: int
    backends: int

    def names(self) -> list[str]:
        """All nodes."""

    def pid(self, name: str) -> int:
        """The process of a node; 0 while there is none."""

    def figures(self, name: str) -> dict[str, float]:
        """The figures of the node's present process, by series; empty until it is ready."""

    def log(self, name: str) -> str:
        """All that the processes of a node have logged."""

    def kill(self, *names: str) -> None:
        """Kill processes with SIGKILL, all at once; ``etcd`` is one of them. Their supervisor starts nodes again."""

    def where(self, vehicle: str) -> str:
        """The edge that the map names; empty if there is no record."""

    def restart(self) -> None:
        """Stop everything in order, and start it again."""

    def add_edge(self, name: str) -> None:
        """Apply the topology with a further edge to the running mesh."""

    def stop_etcd(self) -> None:
        """Kill etcd, and keep it down."""

    def start_etcd(self) -> None:
        """Let etcd be there again."""


async def kill_and_wait(mesh: Mesh, *names: str) -> None:
    """Kill nodes and wait until other processes of theirs are ready."""
    before = {name: mesh.pid(name) for name in names}
    await asyncio.to_thread(mesh.kill, *names)
    await until(lambda: replaced(mesh, before), f"{', '.join(names)} back after the kill")


def replaced(mesh: Mesh, before: dict[str, int]) -> bool:
    """Whether nodes that had these processes have others that are ready."""
    return all(mesh.pid(name) not in (0, process) and mesh.figures(name) for name, process in before.items())


def edges(mesh: Mesh) -> list[str]:
    """The names of the edges."""
    return [name for name in mesh.names() if name.startswith("edge")]
