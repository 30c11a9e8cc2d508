"""Stops a process, as if it hung."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A process is stopped in this block."""
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def freeze(pid: int) -> None:
    """Stop a process; return when each of its threads has stopped, which the signal alone does not guarantee."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()), f"process {pid} stops")


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
