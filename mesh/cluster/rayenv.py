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

_RECONNECT: Final = "RAY_gcs_rpc_server_reconnect_timeout_s"
_CHECK: Final = "RAY_health_check_period_ms"
_CHECKS: Final = "RAY_health_check_failure_threshold"
_ALIVE: Final = ("RAY_grpc_client_keepalive_time_ms", "RAY_grpc_client_keepalive_timeout_ms")

# With these a lost head ends no process of Ray for an hour, nor does a network that is cut for 60 s; with the pings,
# connections that were cut are found and replaced some seconds later. By default workers and raylets end 60 s after
# their head, and a machine that is cut off for some more than 50 s.
LASTING: Final[Mapping[str, str]] = {
    _RECONNECT: "3600", _CHECK: "1000", _CHECKS: "120", **dict.fromkeys(_ALIVE, "5000")
}  # fmt: skip

# What a cluster needs at least, in seconds: a head may be away for so long, and a network.
_HEAD: Final = 900
_NETWORK: Final = 90

# Milliseconds: the most for each part of a ping.
_PING: Final = 10_000

_FIXED: Final[dict[str, str]] = {
    **LASTING,
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


def short_lived(environment: Mapping[str, str]) -> str:
    """One sentence if a Ray whose processes have this environment ends nodes soon after its head was lost or the
    network was cut; empty if not. Ray's processes inherit the environment of ``ray start``."""
    has = {name: _number(environment.get(name, "")) for name in LASTING}
    wrong = [_RECONNECT] if has[_RECONNECT] < _HEAD else []
    if has[_CHECK] * has[_CHECKS] < _NETWORK * 1000:
        wrong += [_CHECK, _CHECKS]
    wrong += [name for name in _ALIVE if not 0 < has[name] <= _PING]
    if not wrong:
        return ""
    right = " ".join(f"{name}={LASTING[name]}" for name in wrong)
    return (
        "ray: this cluster ends the nodes some 60 s after its head is lost or a network is cut; start it on every "
        f"machine with {right} (docs/ray.md)"
    )


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


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
