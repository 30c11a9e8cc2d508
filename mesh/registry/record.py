"""One vehicle's record in the map, and its value in etcd.

The value is a small JSON object that people can read with ``etcdctl``:
``{"edge":"edge-1","epoch":1,"pool":"standard"}``. Unknown fields are ignored, so that a newer version may add fields.
"""

from __future__ import annotations

import json
from sys import intern
from typing import final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.errors import BadRecord


@final
class Record:
    """The owner of a vehicle. ``epoch`` starts at 1 and grows by one with each change of the owner: an edge that knows
    a higher epoch refuses a lower one. ``revision`` is etcd's revision of the last write; the higher one is the newer
    record."""

    __slots__ = ("edge", "epoch", "pool", "revision", "vehicle")

    def __init__(self, vehicle: str, edge: str, pool: str, epoch: int, revision: int = 0) -> None:
        self.vehicle = vehicle
        # A mesh has millions of vehicles and few edges and pools, so records share the strings.
        self.edge = intern(edge)
        self.pool = intern(pool)
        self.epoch = epoch
        self.revision = revision

    def __eq__(self, other: object) -> bool:
        """Whether both have the same content; the revision belongs to the storage."""
        return (
            isinstance(other, Record)
            and self.vehicle == other.vehicle
            and self.edge == other.edge
            and self.pool == other.pool
            and self.epoch == other.epoch
        )

    def __hash__(self) -> int:
        return hash((self.vehicle, self.edge, self.epoch))

    def __repr__(self) -> str:
        owner = f"edge={self.edge!r}, pool={self.pool!r}, epoch={self.epoch}"
        return f"Record({self.vehicle!r}, {owner}, revision={self.revision})"

    def plain(self) -> dict[str, object]:
        """The record as JSON output has it (``mesh where --json``)."""
        return {
            "vehicle": self.vehicle,
            "edge": self.edge,
            "pool": self.pool,
            "epoch": self.epoch,
            "revision": self.revision,
        }

    def value(self) -> bytes:
        """The value in etcd."""
        text = json.dumps({"edge": self.edge, "epoch": self.epoch, "pool": self.pool}, separators=(",", ":"))
        return text.encode()


def decode(prefix: int, entry: pb.KeyValue) -> Record:
    """The record in ``entry``; the vehicle follows the first ``prefix`` bytes of the key. Raises BadRecord."""
    try:
        fields = json.loads(entry.value)
        edge, pool, epoch = fields["edge"], fields["pool"], fields["epoch"]
        if type(edge) is str and type(pool) is str and type(epoch) is int and epoch > 0 and edge:
            return Record(entry.key[prefix:].decode(), edge, pool, epoch, entry.mod_revision)
    except (ValueError, KeyError, TypeError):
        pass
    raise BadRecord(
        f"{entry.key.decode(errors='replace')} holds {entry.value[:80]!r}; "
        'right would be {"edge": "name", "epoch": 1, "pool": "name"}'
    )
