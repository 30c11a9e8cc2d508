"""Which of the running etcd servers of a mesh have a known fault.

It asks each server for its version and changes nothing. What always holds: a server that does not answer in time is no
warning, as the commands that need it say so themselves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from mesh.node.registry import client_of
from mesh.registry.errors import RegistryError
from mesh.registry.versions import fault, numbers
from mesh.topology.topology import Topology

log = logging.getLogger(__name__)

# Seconds for the answers of all servers, which are asked at the same time.
_ANSWER: Final = 2.0


async def faulty(topology: Topology, endpoints: tuple[str, ...]) -> tuple[str, ...]:
    """A warning for each of these servers (URLs) that has a known fault. Never raises."""
    versions = await asyncio.gather(*(_version(topology, endpoint) for endpoint in endpoints))
    right = "put a newer etcd on the PATH" if topology.etcd.embedded else "use 3.5.3 or newer"
    return tuple(
        f"etcd: {known}; {right} for more than trials ({endpoint})"
        for endpoint, version in zip(endpoints, versions, strict=True)
        if (known := fault(version))
    )


async def _version(topology: Topology, endpoint: str) -> tuple[int, ...]:
    """The version of a server; empty if it does not answer."""
    try:
        client = client_of(topology, (endpoint,))
        try:
            async with asyncio.timeout(_ANSWER):
                return numbers((await client.status(timeout=_ANSWER)).version)
        finally:
            await client.close()
    except (RegistryError, TimeoutError, OSError, ValueError) as error:
        log.debug("the version of etcd at %s is not known: %s", endpoint, error)
        return ()
