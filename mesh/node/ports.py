"""The ports of a node that are not configured: chosen once, and kept for the life of the node's folder.

It knows port numbers and one file. What always holds: a node that restarts while etcd is unavailable has the same ports
as before, unless another process has taken one meanwhile; then it takes another port, which it announces in etcd.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from pathlib import Path
from typing import Final

_FIRST: Final = 20_000
_TRIES: Final = 1000  # of some ten thousand ports: if all of these are taken, the machine has no free port


def keep_ports(folder: Path, host: str, names: tuple[str, ...]) -> dict[str, int]:
    """A port of ``host`` for each name: the previous port if it is free, else a free one. Raises ``OSError``."""
    file = folder / "ports.json"
    before = _read(file)
    ports: dict[str, int] = {}
    for name in names:
        port = before.get(name, 0)
        ports[name] = port if port and port not in ports.values() and _free(host, port) else _another(host, ports)
    if ports != before:
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(ports))
        draft.replace(file)
    return ports


def _read(file: Path) -> dict[str, int]:
    """The ports in the file; invalid content is ignored, because any port will do."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: port for name, port in found.items() if type(port) is int and 0 < port < 65_536}


def _free(host: str, port: int) -> bool:
    """Whether no process listens there. Connections of a process that was killed do not count (SO_REUSEADDR)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _another(host: str, taken: dict[str, int]) -> int:
    """A free port below the range that the kernel uses for outgoing connections: a port in that range could be in use
    by some connection when the node restarts."""
    end = 32_768
    with contextlib.suppress(OSError, ValueError):
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(_TRIES):
        port = random.randrange(_FIRST, end) if end > _FIRST + _TRIES else 0
        if port == 0 or (port not in taken.values() and _free(host, port)):
            return port
    raise OSError(f"no free port was found on {host} between {_FIRST} and {end}")
