"""The settings with which a node starts: the newest of etcd's, its folder's and its assignment's.

It knows where revisions are found: never what they change. What always holds: a node starts without etcd, and with
settings that it can read and that have this node; what cannot be used is logged.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Final

from mesh.node.config import NodeConfig
from mesh.node.kept import keep, read_kept
from mesh.node.registry import client_of
from mesh.registry.errors import RegistryError
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.nodes import spec_of
from mesh.topology.topology import from_dict

log = logging.getLogger(__name__)

_WAIT: Final = 3.0  # seconds that a start waits for etcd, which may be unavailable


async def newest(config: NodeConfig) -> NodeConfig:
    """``config`` with the newest settings. Raises ``OSError`` or ``ValueError`` if the certificates of etcd cannot be
    used."""
    kept = await asyncio.to_thread(read_kept, config.folder, config.since)
    current = await _current(config)
    found = [one for one in (current, kept) if one is not None and one.number > config.revision]
    for revision in sorted(found, key=lambda one: one.number, reverse=True):
        try:
            taken = revised(config, revision)
        except ValueError as error:
            log.warning("not started with the newest settings: %s", error)
            continue
        if taken is None:
            log.warning("not started with revision %d of the settings, which has no %s", revision.number, config.name)
            continue
        if revision is not kept:
            await _keep(config, revision)
        return taken
    return config


def revised(config: NodeConfig, revision: Revision) -> NodeConfig | None:
    """``config`` with the settings of a revision; ``None`` if they do not have this node. Raises ``ValueError`` for a
    revision of another version of the mesh."""
    try:
        topology = from_dict(revision.settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"revision {revision.number} is of another version of the mesh: {error!r}") from error
    spec = spec_of(topology, config.name)
    if spec is None or spec.role != config.spec.role:
        return None
    return replace(config, topology=topology, spec=spec, revision=revision.number)


async def _current(config: NodeConfig) -> Revision | None:
    """The revision in force, if etcd says so in time."""
    client = client_of(config.topology, config.endpoints)
    try:
        async with asyncio.timeout(_WAIT):
            return await SettingsStore(client, config.topology.mesh).current()
    except (RegistryError, TimeoutError) as error:
        why = str(error) or f"no answer within {_WAIT:.0f} s"
        log.warning("etcd does not say which settings are in force: %s; starting with those of this machine", why)
        return None
    finally:
        await client.close()


async def _keep(config: NodeConfig, revision: Revision) -> None:
    try:
        await asyncio.to_thread(keep, config.folder, revision, config.since)
    except OSError as error:
        log.error("revision %d of the settings is not on disk: %s", revision.number, error)
