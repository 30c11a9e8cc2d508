"""Starts a mesh for ``mesh up``: in this terminal until it is stopped, or in the background."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final, final

from mesh.cli.guarded import note
from mesh.cli.lines import LineFollower, Progress
from mesh.cli.warned import show
from mesh.cluster.find import record
from mesh.cluster.lifecycle import down, up
from mesh.cluster.look import status_of
from mesh.cluster.plan import ClusterPlan
from mesh.cluster.run import Run, load_run, logs_path
from mesh.topology.topology import Topology

DAMAGED: Final = 4
INTERRUPTED: Final = 130


def background(plan: ClusterPlan, topology: Topology, file: str) -> int:
    """Return when the mesh is ready. Raises ``NotUp``."""
    try:
        found = up(plan, file, False, Progress(), lambda run: _record(topology, run))
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
        down(Path(plan.data))
        return INTERRUPTED
    _show_ready(found, plan, f"'mesh down {file}' stops it")
    note(topology, found, "mesh up", f"the mesh has started; {file}")
    return warn(found)


def foreground(plan: ClusterPlan, topology: Topology, file: str) -> int:
    """Show the log until the mesh is stopped. Raises ``NotUp``."""
    data = Path(plan.data)
    signals = _StopSignals()
    try:
        found = up(plan, file, True, _until(signals, Progress()), lambda run: _record(topology, run))
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
        signals.ignore()
        down(data)
        return INTERRUPTED
    _show_ready(found, plan, "Ctrl-C stops it")
    note(topology, found, "mesh up", f"the mesh has started; {file}")
    warn(found)
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
    note(topology, found, "mesh up", "the mesh stops, as its terminal was left")
    down(data)
    follower.show()
    print(f"stopped after {time.monotonic() - begun:.1f} s", file=sys.stderr)
    return 0


def _record(topology: Topology, run: Run) -> None:
    """Make the run known on other machines."""
    if note := record(topology, run):
        print(note, file=sys.stderr)


@final
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


def warn(found: Run) -> int:
    """Show the warnings of the mesh, and name the nodes that stay down; returns the exit code."""
    status = status_of(found)
    show(status.warnings)
    damaged = status.damaged
    for row in damaged:
        print(f"{row.role} {row.name!r} stays down, its journal is damaged: {row.detail}", file=sys.stderr, flush=True)
    return DAMAGED if damaged else 0


def _show_ready(found: Run, plan: ClusterPlan, end: str) -> None:
    print(f"mesh {found.mesh!r} is ready")
    for node in plan.nodes:
        for listen in node.listens:
            print(f"  {node.role:<5} {node.name:<16} {listen}")
    print(f"  logs in {logs_path(Path(found.data))}; {end}", flush=True)
