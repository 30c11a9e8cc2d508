"""``mesh history``: shows the revisions of a mesh's settings."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Final

from mesh.cli.which import Unclear, file_of, only, option, say, sought
from mesh.cluster.present import asked, endpoints_of
from mesh.cluster.run import topology_of
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.topology import Topology

EXAMPLES: Final = """\
examples:
  mesh history                              the revisions of the only mesh that runs on this machine, newest first
  mesh history topology/local.yaml          of that mesh
  mesh history --json | jq '.[0].changes'   what the last change was
  mesh up topology/local.yaml --revision 3  back to the settings of revision 3, as a new revision

exit codes: 0 done, 1 etcd, which keeps them, could not be asked, 3 no such mesh runs
"""


def options(parser: argparse.ArgumentParser) -> None:
    option(parser, place=True)
    parser.add_argument("--json", action="store_true", help="print JSON, without the settings themselves")


def run(arguments: argparse.Namespace) -> int:
    try:
        topology, endpoints = _mesh(file_of(arguments))
        found, current = asked(topology, endpoints, lambda client: _read(client, topology.mesh))
    except (RegistryError, OSError, ValueError) as error:
        print(f"the history could not be read: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps([_plain(one, current) for one in found], indent=2))
    else:
        print("\n".join(line for one in found for line in _lines(one, current)) or "there is no revision yet")
    return 0


def _mesh(file: str | None) -> tuple[Topology, tuple[str, ...]]:
    """The mesh's topology, and the addresses of its etcd. Raises ``Unclear``, ``OSError``, ``ValueError``."""
    if file is None:
        run = only()
        return topology_of(run), run.endpoints
    found, topology = sought(file)
    say(found.notes)
    if found.silent:
        raise RegistryError("only etcd has it")
    if topology.etcd.embedded and not found.alive:
        raise Unclear(f"mesh {topology.mesh!r} does not run, and its own etcd keeps the history")
    return topology, endpoints_of(topology, found.run)


async def _read(client: EtcdClient, mesh: str) -> tuple[list[Revision], int]:
    store = SettingsStore(client, mesh)
    current = await store.current()
    return await store.history(), 0 if current is None else current.number


def _plain(one: Revision, current: int) -> dict[str, object]:
    return {
        "revision": one.number, "at": one.at, "by": one.by, "host": one.host, "changes": list(one.changes),
        "current": one.number == current,
    }  # fmt: skip


def _lines(one: Revision, current: int) -> list[str]:
    when = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    force = "  (in force)" if one.number == current else ""
    changes = one.changes or ("the settings as a whole",)
    return [f"{one.number:>4}  {when}  {one.by}@{one.host}{force}", *(f"      {text}" for text in changes)]
