"""The edges of many vehicles, over one connection to etcd."""

from __future__ import annotations

from collections.abc import Iterable

from mesh.registry.client import EtcdClient
from mesh.registry.map import where


async def edges_of(client: EtcdClient, mesh: str, vehicles: Iterable[str]) -> dict[str, str]:
    """The edge of each vehicle in the map; empty if there is no record."""
    found = {vehicle: await where(client, mesh, vehicle) for vehicle in vehicles}
    return {vehicle: record.edge if record else "" for vehicle, record in found.items()}
