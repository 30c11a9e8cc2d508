"""The ``mesh`` command with a whole real mesh: in the foreground, in the background, and killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mesh.cluster.lifecycle import down
from mesh.cluster.run import Run, load_run
from mesh.node.registry import etcd_folder
from tests.support.ports import free_ports
from tests.support.session import session
from tests.support.waiting import wait_until

pytestmark = pytest.mark.ray

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The example topology on free ports; afterwards its mesh is stopped."""
    vehicles, backends = free_ports(2)
    text = LOCAL.read_text().replace("1883", str(vehicles)).replace("1884", str(backends))
    path = tmp_path / "local.yaml"
    path.write_text(text.replace("../.mesh/local", "data").replace(", {name: edge-2}", ""))
    yield path
    down(tmp_path / "data")


def mesh(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "mesh.cli.main", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done(*words: str) -> tuple[int, str, str]:
    process = mesh(*words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def run_of(file: Path) -> Run:
    run = load_run(file.parent / "data")
    assert run is not None
    return run


def etcd_of(run: Run) -> int:
    """The process number of etcd itself, from its lock."""
    return int((etcd_folder(Path(run.data)) / "lock").read_text())


def test_a_mesh_in_the_background_runs_from_up_to_down(file: Path) -> None:
    code, out, err = done("up", str(file), "--detach")
    assert (code, "is ready" in out) == (0, True), err
    code, out, _ = done("status", "--json", "--topology", str(file))
    status = json.loads(out)
    assert code == 0
    assert [(row["name"], row["state"]) for row in status["nodes"]] == [
        (name, "ready") for name in ("etcd", "edge-1", "core", "door")
    ]
    run = run_of(file)
    etcd = etcd_of(run)
    code, out, _ = done("status", "--topology", str(file))
    assert (code, "edge-1" in out) == (0, True)
    code, out, err = done("bench", "down-20x20", "--seconds", "1", "--json", "--topology", str(file))
    load = json.loads(out)
    assert (code, load["lost"], load["lost_connections"]) == (0, 0, 0), err
    assert load["received"] == load["sent"] > 0
    assert set(load["cpu"]) == {"edge-1", "core", "door"}
    _refuse_another_template(file)
    (file.parent / "data" / "run.json").unlink()
    code, out, err = done("up", str(file), "--detach")
    assert (code, "runs as the file describes" in out) == (0, True), err
    code, out, _ = done("status", "--json", str(file))
    assert (code, json.loads(out)["supervisor"]) == (0, run.supervisor)
    code, out, _ = done("audit", str(file), "--json")
    acts = [(act["command"], act["what"]) for act in json.loads(out)]
    assert acts == [("mesh up", f"the mesh has started; {file}"), ("mesh up", "revision 1: the settings as a whole")]
    assert done("down", "--topology", str(file))[0] == 0
    assert not session(run)
    assert not psutil.pid_exists(etcd)
    assert done("status", "--topology", str(file))[0] == 3
    code, out, _ = done("down", "--topology", str(file))
    assert (code, out) == (0, "mesh 'local' was not running\n")


def _refuse_another_template(file: Path) -> None:
    """What no running mesh can take is refused, and the mesh goes on."""
    before = file.read_text()
    file.write_text(before.replace('"vehicles/', '"cars/'))
    assert file.read_text() != before
    code, _, err = done("up", str(file), "--detach")
    file.write_text(before)
    assert (code, "nothing was changed in mesh 'local':\n  topics.vehicle" in err) == (1, True), err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_mesh_ends_with_up_in_the_foreground(file: Path, number: signal.Signals) -> None:
    process = mesh("up", str(file))
    assert process.stdout is not None
    wait_until(lambda: "is ready" in process.stdout.readline() or process.poll() is not None, seconds=60.0)  # type: ignore[union-attr]
    run = run_of(file)
    etcd = etcd_of(run)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (0 if number == signal.SIGINT else -signal.SIGKILL)
    wait_until(lambda: not session(run) and not psutil.pid_exists(etcd))


def test_up_names_a_port_that_is_in_use(file: Path) -> None:
    port = int(file.read_text().split('mqtt: "127.0.0.1:')[1].split('"')[0])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        code, _, err = done("up", str(file), "--detach")
    assert code == 1
    assert "door 'door' is not ready: " in err
    assert str(port) in err
    assert not session(run_of(file))
