"""The vehicle map as a front door asks it.

It knows records: never connections. What always holds: an owner carries the term of the present map, so that an edge
takes a record of an older map for an older one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from mesh.frontdoor.context import Owner
from mesh.registry.cache import RecordCache
from mesh.registry.errors import NoEdge
from mesh.registry.record import Record

Ask = Callable[[str], Awaitable[Record | None]]
"""Asks for the record of a vehicle. Raises ``RegistryError``."""


@final
class Owned:
    """An ``Owner``."""

    __slots__ = ("edge", "epoch")

    def __init__(self, edge: str, epoch: int) -> None:
        self.edge = edge
        self.epoch = epoch


@final
class DoorMap:
    """``recent``: the records in memory. ``look_up`` finds other records; ``assign`` also gives a vehicle that has none
    one of its pool's edges. ``term`` makes of a record's epoch the one that edges are told."""

    __slots__ = ("_assign", "_look_up", "_recent", "_term")

    def __init__(self, recent: RecordCache, look_up: Ask, assign: Ask, term: Callable[[int], int]) -> None:
        self._recent = recent
        self._look_up = look_up
        self._assign = assign
        self._term = term

    def cached(self, vehicle: str) -> Owner | None:
        """The owner, if its record is cached."""
        return self._owner(self._recent.get(vehicle))

    async def lookup(self, vehicle: str) -> Owner | None:
        """The owner; ``None`` for a vehicle that has none. Raises ``RegistryError``."""
        return self._owner(await self._look_up(vehicle))

    async def claim(self, vehicle: str) -> Owner:
        """The owner that won. Raises ``RegistryError``; ``NoEdge`` also if no pool takes the vehicle."""
        owner = self._owner(await self._assign(vehicle))
        if owner is None:
            raise NoEdge(f"no pool of the topology takes vehicle {vehicle!r}")
        return owner

    def _owner(self, record: Record | None) -> Owner | None:
        return None if record is None else Owned(record.edge, self._term(record.epoch))
