"""``mesh settings``: shows what is in force in each node, as its parts say themselves."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Final

from mesh.cli.which import option, reached_mesh
from mesh.cluster.inforce import InForce, in_force
from mesh.cluster.present import asked
from mesh.registry.errors import RegistryError

NO_NODE: Final = 2

EXAMPLES: Final = """\
examples:
  mesh settings                            each node, with its revision and a digest of its settings
  mesh settings edge-1                     every value that is in force in edge-1
  mesh settings --json | jq '."edge-1".settings.broker.max_queue_messages'

It asks the parts of the running nodes, so it also shows what an earlier revision has left. The digests of nodes differ,
as each has settings of its own; that of one node differs if its settings do. Passwords are not shown: a text stands
for each, which changes with it.

exit codes: 0 done, 1 etcd or a node did not answer, 2 wrong command line, or there is no such node, 3 no such mesh runs
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE", nargs="?", help="the name of a node; without it, all nodes")
    option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    mesh = reached_mesh(arguments.topology)
    try:
        if mesh.silent:
            raise RegistryError("the nodes can be asked through etcd only")
        found, silent = asked(mesh.topology, mesh.run.endpoints, lambda client: in_force(client, mesh.run.mesh))
    except (RegistryError, OSError, ValueError) as error:
        print(f"the settings of the nodes could not be read: {error}", file=sys.stderr)
        return 1
    if arguments.node is not None:
        if arguments.node not in {*found, *silent}:
            known = ", ".join(sorted({*found, *silent}))
            print(f"mesh {mesh.run.mesh!r} has no node {arguments.node!r}; it has {known}", file=sys.stderr)
            return NO_NODE
        found = {name: one for name, one in found.items() if name == arguments.node}
        silent = [name for name in silent if name == arguments.node]
    if arguments.json:
        print(json.dumps({name: _plain(one) for name, one in found.items()}, indent=2))
    else:
        print("\n".join(_values(found) if arguments.node else _digests(found)))
    for name in silent:
        print(f"{name} did not answer", file=sys.stderr)
    return 1 if silent else 0


def _plain(one: InForce) -> dict[str, object]:
    return {"revision": one.revision, "digest": one.digest, "settings": dict(one.settings)}


def _digests(found: Mapping[str, InForce]) -> list[str]:
    wide = max((len(name) for name in found), default=0)
    return [f"{name:<{wide}}  revision {one.revision}  {one.digest}" for name, one in found.items()]


def _values(found: Mapping[str, InForce]) -> list[str]:
    return [f"{path} = {value}" for one in found.values() for path, value in one.lines().items()]
