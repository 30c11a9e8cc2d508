"""The environment in which a local Ray runs: everything on loopback and inside the data folder.

Knows Ray's variables and not Ray. What always holds: two meshes on one machine share nothing; whatever the user's shell
says of Ray does not reach us. The reasons and what cannot be changed are in docs/ray.md.
"""

from __future__ import annotations

import os
import secrets
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import mesh
from mesh.cluster.run import replace

# Ray's minimum is 75 MiB. We put nothing in it.
OBJECT_STORE_BYTES: Final = 80 << 20

# sun_path holds 108 bytes with the final NUL (Linux, unix(7)); Ray appends about 70 of its own to its folder:
# "/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store".
LONGEST_RAY_FOLDER: Final = 107 - 72

# Imported by every worker before it is needed (see ``spares``).
_PRELOAD: Final = "mesh.cluster.actors,mesh.cluster.nodes"

_LOG_BYTES: Final = 4 << 20

_FIXED: Final[dict[str, str]] = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # With this, and only with this, Ray takes 127.0.0.1 for a node's address instead of the machine's; and with that
    # address its servers listen on loopback only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Our object store is a file in the data folder, because /dev/shm is outside of it and small in containers; it is
    # never used.
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    "RAY_preload_python_modules": _PRELOAD,
    # Idle workers are our spares.
    "RAY_idle_worker_killing_time_threshold_ms": str(365 * 86400 * 1000),
    # Ray makes its workers polite (nice 15), which suits batch jobs.
    "RAY_worker_niceness": "0",
    # Ray kills workers when the machine's memory runs low, whoever fills it. Our limits are in the topology.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_ROTATION_MAX_BYTES": str(_LOG_BYTES),
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONSAFEPATH": "1",
}


def ray_folder(data: Path) -> Path:
    return data / "ray"


def environment(data: Path, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for the supervisor of a mesh, and so for all its processes. Makes Ray's token if there is none.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith("RAY_")}
    return {**kept, **_FIXED, "RAY_AUTH_TOKEN_PATH": str(token(data)), "PYTHONPATH": python_path(inherited)}


def token(data: Path) -> Path:
    """The file with the token of this mesh's Ray: without it nobody on this machine may call it."""
    path = ray_folder(data) / "token"
    if not path.exists():
        replace(path, secrets.token_hex(32))
    return path


def python_path(inherited: Mapping[str, str]) -> str:
    """``PYTHONPATH`` with which a process finds the same ``mesh`` as this one, from whatever folder it runs."""
    home = Path(mesh.__path__[0]).resolve().parent
    paths = [str(Path(part).resolve()) for part in inherited.get("PYTHONPATH", "").split(os.pathsep) if part]
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}
    if home not in installed and str(home) not in paths:
        paths.insert(0, str(home))
    return os.pathsep.join(paths)
