"""The console as a node of the mesh: it follows the settings, and moves when its address changes.

Knows the settings and the listener; knows nothing of HTTP. What always holds: one listener serves; that of a new
address listens before the change is in force, and the old one ends afterwards. Where the two addresses exclude each
other, the new one is taken when the old one is given up.
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
from mesh.node.address import own_host
from mesh.node.closing import close_all
from mesh.node.config import NodeConfig
from mesh.node.endings import Endings
from mesh.node.follower import SettingsFollower
from mesh.node.newest import newest
from mesh.node.prepared import Prepared
from mesh.node.registry import client_of
from mesh.registry.client import EtcdClient
from mesh.registry.members import Announcement
from mesh.telemetry.logs import log_levels, set_levels
from mesh.topology.units import Address

log = logging.getLogger(__name__)

_WAIT: Final = 3.0  # seconds that a start waits for etcd, which may be unavailable
_GRACE: Final = 2.0  # seconds for the connections of an address that is no longer the console's
_FREE: Final = 3.0  # seconds to take an address that is given up
_AGAIN: Final = 0.05  # seconds between two attempts


@final
class ConsoleNode:
    """One console. ``start`` raises ``OSError`` with one sentence. ``data``: the data folder of the mesh."""

    def __init__(self, config: NodeConfig, data: Path) -> None:
        self._config = config
        self._data = data
        self._console: Console | None = None
        self._client: EtcdClient | None = None
        self._announcement: Announcement | None = None
        self._follower: SettingsFollower | None = None
        self._endings = Endings()
        self._trouble = ""

    @property
    def port(self) -> int:
        """The port, once it listens."""
        assert self._console is not None
        return self._console.port

    async def start(self) -> None:
        config = await newest(self._config)
        self._take(config)
        console = self._console = self._make(config)
        await console.start()
        client = self._client = client_of(config.topology, config.endpoints)
        host = await own_host(_address(config).host, config.endpoints)
        # Without ports, as no node connects to it: a change of the settings asks all that are announced.
        self._announcement = Announcement(
            client, config.topology.mesh, name=config.name, role=config.spec.role, host=host, ports={}
        )
        if not await self._announcement.start(_WAIT):
            log.warning("not announced in etcd yet; retrying")
        self._follower = SettingsFollower.of(client, config, self.prepare, self.in_force)
        await self._follower.start()

    def _make(self, config: NodeConfig) -> Console:
        source = MeshSource(config.topology, config.endpoints, self._data)
        return Console(source, _address(config), config.serving("console"))

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings: the address, and the levels of the log. Raises ``OSError``."""
        prepared = Prepared()
        present, wanted = _address(self._config), _address(config)
        if wanted == present:
            prepared.add(lambda: self._take(config))
            return prepared
        console = self._make(config)
        if not wanted.clashes(present):
            try:
                await console.start(serve=False)
            except BaseException:
                await console.stop(_GRACE)
                raise
        prepared.add(lambda: self._move(config, console), lambda: self._end(console))
        return prepared

    def _take(self, config: NodeConfig) -> None:
        self._config = config
        logs = config.topology.logs
        set_levels(logs.of(config.name), logs.modules)

    def _move(self, config: NodeConfig, console: Console) -> None:
        self._take(config)
        old, self._console = self._console, console
        self._trouble = ""
        if old is not None:
            self._end(old)
        if console.listens:
            console.serve()
            log.info("the console moved to %s", _address(config))
        else:
            self._endings.add(self._start_when_free(console), "the start of the console at another address")

    def _end(self, console: Console) -> None:
        self._endings.add(console.stop(_GRACE), "the end of the console at an earlier address")

    async def _start_when_free(self, console: Console) -> None:
        clock = asyncio.get_running_loop().time
        late = clock() + _FREE
        while self._console is console and not console.listens:
            try:
                await console.start()
            except OSError as error:
                if clock() > late:
                    self._trouble = str(error)
                    log.error("the console does not listen: %s", error)
                    return
                await asyncio.sleep(_AGAIN)
            else:
                log.info("the console moved to %s", _address(self._config))
        if self._console is not console:  # it was given up meanwhile
            await console.stop(_GRACE)

    async def stop(self, grace: float) -> None:
        """Stop listening, and close all connections within ``grace`` seconds."""
        console, self._console = self._console, None
        closings: list[Callable[[], Awaitable[None]]] = []
        if self._follower is not None:
            closings.append(self._follower.stop)
        if self._announcement is not None:
            closings.append(self._announcement.stop)
        if console is not None:
            closings.append(lambda: console.stop(grace))
        closings.append(lambda: self._endings.stop(grace))
        if self._client is not None:
            closings.append(self._client.close)
        await close_all(*closings)

    def in_force(self) -> dict[str, object]:
        """What holds in this console at present, by name."""
        assert self._console is not None
        return {"console": str(self._console.address), "log": log_levels()}

    def status(self) -> NodeStatus:
        """The figures for ``mesh status`` and the metrics."""
        console, follower = self._console, self._follower
        if console is None or follower is None:
            return NodeStatus(revision=self._config.revision)
        detail = "; ".join(part for part in (self._trouble, follower.detail) if part)
        return replace(console.status(), detail=detail, revision=follower.revision, begun=follower.begun)


def _address(config: NodeConfig) -> Address:
    address = config.topology.console
    assert address is not None, "settings without a console do not have this node"
    return address


def build(assignment: Assignment) -> ConsoleNode:
    """The console of an assignment, not started. Raises ``ValueError`` if the topology has none."""
    return ConsoleNode(place_of(assignment), Path(assignment.data))
