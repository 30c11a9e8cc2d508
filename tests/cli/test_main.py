"""The command line: its help, its errors and its exit codes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.cli.main import COMMANDS, load, main
from mesh.cluster.lifecycle import planned
from mesh.cluster.run import save_plan
from mesh.topology.load import load as load_topology
from mesh.version import VERSION, compiled, describe
from tests.support.topologies import topology

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"


def test_version_shows_whether_the_package_is_compiled(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    said = capsys.readouterr().out.strip()
    assert said == describe()
    assert said in (f"vehicle-mesh {VERSION} (compiled)", f"vehicle-mesh {VERSION} (pure Python)")
    packets = importlib.import_module("mesh.wire.packets")
    assert compiled() is not str(packets.__file__).endswith(".py")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr().out
    assert all(name in said and entry.summary in said for name, entry in COMMANDS.items())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"mesh {name} " in capsys.readouterr().out
    assert "mesh " in load(COMMANDS[name]).EXAMPLES


@pytest.mark.parametrize("words", [["chek", "x"], ["--verbose"], ["check"], ["check", "a", "b"]])
def test_a_wrong_command_line_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "usage: mesh" in said
    assert "did you mean 'check'?" in said or words != ["chek", "x"]


def test_check_lists_the_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(LOCAL)]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("edge-1", "edge-2", "mqtt://127.0.0.1:1883", "mqtt://127.0.0.1:1884"))


def test_check_names_the_kind_of_each_listener(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(LOCAL.read_text().replace('mqtt: "127.0.0.1:1883"', 'ws: "127.0.0.1:1883"'))
    assert main(["check", str(file)]) == 0
    assert " ws://127.0.0.1:1883/mqtt\n" in capsys.readouterr().out


def test_check_and_up_print_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(LOCAL.read_text().replace("../.mesh/local", ".mesh") + '\nconsole: "0.0.0.0:8080"\n')
    assert main(["check", str(file)]) == 0
    said = capsys.readouterr().err
    assert "warning: console: the console has no login, so every client that reaches 0.0.0.0:8080" in said
    (tmp_path / ".mesh").write_text("no folder")
    for command in ("check", "up"):
        assert main([command, str(file)]) == 1
        assert "is a file; name a folder that exists or can be made" in capsys.readouterr().err


def test_the_data_folder_of_another_mesh_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    first = topology(folder, 18830, 18840, ["edge-1"])
    save_plan(planned(load_topology(first)))
    file = folder / "other.yaml"
    file.write_text(first.read_text().replace("mesh: shop", "mesh: other"))
    before = set(folder.rglob("*"))
    for command in ("check", "up"):
        assert main([command, str(file)]) == 1
        assert "has the files of the mesh 'shop'; name another folder for 'other'" in capsys.readouterr().err
    assert set(folder.rglob("*")) == before
    assert main(["check", str(first)]) == 0


def test_the_data_folder_of_other_programs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    file = topology(folder, 18830, 18840, ["edge-1"])
    data = load_topology(file).data
    data.mkdir()
    (data / "letters").write_text("of another program")
    data.chmod(0o755)
    for command in ("check", "up"):
        assert main([command, str(file)]) == 1
        assert "has files of other programs, and other users may enter it" in capsys.readouterr().err
    assert data.stat().st_mode & 0o777 == 0o755


def test_check_reports_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("mesh: UP\nray: auto\n")
    assert main(["check", str(file)]) == 1
    said = capsys.readouterr().err
    assert f"{file}:1:7: mesh: " in said
    assert f"{file}:2:6: ray: " in said


def test_up_refuses_passwords_that_every_user_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mesh.yaml"
    users = "  users: [{user: app, password: secret}]"
    file.write_text(LOCAL.read_text().replace("../.mesh/local", "data").replace("  anonymous: true", users))
    file.chmod(0o644)
    assert main(["up", str(file), "--detach"]) == 1
    said = capsys.readouterr().err
    assert f"run: chmod o-r {file}\nnothing was changed\n" in said
    assert "is not up" not in said  # it may run
    assert not (tmp_path / "data").exists()
    assert main(["check", str(file)]) == 0
    assert f"mesh up will refuse it here: {file} has passwords" in capsys.readouterr().err


def test_help_imports_no_heavy_module() -> None:
    """``mesh --help`` is fast because a command's module is imported only to run that command."""
    look = "import sys, mesh.cli.main as m; m.main([]); print(*{'ray', 'grpc', 'yaml'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines()[-1] == ""
