"""The part of the vehicle map that is in memory.

It knows records and when they were last asked for, and nothing of etcd. What always holds: never more than ``limit``
records are here; the one not asked for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

from mesh.registry.record import Record


@final
class RecordCache:
    """Records by vehicle."""

    __slots__ = ("_records", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._records: OrderedDict[str, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, vehicle: str) -> Record | None:
        """The record of a vehicle that somebody asks for."""
        record = self._records.get(vehicle)
        if record is not None:
            self._records.move_to_end(vehicle)
        return record

    def peek(self, vehicle: str) -> Record | None:
        """The record of a vehicle that nobody asked for: it goes as soon as before."""
        return self._records.get(vehicle)

    def put(self, record: Record) -> bool:
        """Keep the record of a vehicle that somebody asks for; whether another one had to go."""
        records = self._records
        records[record.vehicle] = record
        records.move_to_end(record.vehicle)
        if len(records) <= self.limit:
            return False
        records.popitem(last=False)
        return True

    def fill(self, record: Record) -> bool:
        """Keep a record that nobody asked for, in its predecessor's place if it has one; whether there was room."""
        if record.vehicle not in self._records and len(self._records) >= self.limit:
            return False
        self._records[record.vehicle] = record
        return True

    def forget(self, vehicle: str) -> None:
        """The vehicle has no record, as far as is known here."""
        self._records.pop(vehicle, None)

    def all(self) -> list[Record]:
        """The records, the one not asked for longest first."""
        return list(self._records.values())
