"""The memory budget of a node: given by the topology, or a part of what the machine has.

It knows the machine's memory and the limit of the process's control group: never what uses the memory. What always
holds: the budget is below both, and a node of a local mesh leaves room for the other nodes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_OF_PROCESS: Final = Path("/proc/self/cgroup")
# The rest is for the interpreter, buffers, etcd, Ray and the page cache.
_PART: Final = 0.6
# In a cluster the mesh does not know how many nodes a machine gets: Ray places them.
_ON_ONE_MACHINE: Final = 2
SMALLEST: Final = 64 << 20


def memory_budget(asked: int, nodes: int, local: bool, groups: Path = _GROUPS, process: Path = _OF_PROCESS) -> int:
    """The bytes of one node. ``asked``: from the topology; 0 for a part of this machine's memory. ``nodes``: of the
    whole mesh, ``local``: all on this machine."""
    if asked:
        return asked
    share = nodes if local else _ON_ONE_MACHINE
    return max(SMALLEST, int(machine_memory(groups, process) * _PART / max(1, share)))


def machine_memory(groups: Path = _GROUPS, process: Path = _OF_PROCESS) -> int:
    """The bytes of memory that this process may use at most: the machine's, or the limit of its control group (version
    1 or 2) or of one above that."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _limit_files(groups, process):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # else "max": no limit
            found = min(found, int(text))
    return found


def _limit_files(groups: Path, process: Path) -> list[Path]:
    """The files of the limits of this process's group and of all groups above it."""
    try:
        lines = process.read_text().splitlines()
    except OSError:
        lines = []
    found: list[Path] = []
    for line in lines:
        controllers, _, name = line.partition(":")[2].partition(":")
        if controllers == "":
            found += _up(groups, name, "memory.max")
        elif "memory" in controllers.split(","):
            found += _up(groups / "memory", name, "memory.limit_in_bytes")
    # A container sees its own group as the root, whatever name the process's group has outside.
    return [*found, groups / "memory.max", groups / "memory" / "memory.limit_in_bytes"]


def _up(root: Path, name: str, file: str) -> list[Path]:
    parts = [part for part in name.split("/") if part and part != ".."]
    return [root.joinpath(*parts[:count], file) for count in range(len(parts), -1, -1)]
