"""``mesh down``: stops a mesh and ends all its processes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from mesh.cli.which import Unclear, option, which
from mesh.cluster.lifecycle import NotUp, down
from mesh.topology.load import load
from mesh.topology.mistakes import TopologyErrors

EXAMPLES: Final = """\
examples:
  mesh down                                  the only mesh that runs on this machine
  mesh down --topology topology/local.yaml   that mesh, also processes that remain after a crash

All acknowledged messages are in the data folder; the next 'mesh up' recovers them.
Ends the processes of this mesh only; a second 'mesh down' does nothing.

exit codes: 0 the mesh does not run, 1 it could not be stopped
"""


def options(parser: argparse.ArgumentParser) -> None:
    option(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.topology is not None:
            topology = load(arguments.topology)
            name, data = topology.mesh, topology.data
        else:
            found = which(None)
            name, data = found.mesh, Path(found.data)
        was = down(data)
    except Unclear as error:
        print(error, file=sys.stderr)
        return 1 if "say which" in str(error) else 0
    except (TopologyErrors, NotUp, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"mesh {name!r} is down" if was else f"mesh {name!r} was not running")
    return 0
