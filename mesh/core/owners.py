"""The router's view of the vehicle map.

It knows records and how to find one: never messages. What always holds: it never looks up a name that no vehicle may
have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from mypy_extensions import mypyc_attr

from mesh.registry.cache import RecordCache
from mesh.registry.errors import RegistryError
from mesh.registry.record import Record


@mypyc_attr(allow_interpreted_subclasses=True)
class Owners:
    """The router's view of the vehicle map. A base class for the reason that ``session/store.py`` gives."""

    __slots__ = ()

    def cached(self, vehicle: str) -> str | None:
        """The edge that owns the vehicle, if it is known without a look-up."""
        raise NotImplementedError

    async def find(self, vehicle: str) -> str | None:
        """The edge that owns the vehicle; ``None`` if it has no owner. Raises ``OwnerUnknown`` if the map is
        unavailable.
        """
        raise NotImplementedError


class OwnerUnknown(Exception):
    """The vehicle map is unavailable."""


@final
class MapOwners(Owners):
    """``recent``: the records in memory; ``is_vehicle``: whether a vehicle may have a name; ``look_up`` gives a record
    that is not in memory, and raises ``RegistryError``; it may be replaced."""

    __slots__ = ("_is_vehicle", "_recent", "look_up")

    def __init__(
        self, recent: RecordCache, is_vehicle: Callable[[str], bool],
        look_up: Callable[[str], Awaitable[Record | None]],
    ) -> None:
        self._recent = recent
        self._is_vehicle = is_vehicle
        self.look_up = look_up

    def cached(self, vehicle: str) -> str | None:
        """The owner, if its record is in memory."""
        record = self._recent.get(vehicle)
        return None if record is None else record.edge

    async def find(self, vehicle: str) -> str | None:
        """The owner. Raises ``OwnerUnknown`` if the record is not in memory and etcd is unavailable."""
        if not self._is_vehicle(vehicle):
            return None
        try:
            record = await self.look_up(vehicle)
        except RegistryError as error:
            raise OwnerUnknown(str(error)) from error
        return None if record is None else record.edge
