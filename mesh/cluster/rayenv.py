"""The environment variables of a local Ray: it listens on loopback only and writes inside the data folder.

Knows Ray's variables and not Ray. What always holds: two meshes on one machine share nothing; Ray's variables in the
user's shell have no effect on the mesh. docs/ray.md gives the reasons and what cannot be changed.
"""

from __future__ import annotations

import os
import secrets
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import mesh
from mesh.cluster.run import claim_folder, replace
from mesh.private import make_private, read_own

# Bytes of Ray's object store: Ray's minimum is 75 MiB. The mesh stores nothing in it.
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
    # Only with this does Ray use 127.0.0.1 as the node's address instead of the machine's address; with 127.0.0.1 its
    # servers listen on loopback only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # The object store, which is never used, is a file in the data folder: /dev/shm is outside of it, and small in
    # containers.
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    "RAY_preload_python_modules": _PRELOAD,
    # Idle workers are the spare processes.
    "RAY_idle_worker_killing_time_threshold_ms": str(365 * 86400 * 1000),
    # By default Ray gives its workers a low priority (nice 15), which suits batch jobs.
    "RAY_worker_niceness": "0",
    # By default Ray kills workers when the machine's memory runs low, even if other programs use it. The mesh's own
# limits are in the topology.
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
    """The environment of a mesh's supervisor, which all its processes inherit. Creates Ray's token if there is none.

    Raises ``NotPrivate``, ``OSError``.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith("RAY_")}
    return {**kept, **_FIXED, "RAY_AUTH_TOKEN_PATH": str(token(data)), "PYTHONPATH": python_path(inherited)}


def token(data: Path) -> Path:
    """The file with the token of this mesh's Ray: Ray refuses calls without it. Who has the token runs code as the user
    of the mesh, so its file and the folders above it must be private.

    Raises ``NotPrivate``, ``OSError``.
    """
    folder = ray_folder(data)
    claim_folder(data)
    make_private(folder)
    path = folder / "token"
    try:
        read_own(path, secret=True)
    except FileNotFoundError:
        replace(path, secrets.token_hex(32))
    return path


def python_path(inherited: Mapping[str, str]) -> str:
    """``PYTHONPATH`` with which a process in any folder finds the same ``mesh`` as this one."""
    home = Path(mesh.__path__[0]).resolve().parent
    paths = [str(Path(part).resolve()) for part in inherited.get("PYTHONPATH", "").split(os.pathsep) if part]
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}
    if home not in installed and str(home) not in paths:
        paths.insert(0, str(home))
    return os.pathsep.join(paths)
