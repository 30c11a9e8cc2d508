"""A file that changes while its mesh runs, even to one that is wrong: every command knows which mesh that is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.cli.which import sought
from mesh.cluster.lifecycle import planned
from mesh.cluster.processes import started
from mesh.cluster.run import RUNNING, SUPERVISOR, Run, save_plan, save_run
from mesh.topology.load import load
from tests.support.topologies import topology
from tests.support.waiting import wait_until


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The changed file of a mesh with a supervisor, which only sleeps."""
    folder = tmp_path / "shop"
    folder.mkdir()
    file = topology(folder, 18830, 18840, ["edge-1"])
    plan = planned(load(file))
    save_plan(replace(plan, revision=1))
    code = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, SUPERVISOR, plan.data, "--topology", str(file)])
    wait_until(lambda: started(process.pid) is not None)
    since = started(process.pid) or 0.0
    save_run(
        Run(plan.mesh, str(file), plan.data, "local", "", "", plan.endpoints, process.pid, since, RUNNING)
    )
    text = file.read_text()
    assert text.count(f"data: {folder}/data") == 1
    file.write_text(text.replace(f"data: {folder}/data", f"data: {folder}/elsewhere"))
    try:
        yield file
    finally:
        process.kill()
        process.wait()


def test_the_change_is_refused_and_starts_no_second_mesh(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(file)]) == 6
    said = capsys.readouterr().out
    assert " runs; " in said
    assert "~ refused  data " in said
    assert main(["up", str(file), "--detach"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("nothing was changed in mesh 'shop':\n  data (")
    assert "the journals of all nodes are in this folder" in said
    assert not (file.parent / "elsewhere").exists()


def test_the_mesh_is_found(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, followed = sought(str(file))
    assert found.alive
    assert followed.data != load(file).data
    assert main(["status", str(file), "--json"]) == 1
    assert "does not run" not in capsys.readouterr().err


def test_a_mesh_of_another_file_is_another_one(file: Path) -> None:
    other = file.with_name("other.yaml")
    other.write_text(file.read_text())
    assert not sought(str(other))[0].alive


def test_the_mesh_of_a_file_with_mistakes_is_found(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate that is gone, or a password file that is half written, is such a mistake."""
    data = load(file).data.with_name("data")
    file.write_text(f"{file.read_text()}limits: {{in_flite: 3}}\n")
    found, followed = sought(str(file))
    assert found.alive
    assert followed.data == data
    assert main(["status", str(file), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["mesh"] == "shop"
    assert "has a mistake, so this is about the mesh that was started from it" in said.err
    assert "limits.in_flite: unknown key" in said.err


@pytest.mark.parametrize("command", ["up", "plan"])
def test_a_command_that_applies_a_file_with_mistakes_is_refused(
    command: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"{file.read_text()}limits: {{in_flite: 3}}\n")
    assert main([command, str(file)]) != 0
    assert "limits.in_flite: unknown key" in capsys.readouterr().err


def test_a_file_with_mistakes_from_which_no_mesh_runs_is_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = file.with_name("other.yaml")
    other.write_text(f"{file.read_text()}limits: {{in_flite: 3}}\n")
    assert main(["status", str(other)]) == 3
    assert "limits.in_flite: unknown key" in capsys.readouterr().err
