"""``mesh up``: starts a mesh from its topology file, or applies a changed file to the running mesh."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final

from mesh.cli.lines import LineFollower, Progress
from mesh.cli.warned import warn
from mesh.cluster.find import find
from mesh.cluster.lifecycle import NotDown, NotUp, Unchanged, down, planned, up
from mesh.cluster.look import status_of
from mesh.cluster.plan import ClusterPlan
from mesh.cluster.run import Run, load_run, logs_path
from mesh.policy.secrets import SecretError
from mesh.registry.errors import RegistryError
from mesh.topology.folder import unusable
from mesh.topology.load import exposure, load
from mesh.topology.mistakes import TopologyErrors

EXAMPLES: Final = """\
examples:
  mesh up topology/local.yaml             in this terminal: shows the log; Ctrl-C stops the mesh
  mesh up topology/local.yaml --detach    in the background: returns when every node is ready; 'mesh down' stops it
  mesh up topology/local.yaml             again, after a change of the file: starts new nodes, touches no others

exit codes: 0 the mesh was ready, 1 it did not start, or failed, 4 it serves, but nodes with a damaged journal stay
down ('mesh journal verify NODE' says what is lost), 130 interrupted before it was ready
"""


DAMAGED: Final = 4


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the topology file (YAML)")
    parser.add_argument("-d", "--detach", action="store_true", help="leave the mesh running in the background")


def run(arguments: argparse.Namespace) -> int:
    try:
        topology = load(arguments.file)
    except TopologyErrors as errors:
        print(errors, file=sys.stderr)
        return 1
    data = topology.data
    try:
        if exposed := exposure(arguments.file, topology):
            raise NotUp([exposed])
        if why := unusable(data):
            raise NotUp([why])
        warn(topology)
        before = find(topology)
        plan = planned(topology)
        file = str(Path(arguments.file).resolve())
        if before.alive:
            return _change(plan, file)
        return _background(plan, file) if arguments.detach else _foreground(plan, file)
    except Unchanged as error:
        print(f"mesh {topology.mesh!r} runs, and nothing was changed:\n{error}", file=sys.stderr)
        return 1
    except NotUp as error:
        print(f"mesh {topology.mesh!r} is not up:\n{error}", file=sys.stderr)
        print(f"the logs are in {logs_path(data)}", file=sys.stderr)
        return 1
    except (NotDown, OSError, ValueError, RegistryError, SecretError) as error:
        print(f"mesh {topology.mesh!r} is not up: {error}", file=sys.stderr)
        return 1


def _change(plan: ClusterPlan, file: str) -> int:
    """Apply the file to the mesh that runs already."""
    found = up(plan, file, follow=False, watch=Progress())
    print(f"mesh {plan.mesh!r} runs as the file describes; unchanged nodes were not touched")
    return _warn(found)


def _background(plan: ClusterPlan, file: str) -> int:
    try:
        found = up(plan, file, follow=False, watch=Progress())
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
        down(Path(plan.data))
        return 130
    _show_ready(found, plan, f"'mesh down --topology {file}' stops it")
    return _warn(found)


def _foreground(plan: ClusterPlan, file: str) -> int:
    data = Path(plan.data)
    signals = _StopSignals()
    try:
        found = up(plan, file, follow=True, watch=_until(signals, Progress()))
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
        signals.ignore()
        down(data)
        return 130
    _show_ready(found, plan, "Ctrl-C stops it")
    _warn(found)
    follower = LineFollower(logs_path(data))
    while not signals.asked.wait(0.2):
        follower.show()
        if not found.is_alive():
            last = load_run(data)
            why = last.error if last is not None and last.error else f"see {logs_path(data)}"
            print(f"the mesh ended: {why}", file=sys.stderr)
            down(data)
            return 0 if last is not None and last.state == "stopped" else 1
    signals.ignore()
    print("stopping", file=sys.stderr)
    begun = time.monotonic()
    down(data)
    follower.show()
    print(f"stopped after {time.monotonic() - begun:.1f} s", file=sys.stderr)
    return 0


class _StopSignals:
    """The signals that ask for the stop."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()

    def ignore(self) -> None:
        """Ignore further signals: a second Ctrl-C must not interrupt the stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


def _until(signals: _StopSignals, progress: Progress) -> Progress:
    progress.stop_when(signals.asked)
    return progress


def _warn(found: Run) -> int:
    """Name the nodes that stay down; returns the exit code."""
    damaged = status_of(found).damaged
    for row in damaged:
        print(f"{row.role} {row.name!r} stays down, its journal is damaged: {row.detail}", file=sys.stderr, flush=True)
    return DAMAGED if damaged else 0


def _show_ready(found: Run, plan: ClusterPlan, end: str) -> None:
    print(f"mesh {found.mesh!r} is ready")
    for node in plan.nodes:
        for listen in node.listens:
            print(f"  {node.role:<5} {node.name:<16} {listen}")
    print(f"  logs in {logs_path(Path(found.data))}; {end}", flush=True)
