"""Which mesh a command is about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.cli import which
from mesh.cli.main import main
from mesh.cluster.run import RUNNING, Run
from tests.support.topologies import topology

COMMANDS = ("down", "status")


@pytest.fixture
def file(tmp_path: Path) -> str:
    folder = tmp_path / "shop"
    folder.mkdir()
    return str(topology(folder, 18830, 18840, ["edge-1"]))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_stands_for_the_option_topology(
    command: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([command, file])
    placed = capsys.readouterr()
    assert (main([command, "--topology", file]), capsys.readouterr()) == (code, placed)
    assert code == {"down": 0, "status": 3}[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_two_files_are_refused(command: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, file, "--topology", "other.yaml"]) == 2
    assert "give one topology file" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_beside_several_meshes_fails(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [Run(name, f"{name}.yaml", "/nowhere", "local", "", "", (), os.getpid(), 0.0, RUNNING) for name in "ab"]
    monkeypatch.setattr(which, "running", lambda: runs)
    assert main([command]) == {"down": 1, "status": 3}[command]
    assert "choose one:\n  a: --topology a.yaml\n  b: --topology b.yaml" in capsys.readouterr().err


def test_down_of_no_mesh_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(which, "running", list)
    assert main(["down"]) == 0
