"""Starts and stops a whole mesh, for ``mesh up`` and ``mesh down``.

Knows the run files and processes; uses Ray only through ``launch``, and only for a mesh on an existing Ray cluster.
What always holds: ``down`` may be repeated and ends only the processes of this mesh; after ``up``, either the mesh is
ready or none of its processes runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Final

from mesh.cluster import raycalls, without_ray
from mesh.cluster.find import find, forget
from mesh.cluster.known import known
from mesh.cluster.look import status_of
from mesh.cluster.plan import LOCAL, ClusterPlan, plan_of
from mesh.cluster.processes import kill_session, started, wait_gone
from mesh.cluster.rayenv import environment
from mesh.cluster.run import (
    FAILED,
    RUNNING,
    STOPPED,
    SUPERVISOR,
    Run,
    claim_folder,
    load_run,
    logs_path,
    ray_namespace,
    save_plan,
    save_run,
    status_path,
    supervised_run,
    topology_of,
)
from mesh.cluster.status import READY, MeshStatus, NodeRow
from mesh.node.registry import etcd_folder
from mesh.policy.secrets import load_or_create
from mesh.private import make_private
from mesh.registry.embedded import endpoint_of
from mesh.topology.topology import Topology

log = logging.getLogger(__name__)

# Seconds. Ray takes five of them on two slow cores; the rest is for the recovery of journals.
READY_DEADLINE: Final = 300.0

# After this many failed attempts the reason is not a predecessor that is still ending.
_HOPELESS: Final = 6

# Seconds for an orderly stop: the grace of all stages, and Ray.
_STOP_DEADLINE: Final = 40.0

# Seconds for Ray's answer after etcd has not answered, so that a command says so in time.
_SHORT: Final = 5.0

_POLL: Final = 0.05

# Seconds after which the user sees again what is waited for.
_SHOW: Final = 2.0

Watcher = Callable[[MeshStatus], None]


class NotUp(Exception):
    """The mesh did not start, or refused the change; one sentence for each reason."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "\n".join(self.reasons)


class NotDown(Exception):
    """The mesh could not be stopped; one sentence."""


def planned(topology: Topology) -> ClusterPlan:
    """The plan for a topology. Creates the mesh secret, and chooses the address of an embedded etcd, if there is none.

    Raises ``OSError`` (``NotPrivate`` for a data folder that others have used), ``SecretError``.
    """
    claim_folder(topology.data)
    secret = load_or_create(topology.data)
    if not topology.etcd.embedded:
        return plan_of(topology, topology.etcd.endpoints, secret)
    return plan_of(topology, [endpoint_of(etcd_folder(topology.data))], secret)


def up(
    plan: ClusterPlan, topology: str, follow: bool, watch: Watcher = lambda status: None,
    begun: Callable[[Run], None] = lambda run: None,
) -> Run:  # fmt: skip
    """Start a mesh; returns when every node is ready, but those with a damaged journal, which stay down. Raises
    ``NotUp``, also if it runs already.

    ``follow``: the mesh ends with this process. ``watch`` gets the status repeatedly until the mesh is ready, ``begun``
    the run as soon as there is one.
    """
    data = Path(plan.data)
    claim_folder(data)
    run = load_run(data)
    if (run is None or not run.is_alive()) and (supervised := supervised_run(data)) is not None:
        save_run(run := supervised)  # its file was deleted
    if run is not None and run.is_alive() and has_controller(run):
        raise NotUp([f"mesh {run.mesh!r} runs already, started by another command"])
    plan = replace(plan, since=time.time())
    if plan.ray == LOCAL:
        if run is not None:
            clear(run)
        _spawn(plan, topology, follow)
    else:
        _place(plan, topology)
    try:
        if (new := load_run(data)) is not None:
            begun(new)
        return _wait_ready(data, plan, watch)
    except NotUp:
        down(data)
        raise


def has_controller(run: Run, topology: Topology | None = None, deadline: float = raycalls.ANSWER) -> bool:
    """Whether a mesh that is recorded as running has a controller: a Ray whose head was lost, or that was started anew,
    has forgotten it. Raises ``NotUp`` if Ray does not answer, and etcd knows of no node that goes on without it.
    ``topology`` says how to ask etcd; ``deadline``: seconds for Ray's answer."""
    if run.local:
        return True
    try:
        raycalls.snapshot(run, deadline)
    except raycalls.Absent:
        return False
    except raycalls.Unreached as error:
        if topology is None or not known(topology, run.endpoints).members:
            raise NotUp([str(error)]) from error
    return True


def down(data: Path) -> bool:
    """Stop the mesh of which this data folder tells; ``False`` if none ran. Raises ``NotDown``."""
    run = load_run(data)
    if run is None or not run.is_alive():
        run = supervised_run(data) or run
    if run is None:
        return False
    try:
        topology = topology_of(run)
    except (FileNotFoundError, ValueError):
        topology = None  # a plan that has no topology, or none at all
    return stop(run, topology)


def stop(
    run: Run, topology: Topology | None = None, tell: Callable[[str], None] = lambda line: None, silent: bool = False
) -> bool:
    """Stop a mesh; ``False`` if it did not run. Afterwards all its processes have ended. ``topology`` says how to ask
    etcd, if Ray does not answer; ``tell`` gets what is waited for, again and again; ``silent``: etcd did not answer a
    moment ago. Raises ``NotDown``."""
    was_alive = run.is_alive()
    if not run.here:
        if topology is None or (found := find(topology)).alive:
            raise NotDown(f"mesh {run.mesh!r} runs on {run.host}: run 'mesh down' there")
        was_alive = found.alive
    elif run.local:
        if was_alive:
            os.kill(run.supervisor, signal.SIGTERM)
            _wait_stopped(run, tell)
        clear(run)
    elif was_alive:
        was_alive = _stop_on_cluster(run, topology, tell, silent)
    after = load_run(Path(run.data)) or run
    if after.state != STOPPED and Path(run.data).is_dir():
        save_run(replace(after, state=STOPPED))
    if topology is not None and (note := forget(topology)):
        tell(note)
    return was_alive


def _wait_stopped(run: Run, tell: Callable[[str], None]) -> None:
    """Wait until the supervisor has ended, or the deadline is over."""
    end = time.monotonic() + _STOP_DEADLINE
    while time.monotonic() < end and not wait_gone(run.supervisor, run.since, _SHOW):
        rows = [row for row in status_of(run).nodes if row.state != STOPPED]
        tell(f"waits for {', '.join(f'{row.name} ({row.state})' for row in rows) or 'Ray'}")


def clear(run: Run) -> None:
    """End all processes that remain of a local run. One of another machine has no processes here."""
    if not run.here:
        return
    left = kill_session(run.supervisor, run.since)
    if left:
        raise NotDown(f"processes {', '.join(map(str, left))} of the last run in {run.data} do not end")
    _wait_etcd(etcd_folder(Path(run.data)) / "lock")


def _wait_etcd(lock: Path) -> None:
    """Wait until the embedded etcd has ended. It ends by itself after its node, and holds its lock until then."""
    try:
        file = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    end = time.monotonic() + 5.0
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > end:
                    number = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "?"
                    raise NotDown(f"etcd (process {number}) does not end") from None
                time.sleep(_POLL)
    finally:
        os.close(file)


def _spawn(plan: ClusterPlan, topology: str, follow: bool) -> None:
    data = Path(plan.data)
    save_plan(plan)
    status_path(data).unlink(missing_ok=True)
    make_private(logs_path(data))
    command = [sys.executable, "-P", "-m", SUPERVISOR, plan.data, "--topology", topology]
    if follow:
        command += ["--follow", str(os.getpid())]
    with (logs_path(data) / "supervisor.out").open("wb") as output:
        supervisor = subprocess.Popen(
            command,
            env=environment(data),
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_registered(supervisor, data)
    except BaseException:
        # The run is not on record yet, so no other command would find these processes. This runs after Ctrl-C, too.
        kill_session(supervisor.pid, started(supervisor.pid) or 0.0)
        supervisor.wait()
        raise


def _wait_registered(supervisor: subprocess.Popen[bytes], data: Path) -> None:
    """Wait until the supervisor has written the run file."""
    end = time.monotonic() + 60.0
    while True:
        run = load_run(data)
        if run is not None and run.supervisor == supervisor.pid:
            return
        if supervisor.poll() is not None or time.monotonic() > end:
            said = (logs_path(data) / "supervisor.out").read_text(errors="replace").strip().splitlines()
            raise NotUp([said[-1] if said else f"the supervisor ended at once; see {logs_path(data)}"])
        time.sleep(_POLL)


def _place(plan: ClusterPlan, topology: str) -> None:
    """Start a mesh on an existing Ray cluster."""
    namespace = ray_namespace(plan.mesh)
    try:
        raycalls.place(plan, plan.ray, namespace)
    except raycalls.Unreached as error:
        raise NotUp([str(error)]) from error
    save_plan(plan)
    run = Run(
        plan.mesh, topology, plan.data, plan.ray, plan.ray, namespace, plan.endpoints, 0, time.time(), RUNNING,
        host=socket.gethostname(),
    )  # fmt: skip
    save_run(run)


def _stop_on_cluster(run: Run, topology: Topology | None, tell: Callable[[str], None], silent: bool) -> bool:
    """Stop the nodes of a mesh on a Ray cluster; ``False`` if none ran. Raises ``NotDown``."""
    try:
        # An orderly stop takes up to 40 s, a Ray that does not answer is known much sooner.
        with contextlib.suppress(raycalls.Absent):
            raycalls.snapshot(run, _SHORT if silent else raycalls.ANSWER)
        return _stop_with_ray(run, tell)
    except raycalls.Unreached as error:
        tell(str(error))
        try:
            return without_ray.stop(run, topology, tell, silent)
        except without_ray.Left as left:
            raise NotDown(f"mesh {run.mesh!r} could not be stopped: {error}; {left}") from error


def _stop_with_ray(run: Run, tell: Callable[[str], None]) -> bool:
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(raycalls.stop, run)
        while not wait([asked], _SHOW).done:
            tell(f"waits for Ray at {run.address} to stop the nodes")
        return asked.result()


def _wait_ready(data: Path, plan: ClusterPlan, watch: Watcher) -> Run:
    """Wait until every node of the plan is ready, or stays down because of its journal. Raises ``NotUp`` with the
    reasons if the mesh cannot become ready."""
    end = time.monotonic() + READY_DEADLINE
    while True:
        run = load_run(data)
        if run is None:
            raise NotUp([f"{data} was removed"])
        if run.state == FAILED or not run.is_alive():
            raise NotUp([run.error or f"the mesh ended; see {logs_path(data)}"])
        status = status_of(run)
        watch(status)
        if status.settled and {row.name for row in status.nodes} >= {node.name for node in plan.nodes}:
            return run
        late = time.monotonic() > end
        reasons = [_reason(row) for row in status.nodes if _hopeless(row) or (late and row.state != READY)]
        if reasons:
            raise NotUp(reasons)
        time.sleep(_POLL if run.local else 1.0)


def _hopeless(row: NodeRow) -> bool:
    return row.state == FAILED and row.attempts >= _HOPELESS


def _reason(row: NodeRow) -> str:
    return f"{row.role} {row.name!r} is not ready: {row.detail or row.state}"
