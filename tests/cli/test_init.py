"""``mesh init``: the file that it writes, and the existing file that it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesh.cli.init import starter
from mesh.cli.main import main

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run outside of the checkout."""
    monkeypatch.chdir(tmp_path)


def test_init_writes_a_valid_topology(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init"]) == 0
    assert capsys.readouterr().out == "mesh.yaml describes mesh 'local'; next: mesh up mesh.yaml\n"
    assert main(["check", "mesh.yaml"]) == 0
    assert f"data in {tmp_path / '.mesh'}" in capsys.readouterr().out
    assert Path("mesh.yaml").read_text() == starter()


def test_init_overwrites_a_file_only_with_force(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my mesh.yaml").write_text("mine")
    assert main(["init", "my mesh.yaml"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "my mesh.yaml exists" in captured.err
    assert "mesh init 'my mesh.yaml' --force" in captured.err
    assert Path("my mesh.yaml").read_text() == "mine"
    assert main(["init", "my mesh.yaml", "--force"]) == 0
    assert Path("my mesh.yaml").read_text() == starter()


def test_init_json_has_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "fleet.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(tmp_path / "fleet.yaml"), "mesh": "local"}


def test_init_reports_a_file_it_cannot_write(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "nowhere/mesh.yaml"]) == 1
    assert capsys.readouterr().err == "nowhere/mesh.yaml cannot be written: No such file or directory\n"
    Path("folder").mkdir()
    assert main(["init", "folder", "--force"]) == 1
    assert capsys.readouterr().err == "folder cannot be written: Is a directory\n"


def test_the_starter_differs_from_the_local_topology_only_in_its_place() -> None:
    """Only the command in its comment and its data folder may differ."""
    ours, theirs = LOCAL.read_text().splitlines(), starter().splitlines()
    assert len(ours) == len(theirs)
    differ = [line for line, other in zip(ours, theirs, strict=True) if line != other]
    assert differ[0].startswith("# A whole mesh on one machine:")
    assert [line.partition(":")[0] for line in differ[1:]] == ["data"]
