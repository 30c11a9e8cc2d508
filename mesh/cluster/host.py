"""One node in one process: its event loop, its start with retries, its stop.

Knows the three calls of ``Node`` and nothing of Ray. The node runs on its own event loop (uvloop) in its own thread.
So Ray's calls and Ray's loop do not delay the node, and the controller can tell a stuck node from a stuck process. What
always holds: at most one node is built at a time; a failed start is undone before the next attempt; ``report`` never
waits; the process does not outlive the Ray node that it belongs to, nor a stopped event loop
(``node/ending.py`` ends it then).
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import uvloop

from mesh.cluster.node import Assignment, Node
from mesh.cluster.run import claim_folder, logs_path
from mesh.figures.node import NodeStatus
from mesh.journal.errors import DamageError
from mesh.node.address import LOOPBACK, own_host
from mesh.node.ending import KILLED, Ending
from mesh.telemetry.logs import Logs

log = logging.getLogger(__name__)

HELD: Final = "held"
STARTING: Final = "starting"
READY: Final = "ready"
FAILED: Final = "failed"
DAMAGED: Final = "damaged"
"""The node's journal is damaged: the node stays down, and comes back when the journal is restored or salvaged."""
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"

# Seconds for a start. Recovery of the largest journals takes many minutes, and a start that is cancelled begins anew.
# All other parts of a start have deadlines of their own.
START_DEADLINE: Final = 3600.0

# Seconds without a turn of the event loop after which the process ends. This is longer than any pause of a healthy
# node, because a needless restart interrupts all its vehicles.
HUNG_AFTER: Final = 20.0
# The same while the code of a node is loaded: the processes of all nodes of a machine do so at the same time. It ends
# before the node handles any packet.
HUNG_LOADING: Final = 180.0
RECOVERING: Final = (STARTING, DAMAGED)

_TASKS_END: Final = 1.0  # seconds that tasks of a failed start have to end

# The first attempts follow quickly: a predecessor that is ending holds its port or its lock for a moment.
_RETRY_FIRST: Final = 0.1
_RETRY_LONGEST: Final = 2.0
# Seconds between two looks at a damaged journal. Only an operator can change it.
_RETRY_DAMAGED: Final = 5.0

# Python's cycle collector stops the loop while it looks at the objects of a generation: 0.12 µs for each, so 140 ms for
# a million deliveries that wait. It runs for the youngest after _YOUNG objects were allocated and not freed (1 ms; with
# the default of 700 it would run every few messages), and for the second after _SECOND runs for the youngest (12 ms).
# It never looks at older objects: no message, session or connection is in a cycle when it ends
# (tests/frontdoor/test_cycles.py), so they are freed without it.
_YOUNG: Final = 10_000
_SECOND: Final = 10
_NEVER: Final = 1_000_000_000

# Seconds between two readings of the node's figures. A status of that age is fresh enough for users and the controller.
_BEAT: Final = 0.5


@dataclass(frozen=True, slots=True)
class Report:
    """A node's state. ``lag``: seconds since its loop last ran; ``uptime``: seconds since it became ready, else 0;
    ``host``: an address of its machine; ``role``: the node's; ``begun``: the revision of the settings that it was
    started with; ``restarts``: how often its process was started before in this run of the mesh."""

    state: str
    pid: int
    error: str = ""
    attempts: int = 0
    lag: float = 0.0
    uptime: float = 0.0
    status: NodeStatus = field(default_factory=NodeStatus)
    host: str = ""
    role: str = ""
    begun: int = 0
    restarts: int = 0


@final
class Host:
    """Runs the node of one assignment. All methods may be called from any thread."""

    def __init__(
        self,
        assignment: Assignment,
        begin: bool,
        on_orphan: Callable[[], None] = lambda: os._exit(1),
        ending: Ending | None = None,
        restarts: int = 0,
    ) -> None:
        """``begin``: start the node at once; true in a process that Ray restarted. ``on_orphan`` ends this process; it
        is called on the loop. ``ending`` records how this process ends, and ends it when the loop hangs.
        ``restarts`` is for the report.
        """
        self._assignment = assignment
        self._restarts = restarts
        self._on_orphan = on_orphan
        self._record = ending
        self._parent = os.getppid()
        self._state = HELD
        self._error = ""
        self._attempts = 0
        self._beat = time.monotonic()
        self._ready_at = 0.0
        self._own_host = ""
        self._status = NodeStatus()
        self._grace = 0.0
        self._begin = threading.Event()
        self._stopped = threading.Event()
        self._loop = uvloop.new_event_loop()
        self._wake = asyncio.Event()
        self._ending = False
        self._loading = False
        self._node: Node | None = None
        if begin:
            self._begin.set()
        self._thread = threading.Thread(target=self._run, name=f"mesh-{assignment.name}", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Start the node. A second call has no effect."""
        self._begin.set()
        self._poke()

    def end(self, grace: float) -> bool:
        """Stop the node; ``True`` if it has stopped within ``grace`` seconds (and a short margin)."""
        self.finish(grace)
        return self._stopped.wait(grace + 1.0)

    def finish(self, grace: float) -> None:
        """Tell the node to stop within ``grace`` seconds."""
        self._grace = grace
        self._ending = True
        self._poke()

    def report(self) -> Report:
        now = time.monotonic()
        return Report(
            state=STOPPING if self._ending and not self._stopped.is_set() else self._state,
            pid=os.getpid(),
            error=self._error,
            attempts=self._attempts,
            lag=max(0.0, now - self._beat - _BEAT),
            uptime=now - self._ready_at if self._state == READY else 0.0,
            status=self._status,
            host=self._own_host,
            role=self._assignment.role,
            begun=self._status.begun or self._assignment.revision,
            restarts=self._restarts,
        )

    def _poke(self) -> None:
        if not self._stopped.is_set():
            self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self) -> None:
        gc.set_threshold(_YOUNG, _SECOND, _NEVER)
        ending = self._record
        if ending is not None:
            self._tell_how_the_last_ended(ending)
            ending.watch()
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        except BaseException as error:
            self._state, self._error = FAILED, sentence(error)
            log.exception("the event loop of %s ended", self._assignment.name)
            if ending is not None:
                ending.failed(sentence(error))
            raise
        else:
            if ending is not None:
                ending.stopped()
        finally:
            self._stopped.set()

    def _tell_how_the_last_ended(self, ending: Ending) -> None:
        before = ending.before
        if before is not None and before.how != KILLED:
            log.error("the last process of %s ended: %s\n%s", self._assignment.name, before.what, before.report)

    def _enter(self, state: str) -> None:
        self._state = state
        self._alive()

    def _alive(self) -> None:
        self._beat = time.monotonic()
        if self._record is not None:
            self._record.alive(HUNG_LOADING if self._loading else HUNG_AFTER)

    async def _live(self) -> None:
        """Run the node from start to stop."""
        aside = [asyncio.create_task(self._beats(), name="beats"), asyncio.create_task(self._find_host(), name="host")]
        try:
            node = await self._bring_up()
            if node is not None:
                while not self._ending:
                    await self._pause(None)
                self._enter(STOPPING)
                await self._take_down(node, self._grace)
            self._state = STOPPED
        finally:
            for task in aside:
                task.cancel()
            await asyncio.gather(*aside, return_exceptions=True)

    async def _find_host(self) -> None:
        bind = str(self._assignment.settings.get("bind", LOOPBACK))
        self._own_host = await own_host(bind, self._assignment.endpoints)

    async def _bring_up(self) -> Node | None:
        """A started node; ``None`` if the host was stopped first."""
        while not self._begin.is_set() and not self._ending:
            await self._pause(None)
        wait = _RETRY_FIRST
        while not self._ending:
            self._enter(DAMAGED if self._state == DAMAGED else STARTING)
            self._attempts += 1
            node: Node | None = None
            before = asyncio.all_tasks()
            try:
                node = self._build()
                await asyncio.wait_for(node.start(), START_DEADLINE)
            except Exception as error:  # noqa: BLE001 - any failure to start is shown, and the start repeated
                self._failed(error)
                if node is not None:
                    await self._take_down(node, 1.0)
                await self._end_tasks(before)
                await self._pause(_RETRY_DAMAGED if self._state == DAMAGED else wait)
                wait = min(wait * 2, _RETRY_LONGEST)
                continue
            gc.freeze()  # code and recovered sessions are long-lived; to collect first takes seconds for many sessions
            self._ready_at = time.monotonic()
            self._error = ""
            self._status = self._read(node)
            self._node = node
            self._enter(READY)
            log.info("%s is ready", self._assignment.name)
            return node
        return None

    def _failed(self, error: Exception) -> None:
        """Note why the start failed; log it only if the reason has changed."""
        text = sentence(error)
        damaged = isinstance(error, DamageError)
        if text != self._error and damaged:
            log.error("%s stays down, its journal is damaged: %s", self._assignment.name, text)
        elif text != self._error:
            log.warning("%s did not start (attempt %d)", self._assignment.name, self._attempts, exc_info=error)
        self._state, self._error = (DAMAGED if damaged else FAILED), text

    def _build(self) -> Node:
        self._loading = True
        self._alive()
        try:
            module, _, function = self._assignment.factory.partition(":")
            node: Node = getattr(importlib.import_module(module), function)(self._assignment)
        finally:
            self._loading = False
            self._alive()
        return node

    async def _take_down(self, node: Node, grace: float) -> None:
        """Stop the node. Its figures are read meanwhile: a front door may take long to send its connections away."""
        try:
            await asyncio.wait_for(node.stop(grace), grace + 0.5)
        except Exception as error:
            log.warning("%s did not stop cleanly", self._assignment.name, exc_info=error)
        finally:
            self._node = None

    async def _end_tasks(self, before: set[asyncio.Task[Any]]) -> None:
        """The start has failed: cancel the tasks that it left. Those that end by themselves have a second."""
        left = asyncio.all_tasks() - before
        if left:
            _, left = await asyncio.wait(left, timeout=_TASKS_END)
        if left:
            names = ", ".join(sorted(task.get_name() for task in left))
            log.warning("%s: tasks of the start that failed are cancelled: %s", self._assignment.name, names)
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_TASKS_END)

    async def _beats(self) -> None:
        """Record that the loop runs, read the node's figures, and end the process when Ray's node has ended."""
        while True:
            self._alive()
            if self._node is not None:
                self._status = self._read(self._node)
            if os.getppid() != self._parent:
                log.error("the Ray node of %s has ended: this process ends, too", self._assignment.name)
                self._on_orphan()
            await asyncio.sleep(_BEAT)

    def _read(self, node: Node) -> NodeStatus:
        try:
            return node.status()
        except Exception as error:  # noqa: BLE001 - a fault in the figures must not end the node
            if self._ending:
                return self._status  # parts of it are closed
            return NodeStatus(detail=f"no figures: {sentence(error)}", begun=self._status.begun)

    async def _pause(self, seconds: float | None) -> None:
        """Wait until the host is told to start or to stop, or ``seconds`` have passed."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return
        self._wake.clear()


def sentence(error: BaseException) -> str:
    """An error as one line for the user."""
    text = " ".join(str(error).split())
    if isinstance(error, TimeoutError) and not text:
        return "it took too long"
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__}: {text}".rstrip(": ")


def all_file_descriptors() -> None:
    """Raise the soft limit of open files to the hard limit: each connection takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def log_to_file(data: Path, name: str) -> Logs:
    """Send this process's log to the mesh's data folder. Raises ``NotPrivate``, ``OSError``."""
    claim_folder(data)
    return Logs(logs_path(data) / f"{name}.log")
