"""Stops a mesh whose Ray cluster does not answer.

Its nodes go on for a while without Ray's head. Those of this machine can be ended here; etcd says whether any others
are left. What always holds: only processes that have files of the mesh's data folder open are ended; a node is killed,
as in a crash of its machine, and its journal has all that it acknowledged.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mesh.cluster.known import AWAY, known
from mesh.cluster.processes import holding
from mesh.cluster.run import Run
from mesh.registry.lease import TTL
from mesh.registry.members import Member
from mesh.topology.topology import Topology

# Ray gives its workers a title that begins so.
_WORKER: Final = "ray::"

# Seconds for the leases of nodes that have ended, in which they are still announced.
_EXPIRE: Final = TTL + 5.0

_POLL: Final = 1.0


class Left(Exception):
    """Nodes may still run; one sentence."""


def stop(run: Run, topology: Topology | None, tell: Callable[[str], None], silent: bool = False) -> bool:
    """End the nodes of a mesh on this machine; ``False`` if there were none, anywhere. ``silent``: etcd did not answer
    a moment ago. Raises ``Left``."""
    ended = _kill(Path(run.data))
    if silent:
        raise Left(f"{AWAY}, so whether nodes run on other machines is not known; those of this machine have ended")
    if topology is None:
        raise Left("give its topology file, which says how to ask etcd for nodes that are left")
    end = time.monotonic() + _EXPIRE
    while True:
        found = known(topology, run.endpoints)
        if not found.asked:
            raise Left("; ".join(found.notes))
        if not found.members:
            return ended
        left = named(found.members)
        if time.monotonic() > end:
            raise Left(f"these nodes are still announced in etcd: {left}; end them there, or start Ray's head again")
        tell(f"waits for {left}")
        time.sleep(_POLL)


def named(members: Mapping[str, Member]) -> str:
    """The nodes and where they are, for a message."""
    return ", ".join(f"{one.name} (process {one.pid} on {one.host})" for one in members.values())


def _kill(data: Path) -> bool:
    """Kill the workers of Ray that have files of this data folder open, the controller among them."""
    found = holding(data.resolve(), _WORKER)
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(found)
