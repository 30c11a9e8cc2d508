"""The vehicle map as the router asks it.

It knows records and claims: never messages. What always holds: a vehicle that nobody owns is given an owner only if the
topology has an inbox for it, so that its first command has a place to wait.
"""

from __future__ import annotations

from typing import final

from mesh.core.router import Owners, OwnerUnknown
from mesh.node.services import Services
from mesh.registry.errors import RegistryError
from mesh.registry.recent import Recent


@final
class MapOwners(Owners):
    """``claim``: give a vehicle that has no owner one."""

    __slots__ = ("_claim", "_recent", "_services")

    def __init__(self, services: Services, claim: bool) -> None:
        self._recent: Recent = services.map.recent
        self._services = services
        self._claim = claim

    def cached(self, vehicle: str) -> str | None:
        """The owner, if it is in memory."""
        record = self._recent.get(vehicle)
        return None if record is None else record.edge

    async def find(self, vehicle: str) -> str | None:
        """The owner. Raises ``OwnerUnknown`` while etcd is away and the vehicle is not in memory."""
        services = self._services
        if not self._services.is_vehicle(vehicle):
            return None
        try:
            record = await (services.claim(vehicle) if self._claim else services.map.lookup(vehicle))
        except RegistryError as error:
            raise OwnerUnknown(str(error)) from error
        return None if record is None else record.edge
