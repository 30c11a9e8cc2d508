"""A node that only listens: shows the cluster room's tests that nodes run, end and restart."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import final

from mesh.cluster.node import Assignment
from mesh.figures.node import NodeStatus

_NEWEST = 1_000_000  # it follows every revision, because it takes nothing from the settings


@final
class FakeNode:
    """Answers every connection with its process id. ``settings["ports"][name]`` is its port, any if there is none;
    ``settings["fail"]`` names a node that does not start. The file ``life`` in its folder gets a line for each start,
    with the revision of its settings and the time, and for each stop. A client that sends ``stick`` blocks the node's
    loop, which holds the interpreter lock meanwhile, as compiled code does; one that sends ``crash`` ends the process
    by a signal of the processor."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        settings = self._assignment.settings
        if settings.get("fail") == self._assignment.name:
            raise OSError("port 1883 is in use: end what listens there, or change the topology")
        ports = settings.get("ports", {})
        assert isinstance(ports, dict)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", ports.get(self._assignment.name, 0))
        self._live(f"start {self._assignment.revision}")

    async def stop(self, grace: float) -> None:
        if self._server is not None:
            self._server.close()
        self._live("stop")
        (self._assignment.folder / "stopped").write_text(str(time.time()))

    def _live(self, event: str) -> None:
        self._assignment.folder.mkdir(parents=True, exist_ok=True)
        with (self._assignment.folder / "life").open("a") as file:
            file.write(f"{event} {time.time()}\n")

    def status(self) -> NodeStatus:
        return NodeStatus(connections=1, sessions=2, queued=3, detail="fake", revision=_NEWEST)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%d\n" % os.getpid())
        await writer.drain()
        word = await reader.read(5)
        if word == b"stick":
            ctypes.PyDLL(None).sleep(3600)
        elif word == b"crash":
            ctypes.string_at(1)
        writer.close()


def build(assignment: Assignment) -> FakeNode:
    return FakeNode(assignment)
