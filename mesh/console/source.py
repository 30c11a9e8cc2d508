"""The source of the console's answers: the controller's status file, and the map in etcd.

Knows the mesh's data folder and its registry; never knows HTTP. What always holds: it only reads; every request has a
deadline; a status that is out of date is not given as the present state (``mesh.cluster.look``).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol, final

from mesh.cluster.find import find
from mesh.cluster.launch import snapshot_within
from mesh.cluster.look import status_of
from mesh.cluster.run import load_run
from mesh.cluster.status import MeshStatus
from mesh.node.registry import client_of
from mesh.registry.errors import RegistryError
from mesh.registry.map import where
from mesh.topology.topology import Topology

# Seconds for an answer of etcd: a user waits for it.
DEADLINE: Final = 4.0


class NoAnswer(Exception):
    """The mesh's status or map cannot be read at present. The text is one sentence for the user."""


class VehicleSource(Protocol):
    """The data behind the API."""

    async def status(self) -> MeshStatus:
        """The value of ``mesh status --json``. Raises ``NoAnswer``."""

    async def vehicle(self, name: str) -> dict[str, object] | None:
        """The value of ``mesh where --json``; ``None`` if the vehicle has no record. Raises ``NoAnswer``, and
        ``ValueError`` for an invalid name."""

    async def close(self) -> None:
        """Close the connections."""


@final
class MeshSource:
    """The source of a running mesh, whose data folder is ``data``."""

    def __init__(self, topology: Topology, endpoints: tuple[str, ...], data: Path) -> None:
        self._topology = topology
        self._mesh = topology.mesh
        self._data = data
        self._client = client_of(topology, endpoints)

    async def status(self) -> MeshStatus:
        try:
            return await asyncio.to_thread(read_status, self._topology, self._data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoAnswer(f"the status of mesh {self._mesh!r} cannot be read: {error}") from error

    async def vehicle(self, name: str) -> dict[str, object] | None:
        try:
            async with asyncio.timeout(DEADLINE):
                record = await where(self._client, self._mesh, name)
        except TimeoutError as error:
            raise NoAnswer(f"etcd did not answer within {DEADLINE:.0f} s") from error
        except RegistryError as error:
            raise NoAnswer(f"the map cannot be read: {error}") from error
        return None if record is None else {"mesh": self._mesh, **record.plain()}

    async def close(self) -> None:
        await self._client.close()


def read_status(topology: Topology, data: Path) -> MeshStatus:
    """The value of ``mesh status --json``: from the file in ``data``, or from the controller on a Ray cluster, to which
    this node is connected already. Raises ``NoAnswer``, ``OSError`` or ``ValueError``."""
    run = load_run(data) or find(topology).run  # the second is slower, and needed on other machines than that of 'up'
    if run is None:
        raise NoAnswer(f"no run of mesh {topology.mesh!r} is found, neither in {data} nor in etcd")
    return status_of(run, lambda found: snapshot_within(found.mesh, found.namespace))
