"""The supervisor of a local mesh: ``python -m mesh.cluster.supervisor DATA [--follow PID]``.

It starts the mesh's own Ray and writes the run file; the controller starts and watches the nodes. What always holds:

* it leads a session (setsid) that has all processes of the mesh, so that every one can be found;
* at most one supervisor works on a data folder: it holds a lock on ``DATA/lock``;
* when a process of Ray ends unexpectedly, it kills all processes of the mesh and starts again; for the nodes this is
  the same as a crash of the machine, and they recover from their journals;
* when it ends, it ends all processes of its session, and no others. With ``--follow`` it stops the mesh when the
  process ``PID`` has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from mesh.cluster import launch, runtime
from mesh.cluster.head import Head
from mesh.cluster.host import log_to_file, sentence
from mesh.cluster.plan import LOCAL, ClusterPlan
from mesh.cluster.processes import adopt_orphans, die_with_parent, kill_session, reap, reap_all, started
from mesh.cluster.run import FAILED, RUNNING, STARTING, STOPPED, STOPPING, Run, load_plan, ray_namespace, save_run

log = logging.getLogger(__name__)

# Seconds between two checks of Ray's processes.
_LOOK: Final = 0.5

# If Ray fails within this many seconds of its start, the supervisor does not start it again.
TOO_SOON: Final = 10.0

# Seconds for the last child to end: the embedded etcd ends by itself after its node.
_LAST: Final = 6.0

# Workers at the start, besides one for each node: one for the controller, and one spare.
_EXTRA: Final = 2


@final
class Supervisor:
    """One run of a mesh."""

    def __init__(self, data: Path, plan: ClusterPlan, topology: str) -> None:
        self._plan = plan
        self._data = data
        self._since = started(os.getpid()) or time.time()
        self._stop = threading.Event()
        self._run = Run(
            mesh=plan.mesh,
            topology=topology,
            data=str(data),
            ray=LOCAL,
            address="",
            namespace=ray_namespace(plan.mesh),
            endpoints=plan.endpoints,
            supervisor=os.getpid(),
            since=self._since,
            state=STARTING,
            host=socket.gethostname(),
        )

    def run(self) -> int:
        """Run the mesh until it is stopped or cannot go on. Returns the exit code."""
        self._record(STARTING)
        self._handle_signals()
        try:
            begun = time.monotonic()
            head = self._start()
            fault = self._watch(head)
        except Exception as error:
            log.exception("the mesh could not be started")
            self._end_all()
            self._record(FAILED, f"the mesh could not be started: {sentence(error)}")
            return 1
        if fault:
            log.error("%s: starting the mesh again", fault)
            self._end_all()
            if time.monotonic() - begun < TOO_SOON:
                self._record(FAILED, fault)
                return 1
            logging.shutdown()
            # A new process image, because Ray keeps state in the process that cannot be reset.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        self._record(STOPPING)
        try:
            launch.stop(self._plan.mesh, self._run.namespace)
        except RuntimeError as error:
            log.error("the nodes could not be stopped in order and are killed: %s", error)
        self._end_all()
        self._record(STOPPED)
        return 0

    def _start(self) -> Head:
        head = Head(self._data, len(self._plan.nodes) + _EXTRA)
        runtime.connect(head.address, self._run.namespace)
        self._handle_signals()  # ray.init has installed its own handlers
        self._run = replace(self._run, address=head.address)
        launch.place(self._plan, self._run.namespace)
        self._record(RUNNING)
        return head

    def _watch(self, head: Head) -> str:
        """Wait until a signal asks for the stop (returns "") or a process of Ray has ended (returns a sentence)."""
        while not self._stop.wait(_LOOK):
            reap()
            if fault := head.fault():
                return fault
        return ""

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop.set())

    def _end_all(self) -> None:
        left = kill_session(os.getpid(), self._since)
        reap_all(_LAST)
        if left:
            log.error("these processes do not end: %s", left)

    def _record(self, state: str, error: str = "") -> None:
        self._run = replace(self._run, state=state, error=error)
        save_run(self._run)
        log.info("the mesh is %s%s", state, f": {error}" if error else "")


def locked(data: Path) -> int:
    """The open file whose lock gives this process the data folder. Raises ``BlockingIOError`` if another process holds
    it. The lock survives ``exec`` of this process; children do not inherit it.
    """
    file = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + 5.0
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--topology", default="")
    parser.add_argument("--follow", type=int, default=0)
    arguments = parser.parse_args()
    with contextlib.suppress(PermissionError):  # the process that started it has made it a session leader already
        os.setsid()
    if arguments.follow and not os.environ.get(_AGAIN):
        die_with_parent(arguments.follow, signal.SIGTERM)
    os.environ[_AGAIN] = "1"
    os.umask(0o077)  # all processes inherit it: their files are for the user of the mesh alone
    adopt_orphans()
    log_to_file(arguments.data, "supervisor")
    try:
        lock = locked(arguments.data)
    except BlockingIOError:
        sys.exit(f"another mesh runs in {arguments.data}")
    code = 1
    try:
        code = Supervisor(arguments.data, load_plan(arguments.data), arguments.topology).run()
    finally:
        os.close(lock)
        logging.shutdown()
        # Not sys.exit: Ray's exit handlers would try for half a minute to reach a Ray that has ended.
        os._exit(code)


# Set in a supervisor that has started again: the kernel signals it already when its parent ends.
_AGAIN: Final = "MESH_SUPERVISOR_AGAIN"


if __name__ == "__main__":
    main()
