"""``mesh where``: shows the edge of a vehicle."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Final

from mesh.cli.which import option, reached_mesh
from mesh.cluster.known import ask
from mesh.registry.client import EtcdClient
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
    found, vehicle = reached_mesh(arguments.topology), arguments.vehicle
    try:
        if found.silent:
            raise RegistryError("only etcd has it")
        mesh, endpoints = found.run.mesh, found.run.endpoints
        record, keepers = ask(found.topology, endpoints, lambda client: _read(client, mesh, vehicle))
    except (RegistryError, OSError, ValueError) as error:
        print(f"the edge of {vehicle} is not known: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({**_plain(found.run.mesh, vehicle, record), "kept_by": keepers}))
    elif record is not None:
        print(f"{record.vehicle} is on {record.edge} (pool {record.pool}, epoch {record.epoch})")
    else:
        print(f"{vehicle} has no edge yet: it gets one when it first connects", file=sys.stderr)
    if keepers and not arguments.json:
        print(f"{', '.join(keepers)} owned it before, does not serve it, and keeps what waits for it there")
    return NO_RECORD if record is None else 0


async def _read(client: EtcdClient, mesh: str, vehicle: str) -> tuple[Record | None, list[str]]:
    """The vehicle's record, and the other edges that keep sessions of it."""
    return await where(client, mesh, vehicle), await kept_by(client, mesh, vehicle)


def _plain(mesh: str, vehicle: str, record: Record | None) -> dict[str, object]:
    """The record as JSON. ``revision`` is etcd's revision of its last write."""
    if record is None:
        return {"mesh": mesh, "vehicle": vehicle, "edge": None, "pool": None, "epoch": 0, "revision": 0}
    return {"mesh": mesh, **record.plain()}
