"""``mesh check``: checks a topology file."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from mesh.cli.folder import unfit
from mesh.cli.warned import warn
from mesh.topology.load import exposure, load
from mesh.topology.mistakes import TopologyErrors
from mesh.topology.nodes import nodes

EXAMPLES: Final = """\
examples:
  mesh check topology/local.yaml      shows the nodes that the file describes, or every error with its line

Warnings name what is allowed, and dangerous. A valid file with warnings has exit code 0.

exit codes: 0 the file is valid, 1 it is not
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the topology file (YAML)")


def run(arguments: argparse.Namespace) -> int:
    try:
        topology = load(arguments.file)
    except TopologyErrors as errors:
        print(errors, file=sys.stderr)
        return 1
    if why := unfit(topology):
        print(f"{arguments.file}: {why}", file=sys.stderr)
        return 1
    print(f"{arguments.file} is valid: mesh {topology.mesh!r}, data in {topology.data}")
    for node in nodes(topology):
        listens = ", ".join(f"{listener.kind}://{listener.address}{listener.path}" for listener in node.listen)
        where = f"pool {node.pool}" if node.pool else listens
        print(f"  {node.role:<5} {node.name:<16} {where}")
    if exposed := exposure(arguments.file, topology):
        print(f"mesh up will refuse it here: {exposed}", file=sys.stderr)
    warn(topology)
    return 0
