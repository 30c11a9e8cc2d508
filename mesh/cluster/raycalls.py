"""Calls of a Ray cluster for commands: each runs in a process of its own, which is killed at its deadline.

Knows the requests of ``rayprocess`` and not Ray. What always holds: no call waits longer than its deadline, whatever
Ray does; nothing that Ray prints reaches the terminal; only ``Unreached`` leaves open whether the call had an effect.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any, Final

from mesh.cluster.plan import ClusterPlan
from mesh.cluster.rayenv import python_path
from mesh.cluster.run import Run
from mesh.cluster.status import Snapshot

# Seconds for an answer that a command waits for: the process takes three of them to connect to Ray on a slow machine.
ANSWER: Final = 8.0

# Seconds to create the controller.
_PLACE: Final = 30.0

# Seconds until all nodes have stopped (``launch.STOP_DEADLINE``), and to connect.
_STOP: Final = 40.0

# Seconds until a port answers that a Ray listens on.
_PORT: Final = 3.0

SNAPSHOT: Final = "snapshot"
PLACE: Final = "place"
STOP: Final = "stop"


class Unreached(RuntimeError):
    """Ray, or the controller in it, does not answer; one sentence."""


class Absent(RuntimeError):
    """Ray answers, and has no such mesh; one sentence."""


def snapshot(run: Run, deadline: float = ANSWER) -> Snapshot:
    """The controller's view of a mesh on a cluster. Raises ``Unreached``, ``Absent``, ``ValueError``."""
    return Snapshot.from_json(json.dumps(_call(SNAPSHOT, run.address, run.namespace, run.mesh, deadline)))


def place(plan: ClusterPlan, address: str, namespace: str) -> None:
    """Create a controller for this plan; keep one that runs already. Raises ``Unreached``."""
    _call(PLACE, address, namespace, plan.mesh, _PLACE, plan.to_json())


def stop(run: Run) -> bool:
    """Stop all nodes of a mesh on a cluster, then its controller; ``False`` if Ray has none of them. Raises
    ``Unreached``."""
    return bool(_call(STOP, run.address, run.namespace, run.mesh, _STOP))


def _call(verb: str, address: str, namespace: str, mesh: str, deadline: float, plan: str = "") -> Any:
    _probe(address)
    request = {"verb": verb, "address": address, "namespace": namespace, "mesh": mesh, "plan": plan}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mesh.cluster.rayprocess"],
        env={**os.environ, "PYTHONPATH": python_path(os.environ)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(json.dumps(request).encode(), timeout=deadline)
    except subprocess.TimeoutExpired:
        raise Unreached(f"Ray at {address} did not answer within {deadline:.0f} s") from None
    finally:
        _end(process)
    return _answer(said, address, process.returncode)


def _answer(said: bytes, address: str, code: int) -> Any:
    """The answer is the last line: Ray prints on standard output, too."""
    try:
        kind, value = json.loads(said.decode().strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Unreached(f"the call of Ray at {address} ended with code {code} and no answer") from None
    if kind == "absent":
        raise Absent(str(value))
    if kind == "unreached":
        raise Unreached(str(value))
    return value


def _probe(address: str) -> None:
    """Raise ``Unreached`` at once if nothing listens at Ray's address: Ray itself would try for a long time."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PORT).close()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise Unreached(f"Ray at {address} does not answer: {why}") from error


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
