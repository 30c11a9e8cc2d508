"""A mesh on a Ray cluster that is lost whole: the commands alone bring it down and up again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.cluster.run import run_path
from tests.cluster.lost import Mesh, on_a_cluster
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with on_a_cluster(tmp_path) as one:
        yield one


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
