"""The part of the vehicle map that is in memory.

It knows records and the order of their last use. It must never know etcd. What always holds: the cache has at most
``limit`` records; the least recently used one is evicted first.
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
        """The record of a vehicle; counts as a use of it."""
        record = self._records.get(vehicle)
        if record is not None:
            self._records.move_to_end(vehicle)
        return record

    def peek(self, vehicle: str) -> Record | None:
        """The record of a vehicle; does not count as a use of it."""
        return self._records.get(vehicle)

    def put(self, record: Record) -> bool:
        """Store a record as the most recently used one; return whether another one was evicted."""
        records = self._records
        records[record.vehicle] = record
        records.move_to_end(record.vehicle)
        if len(records) <= self.limit:
            return False
        records.popitem(last=False)
        return True

    def fill(self, record: Record) -> bool:
        """Store a record without counting it as a use, in its predecessor's place if there is one; return whether there
        was room."""
        if record.vehicle not in self._records and len(self._records) >= self.limit:
            return False
        self._records[record.vehicle] = record
        return True

    def forget(self, vehicle: str) -> None:
        """Remove the record of a vehicle, if there is one."""
        self._records.pop(vehicle, None)

    def all(self) -> list[Record]:
        """The records, least recently used first."""
        return list(self._records.values())
