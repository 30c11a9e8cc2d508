"""``mesh up``: starts a mesh from its topology file, or puts a changed file in force in the running mesh."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from mesh.cli.changed import change, show_refusal
from mesh.cli.failed import Failed
from mesh.cli.folder import unfit
from mesh.cli.starting import background, foreground
from mesh.cli.warned import warn
from mesh.cli.which import Unclear, say, topology_in
from mesh.cluster.find import Found, find
from mesh.cluster.known import AWAY
from mesh.cluster.lifecycle import NotDown, NotUp, clear, has_controller, planned
from mesh.cluster.present import compare_moved, earlier, first
from mesh.cluster.revise import NOTHING_CHANGED, NotChanged, refusals
from mesh.cluster.run import Run, logs_path, moved
from mesh.policy.secrets import SecretError
from mesh.registry.errors import RegistryError
from mesh.topology.load import exposure
from mesh.topology.topology import Topology
from mesh.topology.units import duration

EXAMPLES: Final = """\
examples:
  mesh up topology/local.yaml             in this terminal: shows the log; Ctrl-C stops the mesh
  mesh up topology/local.yaml --detach    in the background: returns when every node is ready; 'mesh down' stops it
  mesh up topology/local.yaml             again, after a change of the file: does what 'mesh plan' shows, on all nodes
                                          or on none; nodes that have to be restarted are, in the background
  mesh up topology/local.yaml --wait      the same, and shows their restarts until the last one is ready
  mesh up topology/local.yaml --revision 3
                                          back to the settings of revision 3 ('mesh history'), as a new revision

exit codes: 0 the mesh was ready, or every node has confirmed the change, 1 it did not start, or failed, or the change
is not in force on every node, 4 it serves, but nodes with a damaged journal stay down ('mesh journal verify NODE' says
what is lost), 130 interrupted before it was ready
"""

_OVER: Final = "10m"

# Seconds for Ray's answer after etcd has not answered, so that the command ends in time.
_SHORT: Final = 5.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the topology file (YAML)")
    parser.add_argument("-d", "--detach", action="store_true", help="leave the mesh running in the background")
    parser.add_argument("--wait", action="store_true", help="a change: wait for the nodes that are restarted")
    parser.add_argument(
        "--over", metavar="TIME", type=_time, default=_OVER,
        help=f"a change: a front door that is restarted sends its connections away within this time (default {_OVER})",
    )  # fmt: skip
    parser.add_argument("--revision", metavar="N", type=int, help="the settings of this revision, not those of FILE")


def _time(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(arguments: argparse.Namespace) -> int:
    try:
        topology = topology_in(arguments.file)
    except Unclear as error:
        print(error, file=sys.stderr)
        return 1
    if why := exposure(arguments.file, topology) or unfit(topology):
        print(f"{why}\n{NOTHING_CHANGED}", file=sys.stderr)
        return 1
    try:
        found = find(topology)
    except (OSError, ValueError) as error:
        print(f"{error}\n{NOTHING_CHANGED}", file=sys.stderr)
        return 1
    say(found.notes)
    if not found.alive and (there := moved(arguments.file, topology)) is not None:
        return _moved(topology, there)
    warn(topology, etcd=not found.silent)
    what = f"{NOTHING_CHANGED} in mesh {topology.mesh!r}" if found.alive else f"mesh {topology.mesh!r} is not up"
    try:
        wanted = topology if arguments.revision is None else earlier(topology, found, arguments.revision)
        if found.run is not None and found.alive and _runs(found.run, topology, found.silent):
            return change(wanted, found, arguments.over, arguments.wait)
        return _start(wanted, found, str(Path(arguments.file).resolve()), arguments.detach)
    except NotUp as error:
        print(f"mesh {topology.mesh!r} is not up:\n{error}", file=sys.stderr)
        print(f"the logs are in {logs_path(topology.data)}", file=sys.stderr)
    except NotChanged as error:
        show_refusal(f"mesh {topology.mesh!r} is not up", error)
    except (NotDown, OSError, ValueError, RegistryError, SecretError) as error:
        print(f"{what}: {error}", file=sys.stderr)
    return 1


def _moved(topology: Topology, run: Run) -> int:
    """The mesh runs, and the file names another data folder."""
    found = compare_moved(topology, run).difference
    assert found is not None, "both topologies are known"
    show_refusal(f"{NOTHING_CHANGED} in mesh {run.mesh!r}", NotChanged(refusals(found)))
    return 1


def _runs(run: Run, topology: Topology, silent: bool) -> bool:
    """Whether a mesh that is recorded as running has a controller. Raises ``Failed`` if that is not known."""
    try:
        return has_controller(run, None, _SHORT) if silent else has_controller(run, topology)
    except NotUp as error:
        raise Failed(f"{NOTHING_CHANGED} in mesh {run.mesh!r}, and whether it runs is not known: {error}") from error


def _start(topology: Topology, found: Found, file: str, detach: bool) -> int:
    """Start a mesh that does not run; its settings become the revision in force first."""
    plan = planned(topology)
    if found.run is not None and found.run.local:
        clear(found.run)
    revision, note = first(topology, plan.endpoints, AWAY if found.silent else "")
    if revision is None:
        print(note, file=sys.stderr)
    else:
        plan = replace(plan, revision=revision.number)
    return background(plan, topology, file) if detach else foreground(plan, topology, file)
