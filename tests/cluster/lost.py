"""Meshes on a Ray cluster that no mesh has started, and whose head can be lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.registry.embedded import client_tls
from tests.support.ports import free_ports
from tests.support.raycluster import RayCluster
from tests.support.settings import etcd_in

TOPOLOGY = """\
mesh: {name}
etcd: {{endpoints: ["{etcd}"], tls: {{ca: "{ca}", cert: "{cert}", key: "{key}"}}}}
identity: {{from: username, pattern: "[A-Z0-9-]{{3,32}}"}}
topics: {{vehicle: "vehicles/{{vehicle}}/#"}}
front_doors: [{{name: door, listen: [{{mqtt: "127.0.0.1:{door}"}}]}}]
cores: [{{name: core, listen: [{{mqtt: "127.0.0.1:{core}"}}]}}]
backends: {{anonymous: true}}
pools: [{{name: standard, edges: [{{name: edge-1}}]}}]
data: data
ray: "{ray}"
"""


@dataclass
class Mesh:
    file: Path
    name: str
    cluster: RayCluster
    door: int
    core: int

    def command(self, *words: str, deadline: float = 120.0) -> tuple[int, str, str]:
        """The exit code and the output of a command, which ends before the deadline."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mesh.cli.main", *words],
            env=self.cluster.environment, capture_output=True, text=True, timeout=deadline, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr


@contextmanager
def on_a_cluster(folder: Path) -> Iterator[Mesh]:
    """A mesh with an etcd and a cluster of its own, before its start."""
    cluster = RayCluster()
    door, core = free_ports(2)
    file = folder / "mesh.yaml"
    with etcd_in(folder / "etcd") as etcd:
        tls = client_tls(folder / "etcd")
        file.write_text(
            TOPOLOGY.format(
                name="lost", etcd=etcd.endpoint, ca=tls.ca, cert=tls.cert, key=tls.key, door=door, core=core,
                ray=cluster.address,
            )
        )  # fmt: skip
        cluster.start()
        try:
            yield Mesh(file, "lost", cluster, door, core)
        finally:
            cluster.close()
