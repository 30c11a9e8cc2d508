"""How a process ends, with processes that crash, hang and are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.node.ending import CRASH, ERROR, HANG, KILLED, Ended, Ending, last_ending
from tests.support.waiting import PATIENCE, wait_until

# The loop's thread does what the test says; the main thread waits, as that of a Ray actor does.
PROGRAM = """
import ctypes, os, signal, sys, threading, time
from pathlib import Path
from mesh.node.ending import Ending

def recurse(depth):
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: recurse(depth + 1))
    ctypes.PyDLL(None).qsort((ctypes.c_int * 2)(), 2, 4, compare)
    return 0

ending = Ending(Path(sys.argv[1]))

def loop():
    ending.watch()
    print("watched", flush=True)
    {work}

thread = threading.Thread(target=loop)
thread.start()
thread.join()
"""


def start(folder: Path, work: str) -> subprocess.Popen[str]:
    program = PROGRAM.replace("{work}", work)
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)


def ended(folder: Path, work: str, *signals: int) -> Ended:
    """How a process ended that does ``work``, and gets ``signals`` meanwhile."""
    process = start(folder, work)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "watched\n"
        for number in signals:
            process.send_signal(number)
        process.wait(PATIENCE)
    found = Ending(folder).before
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("work", "what"),
    [
        ("ctypes.string_at(1)", "Segmentation fault"),
        ("os.abort()", "Aborted"),
        ("signal.raise_signal(signal.SIGBUS)", "Bus error"),
    ],
)
def test_a_crash_names_its_signal_and_has_the_stack(tmp_path: Path, work: str, what: str) -> None:
    found = ended(tmp_path, work)
    assert (found.how, found.responsible, found.what) == (CRASH, True, f"it crashed: {what}")
    assert "in loop" in found.report


def test_a_stack_overflow_of_the_loop_is_a_crash(tmp_path: Path) -> None:
    work = "sys.setrecursionlimit(1 << 30); recurse(0)"
    found = ended(tmp_path, work)
    assert (found.how, found.responsible) == (CRASH, True)


def test_a_crash_of_another_thread_is_not_that_of_the_loop(tmp_path: Path) -> None:
    found = ended(tmp_path, "threading.Thread(target=os.abort).start(); time.sleep(60)")
    assert (found.how, found.responsible) == (CRASH, False)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_signal_from_outside_is_not_a_crash_of_the_loop(tmp_path: Path, number: int) -> None:
    found = ended(tmp_path, "time.sleep(60)", number)
    assert not found.responsible


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_from_outside_leaves_no_report(tmp_path: Path, number: int) -> None:
    found = ended(tmp_path, "time.sleep(60)", number)
    assert (found.how, found.responsible) == (KILLED, False)


def test_a_loop_that_does_not_run_ends_its_process(tmp_path: Path) -> None:
    found = ended(tmp_path, "ending.alive(0.2); time.sleep(60)")
    assert (found.how, found.responsible) == (HANG, True)
    assert "in loop" in found.report


def test_a_loop_that_holds_the_interpreter_lock_ends_its_process(tmp_path: Path) -> None:
    found = ended(tmp_path, "ending.alive(0.2); ctypes.PyDLL(None).sleep(60)")
    assert (found.how, found.responsible) == (HANG, True)


def test_a_sign_of_life_gives_new_time(tmp_path: Path) -> None:
    found = ended(tmp_path, "ending.alive(0.2); ending.alive(60); time.sleep(0.5); os.abort()")
    assert found.how == CRASH


def test_an_error_that_ended_the_loop_is_named(tmp_path: Path) -> None:
    found = ended(tmp_path, "ending.alive(0.2); ending.failed('no more memory'); time.sleep(60)")
    assert (found.how, found.responsible) == (ERROR, True)
    assert "no more memory" in found.what


def test_a_process_that_stopped_in_order_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "ending.alive(0.2); ending.stopped(); time.sleep(0.5)")
    with process:
        assert process.wait(PATIENCE) == 0
    assert list(tmp_path.iterdir()) == []
    assert Ending(tmp_path).before is None


def test_each_process_has_its_own_token(tmp_path: Path) -> None:
    tokens = {ended(tmp_path, "os.abort()").token for _ in range(2)}
    assert len(tokens) == 2
    found = last_ending(tmp_path)
    assert found is not None
    assert found.token in tokens


def test_without_a_folder_a_hang_still_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = start(tmp_path / "file", "ending.alive(0.2); time.sleep(60)")
    with process:
        wait_until(lambda: process.poll() is not None)
    assert process.returncode == 1


def test_a_damaged_file_blames_nothing(tmp_path: Path) -> None:
    (tmp_path / "end").write_bytes(b"\xff\0 process")
    assert Ending(tmp_path).before is None
