"""``mesh down``: stops a mesh and ends all its processes."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from mesh.cli.guarded import note
from mesh.cli.lines import Waiting
from mesh.cli.which import Several, Unclear, file_of, only, option, say, sought
from mesh.cluster.find import Found, find
from mesh.cluster.lifecycle import NotDown, stop
from mesh.cluster.run import topology_of
from mesh.topology.topology import Topology

EXAMPLES: Final = """\
examples:
  mesh down                         the only mesh that runs on this machine
  mesh down topology/local.yaml     that mesh, also processes that remain after a crash

All acknowledged messages are in the data folder; the next 'mesh up' recovers them.
Ends the processes of this mesh only; a second 'mesh down' does nothing. Shows what it waits for.

exit codes: 0 the mesh does not run, 1 it could not be stopped, or several run and none was chosen
"""


def options(parser: argparse.ArgumentParser) -> None:
    option(parser, place=True)


def run(arguments: argparse.Namespace) -> int:
    file = file_of(arguments)
    try:
        found, topology = _chosen(file)
    except Unclear as error:
        print(error, file=sys.stderr)
        return 1 if file is not None or isinstance(error, Several) else 0
    if found.run is not None and found.alive and not found.silent:  # afterwards an etcd of the mesh's own is gone
        note(topology, found.run, "mesh down", "the mesh stops")
    try:
        was = found.run is not None and stop(found.run, topology, Waiting(), found.silent)
    except (NotDown, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"mesh {topology.mesh!r} is down" if was else f"mesh {topology.mesh!r} was not running")
    return 0


def _chosen(file: str | None) -> tuple[Found, Topology]:
    """The run to stop, also one that has ended and may have left processes, and its topology. Raises ``Unclear``."""
    try:
        if file is None:
            topology = topology_of(only())
            found = find(topology)
        else:
            found, topology = sought(file)
    except (OSError, ValueError) as error:
        raise Unclear(str(error)) from error
    say(found.notes)
    return found, topology
