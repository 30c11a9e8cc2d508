"""The processes of a mesh that runs on a Ray of its own."""

from __future__ import annotations

import os

import psutil

from mesh.cluster.run import Run


def session(run: Run) -> set[int]:
    """Living processes in the session of a mesh."""
    found = set()
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == run.supervisor and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.add(pid)
        except (OSError, psutil.Error):
            continue
    return found
