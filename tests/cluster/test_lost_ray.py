"""A mesh on a Ray cluster whose head is lost: the commands alone bring it down and up again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh.registry.embedded import EmbeddedEtcd, client_tls
from tests.support.loop import LoopThread
from tests.support.ports import free_ports
from tests.support.raycluster import RayCluster
from tests.support.waiting import wait_until

pytestmark = pytest.mark.ray

TOPOLOGY = """\
mesh: lost
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
    cluster: RayCluster

    def command(self, *words: str, deadline: float = 120.0) -> tuple[int, str, str]:
        """The exit code and the output of a command, which ends before the deadline."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mesh.cli.main", *words],
            env=self.cluster.environment, capture_output=True, text=True, timeout=deadline, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("etcd") / "etcd"
    loop = LoopThread()
    server = EmbeddedEtcd(folder)
    loop.run(server.start(), 60.0)
    yield server.endpoint, folder
    loop.run(server.stop(), 60.0)
    loop.close()


@pytest.fixture
def mesh(tmp_path: Path, etcd: tuple[str, Path]) -> Iterator[Mesh]:
    cluster = RayCluster()
    endpoint, folder = etcd
    door, core = free_ports(2)
    tls = client_tls(folder)
    file = tmp_path / "mesh.yaml"
    file.write_text(
        TOPOLOGY.format(etcd=endpoint, ca=tls.ca, cert=tls.cert, key=tls.key, door=door, core=core, ray=cluster.address)
    )
    cluster.start()
    try:
        yield Mesh(file, cluster)
    finally:
        cluster.close()


def states(out: str) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads(out)["nodes"]}


def test_commands_alone_bring_down_and_up_a_mesh_whose_ray_is_gone(mesh: Mesh) -> None:
    file = str(mesh.file)
    ready = dict.fromkeys(("edge-1", "core", "door"), "ready")
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 0, err
    code, out, _ = mesh.command("status", file, "--json")
    assert (code, states(out)) == (0, ready)
    assert {row["host"] for row in json.loads(out)["nodes"]} == {"127.0.0.1"}

    mesh.cluster.lose()
    code, out, err = mesh.command("status", file, "--json", deadline=20.0)
    assert (code, json.loads(out)["state"]) == (1, "unreachable"), err
    wait_until(lambda: states(mesh.command("status", file, "--json")[1]) == dict.fromkeys(ready, "unreachable"))
    assert f"Ray at {mesh.cluster.address} does not answer" in err
    code, out, err = mesh.command("down", file)
    assert (code, out) == (0, "mesh 'lost' was not running\n"), err
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 1
    assert f"Ray at {mesh.cluster.address} does not answer" in err

    mesh.cluster.start()
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 0, err

    # A head that was lost and started again has forgotten the mesh: 'up' starts it without 'down'.
    mesh.cluster.lose()
    mesh.cluster.start()
    code, _, err = mesh.command("status", file)
    assert code == 1
    assert "has no controller of mesh 'lost'" in err
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 0, err
    code, out, _ = mesh.command("status", file, "--json")
    assert (code, states(out)) == (0, ready)
    code, out, err = mesh.command("down", file)
    assert (code, out) == (0, "mesh 'lost' is down\n"), err
    assert mesh.command("status", file)[0] == 3
