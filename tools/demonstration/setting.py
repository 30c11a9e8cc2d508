"""The topology of the demonstration: ``topology/local.yaml`` with its own data folder, free ports, and traces.

It knows the file's keys and which ports are free. What always holds: the demonstration never uses the data or the ports
of another mesh.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import yaml

HOST: Final = "127.0.0.1"
MESH: Final = "demo"


@final
@dataclass(frozen=True, slots=True)
class Setting:
    """The topology file that was written, and the ports in it."""

    file: Path
    data: Path
    door: int
    core: int


def derive(text: str, otlp: str, door: int, core: int) -> str:
    """The text of the demonstration's topology, made from that of ``topology/local.yaml``."""
    topology: dict[str, Any] = yaml.safe_load(text)
    topology["mesh"] = MESH
    topology["front_doors"][0]["listen"] = [{"mqtt": f"{HOST}:{door}"}]
    topology["cores"][0]["listen"] = [{"mqtt": f"{HOST}:{core}"}]
    topology["telemetry"] = {"otlp": otlp, "sample": 1.0}
    topology["data"] = "data"
    note = "# Made by scripts/demo from topology/local.yaml.\n"
    return note + yaml.safe_dump(topology, sort_keys=False, allow_unicode=True)


def write(source: Path, folder: Path, otlp: str) -> Setting:
    """Write the topology file into ``folder``."""
    text = source.read_text(encoding="utf-8")
    topology = yaml.safe_load(text)
    door = choose(_port(topology["front_doors"][0]), is_free)
    core = choose(_port(topology["cores"][0]), is_free)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "topology.yaml"
    file.write_text(derive(text, otlp, door, core), encoding="utf-8")
    return Setting(file, folder / "data", door, core)


def choose(port: int, free: Callable[[int], bool]) -> int:
    """``port`` if it is free, else a free port from the system."""
    if free(port):
        return port
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether this port is free on our address and on the wildcard address."""
    for host in (HOST, "0.0.0.0"):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError:
                return False
    return True


def _port(group: dict[str, Any]) -> int:
    return int(str(group["listen"][0]["mqtt"]).rpartition(":")[2])
