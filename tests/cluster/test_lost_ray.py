"""A mesh on a Ray cluster whose head is lost: the commands alone bring it down and up again."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from mesh.cluster.run import run_path
from mesh.registry.embedded import EmbeddedEtcd, client_tls
from tests.support.client import Client
from tests.support.loop import LoopThread
from tests.support.ports import free_ports
from tests.support.raycluster import RayCluster
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.ray

# Seconds without a head. Ray's own value is 60; docs/ray.md names values for an hour.
AWAY = float(os.environ.get("MESH_HEAD_AWAY", "75"))

_numbers = itertools.count(1)

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
    name = f"lost-{next(_numbers)}"  # of its own: etcd knows which mesh had journals
    door, core = free_ports(2)
    tls = client_tls(folder)
    file = tmp_path / "mesh.yaml"
    file.write_text(
        TOPOLOGY.format(
            name=name, etcd=endpoint, ca=tls.ca, cert=tls.cert, key=tls.key, door=door, core=core, ray=cluster.address
        )
    )
    cluster.start()
    try:
        yield Mesh(file, name, cluster, door, core)
    finally:
        cluster.close()


def test_nodes_serve_without_a_head_for_longer_than_ray_lets_them_until_down_ends_them(mesh: Mesh) -> None:
    """They do for ``MESH_HEAD_AWAY`` seconds at least."""
    file = str(mesh.file)
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 0, err
    pids = {row["name"]: row["pid"] for row in json.loads(mesh.command("status", file, "--json")[1])["nodes"]}
    mesh.cluster.lose_head()
    code, out, err = mesh.command("status", file, "--json", deadline=20.0)
    assert (code, json.loads(out)["state"]) == (1, "unreachable"), err
    assert f"Ray at {mesh.cluster.address} does not answer" in err
    end = time.monotonic() + AWAY
    while time.monotonic() < end:
        for name, pid in pids.items():
            assert psutil.pid_exists(pid), f"{name} has ended {AWAY - (end - time.monotonic()):.0f} s after the head"
        time.sleep(1.0)
    asyncio.run(a_message_arrives(mesh))
    code, out, err = mesh.command("down", file)
    assert (code, out) == (0, f"mesh '{mesh.name}' is down\n"), err
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids.values()))
    assert mesh.command("status", file)[0] == 3


async def a_message_arrives(mesh: Mesh) -> None:
    car, backend = Client("CAR-1"), Client("backend")
    await car.connect(mesh.door)
    await car.subscribe("vehicles/CAR-1/cmd")
    await backend.connect(mesh.core)
    backend.publish("vehicles/CAR-1/cmd", "go")
    await until(lambda: car.payloads("vehicles/CAR-1/cmd") == ["go"])
    car.leave()
    backend.leave()


def test_up_names_the_resources_that_it_waits_for(mesh: Mesh) -> None:
    text = mesh.file.read_text()
    mesh.file.write_text(text.replace("{name: edge-1}", "{name: edge-1, resources: {nowhere: 1}}"))
    up = subprocess.Popen(
        [sys.executable, "-P", "-m", "mesh.cli.main", "up", str(mesh.file), "--detach"],
        env=mesh.cluster.environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert up.stderr is not None
    said = ""
    for line in up.stderr:
        said += line
        if "asks for" in line:
            break
    assert "waits for edge-1 (Ray has not started its process for" in said, said
    assert "{'nowhere': 1.0}" in said
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=60)
    assert up.returncode == 130
    assert mesh.command("status", str(mesh.file))[0] == 3


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

    # The command works without the copy in the data folder, as on another host.
    run_path(mesh.file.parent / "data").unlink()
    code, out, err = mesh.command("status", file, "--json")
    assert (code, states(out)) == (0, ready), err

    mesh.cluster.lose()
    code, out, err = mesh.command("status", file, "--json", deadline=20.0)
    assert (code, json.loads(out)["state"]) == (1, "unreachable"), err
    wait_until(lambda: states(mesh.command("status", file, "--json")[1]) == dict.fromkeys(ready, "unreachable"))
    assert f"Ray at {mesh.cluster.address} does not answer" in err
    code, out, err = mesh.command("down", file)
    assert (code, out) == (0, f"mesh '{mesh.name}' was not running\n"), err
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 1
    assert f"Ray at {mesh.cluster.address} does not answer" in err

    mesh.cluster.start()
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 0, err
    assert "warning: ray" not in err

    # A head that was lost and started again has forgotten the mesh: 'up' starts it without 'down'.
    mesh.cluster.lose()
    del mesh.cluster.environment["RAY_gcs_rpc_server_reconnect_timeout_s"]
    mesh.cluster.start()
    code, _, err = mesh.command("status", file)
    assert code == 1
    assert f"has no controller of mesh '{mesh.name}'" in err
    code, _, err = mesh.command("up", file, "--detach")
    assert code == 0, err
    assert "warning: ray: this cluster ends the nodes" in err
    code, out, err = mesh.command("status", file, "--json")
    assert (code, states(out)) == (0, ready)
    assert "start it on every machine with RAY_gcs_rpc_server_reconnect_timeout_s=3600" in err
    code, out, err = mesh.command("down", file)
    assert (code, out) == (0, f"mesh '{mesh.name}' is down\n"), err
    assert mesh.command("status", file)[0] == 3
