"""The mesh that is attacked, unless another one is named: a front door, an edge, a core and etcd at default limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.attacks.attack import Target
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.processes import Processes


@contextmanager
def attacked(folder: Path) -> Iterator[tuple[Processes, Target]]:
    """Each node runs in its own process. Vehicles may use TLS."""
    port = free_port()
    cert, key = Authority().issue("localhost", dns=["localhost"], server=True).write(folder, "server")
    listener = f', {{mqtts: "127.0.0.1:{port}", tls: {{cert: {cert}, key: {key}}}}}'
    with Processes(folder, ["edge-1"], more_vehicles=listener) as mesh:
        door, core = ("127.0.0.1", mesh.vehicles), ("127.0.0.1", mesh.backends)
        yield mesh, Target(door, core, secured=("127.0.0.1", port))
