"""The embedded etcd as a node of the mesh.

Knows ``mesh.registry.embedded`` and nothing of the map in it. What always holds: while the node is up, an etcd that
dies is started again on the same address and folder.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, final

from mesh.figures.instrument import counter
from mesh.figures.node import NodeStatus
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.errors import RegistryError

log = logging.getLogger(__name__)

_LOOK: Final = 0.1  # seconds between two checks of etcd's process
_AGAIN: Final = 1.0  # seconds between two attempts to restart it


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdStatus(NodeStatus):
    """The status of the embedded etcd."""

    revived: Annotated[int, counter("mesh_etcd_restarts_total", "Restarts of etcd's process.")]


@final
class EtcdNode:
    """The embedded etcd; restarts it when it ends. A ``Node``."""

    def __init__(self, folder: Path) -> None:
        self._etcd = EmbeddedEtcd(folder)
        self._keeper: asyncio.Task[None] | None = None
        self._revived = 0
        self._trouble = ""

    async def start(self) -> None:
        await self._etcd.start()
        self._keeper = asyncio.create_task(self._keep(), name="etcd keeper")

    async def stop(self, grace: float) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._etcd.stop(max(0.1, grace - 0.2))

    def status(self) -> EtcdStatus:
        alive = self._etcd.alive
        where = f"{self._etcd.endpoint}, process {self._etcd.pid}"
        detail = where if alive else "etcd has ended and is being started again" + self._trouble
        return EtcdStatus(detail=detail, revived=self._revived)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            if self._etcd.alive:
                continue
            log.warning("etcd has ended: starting it again")
            try:
                await self._etcd.start()
                self._revived += 1
                self._trouble = ""
            except RegistryError as error:
                self._trouble = f": {error}"
                log.error("etcd could not be restarted: %s", error)
                await asyncio.sleep(_AGAIN)
