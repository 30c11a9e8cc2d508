"""The mesh that is attacked, unless another one is named: a front door, an edge, a core and etcd at default limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.attacks.attack import Asked, Target
from tests.attacks.raw import Address
from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.processes import Processes
from tests.support.topologies import IDENTITY


@contextmanager
def attacked(folder: Path) -> Iterator[tuple[Processes, Target]]:
    """Each node runs in its own process. Vehicles may use TLS, with an ECDSA or an RSA key of the server; at one more
    listener another server is asked who they are."""
    (secured, asked, server), authority = free_ports(3), Authority()
    pairs = [
        "cert: {}, key: {}".format(
            *authority.issue("localhost", dns=["localhost"], server=True, kind=kind).write(folder, kind)
        )
        for kind in ("ecdsa", "rsa")
    ]
    listeners = (
        f', {{mqtts: "127.0.0.1:{secured}", tls: {{{pairs[0]}, more: [{{{pairs[1]}}}]}}, identify: [anonymous]}}'
        f', {{mqtt: "127.0.0.1:{asked}", identify: [other]}}'
    )
    provider = f'{{name: other, http: {{url: "http://127.0.0.1:{server}/"}}}}'
    identity = f'{IDENTITY[:-1]}, providers: [{provider}, anonymous]}}'
    with Processes(
        folder, ["edge-1"], identity=identity, identify="[anonymous]", more_vehicles=listeners
    ) as mesh:
        door, core = _local(mesh.vehicles), _local(mesh.backends)
        yield mesh, Target(
            door, core, secured=_local(secured), asked=Asked(listener=_local(asked), server=_local(server))
        )


def _local(port: int) -> Address:
    return "127.0.0.1", port
