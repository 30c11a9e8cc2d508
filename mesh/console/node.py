"""The console as a node of the mesh: it follows the settings, and moves when its address changes.

Knows the settings and the listener; knows nothing of HTTP. What always holds: one listener serves; that of a new
address listens before the change is in force, and the old one ends afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from mesh.cluster.node import Assignment
from mesh.cluster.place import place_of
from mesh.console.listener import Console
from mesh.console.source import MeshSource
from mesh.figures.node import NodeStatus
from mesh.node.closing import close_all
from mesh.node.config import NodeConfig
from mesh.node.follower import SettingsFollower
from mesh.node.newest import newest
from mesh.node.prepared import Prepared
from mesh.node.registry import client_of
from mesh.registry.client import EtcdClient
from mesh.telemetry.logs import log_levels

log = logging.getLogger(__name__)

_GRACE: Final = 2.0  # seconds for the connections of an address that is no longer the console's


@final
class ConsoleNode:
    """One console. ``start`` raises ``OSError`` with one sentence. ``data``: the data folder of the mesh."""

    def __init__(self, config: NodeConfig, data: Path) -> None:
        self._config = config
        self._data = data
        self._console: Console | None = None
        self._client: EtcdClient | None = None
        self._follower: SettingsFollower | None = None
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port, once it listens."""
        assert self._console is not None
        return self._console.port

    async def start(self) -> None:
        self._config = await newest(self._config)
        self._console = await self._listen(self._config, serve=True)
        self._client = client_of(self._config.topology, self._config.endpoints)
        self._follower = SettingsFollower.of(self._client, self._config, self.prepare, self.in_force)
        await self._follower.start()

    async def _listen(self, config: NodeConfig, serve: bool) -> Console:
        """Raises ``OSError``."""
        assert config.topology.console is not None, "settings without a console do not have this node"
        console = Console(MeshSource(config.topology, config.endpoints, self._data), config.topology.console)
        try:
            await console.start(serve)
        except BaseException:
            await console.stop(_GRACE)
            raise
        return console

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings; the address is the only one that the console has. Raises ``OSError``."""
        prepared = Prepared()
        if config.topology.console == self._config.topology.console:
            prepared.add(lambda: self._take(config))
            return prepared
        console = await self._listen(config, serve=False)
        prepared.add(lambda: self._move(config, console), lambda: self._end(console))
        return prepared

    def _take(self, config: NodeConfig) -> None:
        self._config = config

    def _move(self, config: NodeConfig, console: Console) -> None:
        self._take(config)
        console.serve()
        old, self._console = self._console, console
        if old is not None:
            self._end(old)
        log.info("the console moved to %s", config.topology.console)

    def _end(self, console: Console) -> None:
        task = asyncio.create_task(console.stop(_GRACE), name="end of a console")
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def stop(self, grace: float) -> None:
        """Stop listening, and close all connections within ``grace`` seconds."""
        console, client, follower = self._console, self._client, self._follower
        closings: list[Callable[[], Awaitable[None]]] = []
        if follower is not None:
            closings.append(follower.stop)
        if console is not None:
            closings.append(lambda: console.stop(grace))
        if client is not None:
            closings.append(client.close)
        await close_all(*closings, self._ended)

    async def _ended(self) -> None:
        for error in await asyncio.gather(*self._endings, return_exceptions=True):
            if error is not None:
                log.warning("a listener of the console did not end cleanly: %s", error)

    def in_force(self) -> dict[str, object]:
        """What holds in this console at present, by name."""
        assert self._console is not None
        return {"console": str(self._console.address), "log": log_levels()}

    def status(self) -> NodeStatus:
        """The figures for ``mesh status`` and the metrics."""
        console, follower = self._console, self._follower
        if console is None or follower is None:
            return NodeStatus(revision=self._config.revision)
        return replace(
            console.status(), detail=follower.detail, revision=follower.revision, begun=follower.begun
        )


def build(assignment: Assignment) -> ConsoleNode:
    """The console of an assignment, not started. Raises ``ValueError`` if the topology has none."""
    return ConsoleNode(place_of(assignment), Path(assignment.data))
