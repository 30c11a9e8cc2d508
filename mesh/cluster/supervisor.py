"""The process that holds a local mesh together: ``python -m mesh.cluster.supervisor DATA [--follow PID]``.

It owns the mesh's own Ray and the file that says that the mesh runs; the nodes are the controller's business. What
always holds:

* it leads a session (setsid) in which all processes of the mesh are, so that none can be forgotten;
* one supervisor at most works on a data folder: the kernel's lock on ``DATA/lock``;
* when Ray itself breaks, it clears everything away and begins again: the journals make that the same as a crash of the
  machine;
* it ends nothing but its own session, and ends all of that, however it is told to end. With ``--follow`` it stops the
  mesh when that process is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import os
import signal
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

# How soon a broken Ray is seen.
_LOOK: Final = 0.5

# Ray broke so soon after it began that beginning again is no help.
TOO_SOON: Final = 10.0

# For the last child to end: the embedded etcd ends by itself when its node has.
_LAST: Final = 6.0

# Idle workers at the start: each node and the controller takes one, one stays as a spare.
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
        )

    def run(self) -> int:
        """From the first process to the last. Gives the exit code."""
        self._say(STARTING)
        self._listen()
        try:
            begun = time.monotonic()
            head = self._begin()
            fault = self._watch(head)
        except Exception as error:
            log.exception("the mesh could not be started")
            self._clear()
            self._say(FAILED, f"the mesh could not be started: {sentence(error)}")
            return 1
        if fault:
            log.error("%s: beginning again", fault)
            self._clear()
            if time.monotonic() - begun < TOO_SOON:
                self._say(FAILED, fault)
                return 1
            logging.shutdown()
            # A fresh process image: Ray keeps state in the process that cannot be taken back.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        self._say(STOPPING)
        try:
            launch.stop(self._plan.mesh, self._run.namespace)
        except RuntimeError as error:
            log.error("not every node stopped by itself: %s", error)
        self._clear()
        self._say(STOPPED)
        return 0

    def _begin(self) -> Head:
        resources = {name for node in self._plan.nodes for name in node.resources}
        head = Head(self._data, len(self._plan.nodes) + _EXTRA, resources)
        runtime.connect(head.address, self._run.namespace)
        self._listen()  # ray.init has put handlers of its own in place
        self._run = replace(self._run, address=head.address)
        launch.place(self._plan, self._run.namespace)
        self._say(RUNNING)
        return head

    def _watch(self, head: Head) -> str:
        """Until it is told to stop, or Ray is broken; then says what broke."""
        while not self._stop.wait(_LOOK):
            reap()
            if fault := head.fault():
                return fault
        return ""

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stop.set())

    def _clear(self) -> None:
        left = kill_session(os.getpid(), self._since)
        reap_all(_LAST)
        if left:
            log.error("these processes do not end: %s", left)

    def _say(self, state: str, error: str = "") -> None:
        self._run = replace(self._run, state=state, error=error)
        save_run(self._run)
        log.info("the mesh is %s%s", state, f": {error}" if error else "")


def locked(data: Path) -> int:
    """The open file whose lock says that this process owns the data folder. Raises ``BlockingIOError`` if another does.

    Survives ``exec`` of this process, but is not given to children.
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
    with contextlib.suppress(PermissionError):  # it leads its session already, if it was started as it should be
        os.setsid()
    if arguments.follow and not os.environ.get(_AGAIN):
        die_with_parent(arguments.follow, signal.SIGTERM)
    os.environ[_AGAIN] = "1"
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
        # Not sys.exit: Ray's handlers at exit would talk for half a minute to a Ray that is gone.
        os._exit(code)


# Set in a supervisor that began again: it has the kernel's promise for its parent already.
_AGAIN: Final = "MESH_SUPERVISOR_AGAIN"


if __name__ == "__main__":
    main()
