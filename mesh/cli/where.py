"""``mesh where``: shows the edge of a vehicle."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import Final

from mesh.cli.which import RunningMesh, option, running_mesh
from mesh.node.registry import client_of
from mesh.registry.errors import RegistryError
from mesh.registry.map import kept_by, where
from mesh.registry.record import Record

NO_RECORD: Final = 4

EXAMPLES: Final = """\
examples:
  mesh where CAR-7                 the edge and pool of vehicle CAR-7
  mesh where CAR-7 --json          {"vehicle": "CAR-7", "edge": "edge-1", "pool": "standard", "epoch": 1, ...}
  mesh where CAR-7 --json | jq -r .edge

A vehicle gets an edge when it first connects, or when the first message for its inbox arrives, and keeps it: adding,
restarting or losing an edge moves no vehicle. The epoch grows by one with each change of the owner.

exit codes: 0 it has an edge, 1 the map could not be read, 3 no such mesh runs, 4 the vehicle has no edge yet
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vehicle", metavar="VEHICLE", help="the vehicle's identity")
    parser.add_argument("--json", action="store_true", help="print JSON; edge is null if the vehicle has none")
    option(parser)


def run(arguments: argparse.Namespace) -> int:
    found = running_mesh(arguments.topology)
    try:
        record, keepers = asyncio.run(_ask(found, arguments.vehicle))
    except (RegistryError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({**_plain(found.run.mesh, arguments.vehicle, record), "kept_by": keepers}))
    elif record is not None:
        print(f"{record.vehicle} is on {record.edge} (pool {record.pool}, epoch {record.epoch})")
    else:
        print(f"{arguments.vehicle} has no edge yet: it gets one when it first connects", file=sys.stderr)
    if keepers and not arguments.json:
        print(f"{', '.join(keepers)} owned it before, does not serve it, and keeps what waits for it there")
    return NO_RECORD if record is None else 0


async def _ask(found: RunningMesh, vehicle: str) -> tuple[Record | None, list[str]]:
    """The vehicle's record, and the other edges that keep sessions of it."""
    client = client_of(found.topology, found.run.endpoints)
    try:
        return await where(client, found.run.mesh, vehicle), await kept_by(client, found.run.mesh, vehicle)
    finally:
        await client.close()


def _plain(mesh: str, vehicle: str, record: Record | None) -> dict[str, object]:
    """The record as JSON. ``revision`` is etcd's revision of its last write."""
    if record is None:
        return {"mesh": mesh, "vehicle": vehicle, "edge": None, "pool": None, "epoch": 0, "revision": 0}
    return {"mesh": mesh, **record.plain()}
