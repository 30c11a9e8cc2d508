"""The processes of one mesh on this machine: how to find them and how to end them.

Knows process numbers and sessions (setsid), never Ray or nodes. What always holds: every process of a local mesh is in
the session that its supervisor leads. So all are found even if the supervisor has ended, and no other process is ever
signalled. The kernel does not reuse a session's number while one of its processes lives; after that, the start time
shows that the number belongs to another process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

import psutil

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

# Seconds. Two readings of one process's start time differ by less (kernel clock ticks); those of two processes by more.
_SAME: Final = 0.05

_POLL: Final = 0.02


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Ask the kernel for a signal when the process ``parent``, which started this one, ends for any reason (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it ended before the call above
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends, so that ``reap`` finds them (Linux only)."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap() -> None:
    """Reap all children that have ended. In a container there may be no init process that does so."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def reap_all(deadline: float) -> None:
    """Reap until no child is left. Descendants become children of this process only when their parents have ended."""
    end = time.monotonic() + deadline
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < end:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(_POLL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def started(pid: int) -> float | None:
    """When a process started, in seconds since 1970; ``None`` if no such process lives."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def alive(pid: int, since: float) -> bool:
    """Whether process ``pid``, which started at ``since``, still lives."""
    now = started(pid)
    return now is not None and abs(now - since) < _SAME


def of_session(session: int, since: float) -> list[int]:
    """Living processes of the session whose leader ``session`` started at ``since``, without the caller."""
    leader = started(session)
    if leader is not None and abs(leader - since) >= _SAME:
        return []  # another process has this number now: none of ours is left
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) != session or pid == os.getpid():
                continue
            begun = started(pid)
            if begun is not None and begun >= since - _SAME:
                found.append(pid)
    return found


def holding(folder: Path, title: str) -> list[int]:
    """Living processes whose title begins with ``title`` and that have a file of the folder open."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if not (process.info["cmdline"] or [""])[0].startswith(title):
            continue
        with contextlib.suppress(psutil.Error):  # another user's, or just ended
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                found.append(process.pid)
    return found


def kill_session(session: int, since: float, deadline: float = 10.0) -> list[int]:
    """Kill every process of a session except the caller; returns those that still live after ``deadline`` seconds.

    The leader is killed first, because it would restart the others.
    """
    end = time.monotonic() + deadline
    while True:
        left = of_session(session, since)
        for pid in sorted(left, key=lambda pid: pid != session):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left or time.monotonic() > end:
            return left
        time.sleep(_POLL)


def wait_gone(pid: int, since: float, deadline: float) -> bool:
    """Wait until a process has ended; ``False`` if it still lives after ``deadline`` seconds."""
    end = time.monotonic() + deadline
    while alive(pid, since):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)
    with contextlib.suppress(ChildProcessError):  # a zombie until its parent reaps it
        while not os.waitpid(pid, os.WNOHANG)[0] and time.monotonic() < end:
            time.sleep(_POLL)  # its first thread has ended, the others are still ending
    return True
