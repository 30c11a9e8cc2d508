"""The processor time and memory of processes, as the system reports them."""

from __future__ import annotations

from collections.abc import Iterable

import psutil


def cpu_of(pids: Iterable[int]) -> dict[int, float]:
    """Seconds of processor time (user and system) of each process so far; processes that have ended are left out."""
    found: dict[int, float] = {}
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[pid] = times.user + times.system
    return found


def memory_of(pids: Iterable[int]) -> dict[int, int]:
    """Bytes of memory of each process; shared pages are divided among the processes that share them (PSS)."""
    found: dict[int, int] = {}
    for pid in pids:
        try:
            found[pid] = psutil.Process(pid).memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return found
