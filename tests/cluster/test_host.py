"""One node in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mesh.cluster import host
from mesh.cluster.host import Host, Report
from mesh.cluster.node import Assignment
from mesh.cluster.run import logs_path
from mesh.figures.node import NodeStatus
from mesh.journal.errors import NOWHERE, DamageError
from mesh.node.ending import CRASH, ERROR, HANG, Ending
from tests.support.waiting import PATIENCE, wait_until

SCRIPT: dict[str, object] = {}
LOG: list[str] = []
TASKS: list[asyncio.Task[None]] = []  # of starts that failed


class Scripted:
    """The first ``SCRIPT["failures"]`` starts fail."""

    async def start(self) -> None:
        if SCRIPT.get("damaged"):
            raise DamageError(Path("00000007.log"), NOWHERE, "the segment is missing")
        left = SCRIPT.get("failures", 0)
        assert isinstance(left, int)
        if left:
            SCRIPT["failures"] = left - 1
            TASKS.append(asyncio.create_task(asyncio.sleep(3600), name="left"))
            LOG.append("failed")
            raise OSError("the journal is\nlocked by process 7")
        LOG.append("started")

    async def stop(self, grace: float) -> None:
        while SCRIPT.get("leaving"):
            await asyncio.sleep(0.01)
        LOG.append("stopped")

    def status(self) -> NodeStatus:
        if SCRIPT.get("sleep"):
            time.sleep(float(str(SCRIPT.pop("sleep"))))
        if SCRIPT.get("says"):
            logging.getLogger("mesh.test").info(str(SCRIPT["says"]))
        connections = int(str(SCRIPT.get("leaving", 7)))
        return NodeStatus(connections=connections, begun=int(str(SCRIPT.get("begun", 0))))


def build(assignment: Assignment) -> Scripted:
    return Scripted()


@pytest.fixture(autouse=True)
def fresh() -> None:
    SCRIPT.clear()
    LOG.clear()
    TASKS.clear()


def make(tmp_path: Path, begin: bool = True) -> Host:
    import sys

    sys.modules["scripted_node"] = sys.modules[__name__]
    return Host(Assignment("m", "edge-1", "edge", {}, (), str(tmp_path), "scripted_node:build"), begin)


def wait(it: Host, state: str) -> Report:
    wait_until(lambda: it.report().state == state)
    return it.report()


def test_a_host_holds_its_node_until_begin(tmp_path: Path) -> None:
    it = make(tmp_path, begin=False)
    assert wait(it, host.HELD).attempts == 0
    it.begin()
    it.begin()
    report = wait(it, host.READY)
    assert (report.attempts, report.status, report.error) == (1, NodeStatus(connections=7), "")
    assert it.end(1.0)
    assert LOG == ["started", "stopped"]


def test_a_node_with_a_damaged_journal_stays_down_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host, "_RETRY_DAMAGED", 0.02)
    SCRIPT["damaged"] = True
    it = make(tmp_path)
    report = wait(it, host.DAMAGED)
    wait_until(lambda: it.report().attempts >= 8)
    assert it.report().state == host.DAMAGED
    assert "the segment is missing" in report.error
    said = [record for record in caplog.records if "stays down" in record.getMessage()]
    assert [record.levelname for record in said] == ["ERROR"]
    SCRIPT.pop("damaged")
    assert wait(it, host.READY).error == ""
    assert it.end(1.0)


def test_a_failed_start_is_undone_repeated_and_reported_in_one_line(tmp_path: Path) -> None:
    SCRIPT["failures"] = 2
    it = make(tmp_path)
    assert wait(it, host.FAILED).error == "the journal is locked by process 7"
    assert wait(it, host.READY).attempts == 3
    assert it.report().error == ""
    assert LOG == ["failed", "stopped", "failed", "stopped", "started"]
    assert it.end(1.0)


def test_a_host_can_end_before_begin(tmp_path: Path) -> None:
    it = make(tmp_path, begin=False)
    assert it.end(1.0)
    assert it.report().state == host.STOPPED
    assert it.end(1.0)
    assert LOG == []


def test_a_blocked_loop_shows_its_lag(tmp_path: Path) -> None:
    it = make(tmp_path)
    wait(it, host.READY)
    SCRIPT["sleep"] = 1.5
    wait_until(lambda: it.report().lag > 0.3)
    wait_until(lambda: it.report().lag < 0.3)
    assert it.end(1.0)


def test_a_node_with_a_blocked_log_serves_and_ends(tmp_path: Path) -> None:
    pipe = logs_path(tmp_path) / "edge-1.log"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = host.log_to_file(tmp_path, "edge-1")
    try:
        SCRIPT["says"] = "x" * 3_000_000
        it = make(tmp_path)
        wait(it, host.READY)
        wait_until(lambda: log.dropped > 0)  # at each beat the node logs more than the pipe or the queue can hold
        assert it.report().state == host.READY
        assert it.end(1.0)
        assert LOG == ["started", "stopped"]
    finally:
        os.close(reader)  # the thread that writes gets an error and ends
        log.close()


def test_a_missing_factory_is_reported(tmp_path: Path) -> None:
    it = Host(Assignment("m", "edge-1", "edge", {}, (), str(tmp_path), "no.such.module:build"), True)
    assert wait(it, host.FAILED).error == "No module named 'no'"
    assert it.end(1.0)


# A host in a process of its own. It does ``loading`` while it loads the node, ``during`` while the node starts, and
# ``after`` a moment later.
PROGRAM = """
import asyncio, ctypes, os, sys, threading
from pathlib import Path
from mesh.cluster import host
from mesh.cluster.node import Assignment
from mesh.figures.node import NodeStatus
from mesh.node.ending import Ending

host.HUNG_LOADING, host.HUNG_AFTER = {hung_loading}, {hung_after}

def hang():
    ctypes.PyDLL(None).sleep(600)  # holds the interpreter lock, as compiled code does

def leave():
    sys.exit("no more")

class Node:
    async def start(self):
        {during}
        asyncio.get_running_loop().call_later(0.1, lambda: {after})

    async def stop(self, grace):
        pass

    def status(self):
        return NodeStatus()

def build(assignment):
    {loading}
    return Node()

sys.modules["hanging"] = sys.modules["__main__"]
folder = Path(sys.argv[1])
assignment = Assignment("m", "edge-1", "edge", {{}}, (), str(folder), "hanging:build")
it = host.Host(assignment, True, ending=Ending(assignment.folder))
if {ends}:
    while it.report().state != host.READY:
        pass
    assert it.end(5.0)
else:
    threading.Event().wait()
"""


def run(
    folder: Path, hung_loading: float = 60, hung_after: float = 60, loading: str = "pass", during: str = "pass",
    after: str = "None", ends: bool = False,
) -> Ending:
    """Run a host in a process until it ends; returns what its next process finds."""
    program = PROGRAM.format(
        hung_loading=hung_loading, hung_after=hung_after, loading=loading, during=during, after=after, ends=ends
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], timeout=PATIENCE, check=False)
    return Ending(folder / "nodes" / "edge-1")


def test_a_node_that_hangs_while_it_is_loaded_ends_its_process(tmp_path: Path) -> None:
    before = run(tmp_path, hung_loading=0.7, loading="hang()").before
    assert before is not None
    assert (before.how, before.responsible) == (HANG, True)


def test_a_node_that_hangs_while_it_starts_ends_its_process(tmp_path: Path) -> None:
    before = run(tmp_path, hung_after=0.7, during="hang()").before
    assert before is not None
    assert (before.how, before.responsible) == (HANG, True)


def test_a_node_that_hangs_ends_its_process(tmp_path: Path) -> None:
    before = run(tmp_path, hung_after=0.7, after="hang()").before
    assert before is not None
    assert (before.how, before.responsible) == (HANG, True)


def test_a_node_has_more_time_while_it_is_loaded(tmp_path: Path) -> None:
    before = run(tmp_path, hung_after=0.7, loading="ctypes.PyDLL(None).sleep(2)", after="os.abort()").before
    assert before is not None
    assert (before.how, before.responsible) == (CRASH, True)


def test_an_exception_that_ends_the_loop_ends_the_process(tmp_path: Path) -> None:
    before = run(tmp_path, hung_after=0.7, after="leave()").before
    assert before is not None
    assert (before.how, before.responsible) == (ERROR, True)
    assert "no more" in before.what


def test_a_node_that_stops_in_order_leaves_no_report(tmp_path: Path) -> None:
    assert run(tmp_path, ends=True).before is None


def test_tasks_of_a_start_that_failed_are_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host, "_TASKS_END", 0.01)
    SCRIPT["failures"] = 2
    it = make(tmp_path)
    wait(it, host.READY)
    assert [task.cancelled() for task in TASKS] == [True, True]
    assert caplog.text.count("tasks of the start that failed are cancelled: left") == 2
    assert it.end(1.0)


def test_a_report_says_with_which_settings_the_node_was_started(tmp_path: Path) -> None:
    sys.modules["scripted_node"] = sys.modules[__name__]
    plain = Assignment("m", "edge-1", "edge", {}, (), str(tmp_path), "scripted_node:build", revision=4)
    it = Host(plain, True, restarts=3)
    report = wait(it, host.READY)
    assert (report.begun, report.restarts, report.role) == (4, 3, "edge")
    SCRIPT["begun"] = 7  # the node has found newer ones
    wait_until(lambda: it.report().begun == 7)
    assert it.end(1.0)


def test_a_node_that_was_told_to_stop_says_so_at_once(tmp_path: Path) -> None:
    """The controller must not tell it again."""
    it = make(tmp_path)
    wait(it, host.READY)
    it.finish(1.0)
    assert it.report().state in (host.STOPPING, host.STOPPED)
    wait(it, host.STOPPED)
    assert LOG == ["started", "stopped"]


def test_a_node_that_takes_long_to_stop_tells_how_far_it_is(tmp_path: Path) -> None:
    it = make(tmp_path)
    wait(it, host.READY)
    SCRIPT["leaving"] = 6
    it.finish(60.0)
    for left in (6, 3):
        SCRIPT["leaving"] = left
        wait_until(lambda: it.report().status.connections == left)  # noqa: B023 - called at once
        assert it.report().state == host.STOPPING
    SCRIPT["leaving"] = 0
    wait(it, host.STOPPED)
