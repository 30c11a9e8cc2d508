"""Finds the run of a mesh: by the processes of this machine, and by the copy in the data folder.

Knows in which order they are to be believed. What always holds: a mesh with its own Ray on this machine runs if its
supervisor does, whatever ``run.json`` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from mesh.cluster.run import Run, load_run, supervised_run
from mesh.topology.topology import Topology


@final
@dataclass(frozen=True, slots=True)
class Found:
    """A run that lives, or the last one, or ``None``; ``notes`` say what could not be reached, one sentence each."""

    run: Run | None
    alive: bool
    notes: tuple[str, ...] = ()


def find(topology: Topology) -> Found:
    """The run of a mesh. Raises ``NotPrivate``, ``ValueError``."""
    copy = load_run(topology.data)
    if copy is not None and copy.local and copy.is_alive():
        return Found(copy, True)
    if (supervised := supervised_run(topology.data)) is not None:
        return Found(supervised, True)
    return Found(copy, copy is not None and copy.is_alive())
