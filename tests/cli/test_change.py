"""``mesh plan``, ``mesh up`` on a mesh that runs, and ``mesh history``: what they print, and their exit codes."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.cluster.find import record
from mesh.cluster.run import load_run, run_path
from mesh.cluster.status import NodeRow, Snapshot, save_status
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.settings import SettingsStore
from mesh.topology.topology import Topology
from tests.support.settings import VotingNodes, begun, etcd_in, question, write_file

_numbers = itertools.count()
MORE = ("queue_messages: 1000", "queue_messages: 2000")
TEMPLATE = ("vehicles/{vehicle}/#", "cars/{vehicle}/#")
CONSOLE = ("data: data", 'data: data\nconsole: "0.0.0.0:8099"')
BIND = ("data: data", 'data: data\nbind: "127.0.0.2"')


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedEtcd, Path]]:
    folder = tmp_path_factory.mktemp("etcd") / "etcd"
    with etcd_in(folder) as server:
        yield server, folder


class Mesh:
    def __init__(self, folder: Path, etcd: tuple[EmbeddedEtcd, Path], capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._etcd, self._capsys = folder, etcd, capsys
        self._name = f"c-{os.getpid()}-{next(_numbers)}"
        self.file = self.write()
        self.topology: Topology = begun(self.file)

    def write(self, *changes: tuple[str, str]) -> Path:
        return write_file(self._folder, self._name, *self._etcd, *changes)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """The exit code, stdout, and stderr without the warning of the etcd under test."""
        code = main([words[0], str(self.file), *words[1:]])
        said = self._capsys.readouterr()
        lines = said.err.splitlines(keepends=True)
        return code, said.out, "".join(line for line in lines if not line.startswith("warning: etcd:"))

    def current(self) -> int:
        found = question(self.topology, lambda client: SettingsStore(client, self._name).current())
        assert found is not None
        return found.number


@pytest.fixture
def mesh(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path], capsys: pytest.CaptureFixture[str]) -> Mesh:
    return Mesh(tmp_path, etcd, capsys)


def test_plan_of_the_same_file_has_no_difference(mesh: Mesh) -> None:
    code, out, _ = mesh("plan")
    assert code == 0
    assert out.endswith(" runs; the file is compared with revision 1\nthe file makes no difference\n")


def test_plan_shows_each_change_with_its_kind(mesh: Mesh) -> None:
    mesh.write(MORE, BIND)
    code, out, _ = mesh("plan")
    assert code == 5
    assert "  ~ live     limits.queue_messages  1000 -> 2000\n" in out
    assert "  ~ rolling  bind                   127.0.0.1 -> 127.0.0.2\n" in out
    assert "restarts edge-1, edge-2, core, door: " in out
    assert out.endswith("1 live, 1 rolling: 'mesh up' makes these changes\n")
    mesh.write(MORE, TEMPLATE)
    code, out, _ = mesh("plan")
    assert code == 6
    assert "instead: keep the template" in out
    assert "'mesh up' changes nothing while one is refused" in out
    assert mesh.current() == 1


def test_plan_as_json(mesh: Mesh) -> None:
    mesh.write(MORE)
    code, out, _ = mesh("plan", "--json")
    shown = json.loads(out)
    assert (code, shown["running"], shown["revision"], shown["restarts"]) == (5, True, 1, [])
    (change,) = shown["changes"]
    assert (change["path"], change["kind"], change["what"]) == ("limits.queue_messages", "live", "1000 -> 2000")


def test_up_says_what_each_node_has_confirmed(mesh: Mesh) -> None:
    mesh.write(MORE)
    with VotingNodes(mesh.topology):
        code, out, err = mesh("up")
    assert (code, "confirmed by core, door, edge-1, edge-2\n" in out) == (0, True), err
    code, out, _ = mesh("up")
    assert (code, "runs as the file describes (revision 2); nothing was changed" in out) == (0, True)


def test_up_that_is_refused_says_that_nothing_was_changed(mesh: Mesh) -> None:
    mesh.write(MORE, TEMPLATE)
    code, out, err = mesh("up")
    assert (code, out) == (1, "")
    assert err.startswith("nothing was changed in mesh ")
    assert "topics.vehicle" in err
    assert "is not up" not in err
    assert "logs" not in err
    assert mesh.current() == 1


def test_up_that_a_node_refuses_names_it(mesh: Mesh) -> None:
    mesh.write(MORE)
    with VotingNodes(mesh.topology) as running:
        running.errors = {"edge-1": "the limit is too high for this machine"}
        code, _, err = mesh("up")
    assert code == 1
    assert err.startswith("nothing was changed")
    assert "edge-1: the limit is too high for this machine" in err
    assert mesh.current() == 1


def test_up_names_the_nodes_that_do_not_run(mesh: Mesh) -> None:
    mesh.write(MORE)
    with VotingNodes(mesh.topology, frozenset({"edge-2"})):
        code, out, _ = mesh("up")
    assert code == 1
    assert "  edge-2           does not run: it takes it when it starts" in out
    assert "confirmed by core, door, edge-1\n" in out


def test_up_tells_of_nodes_that_are_restarted(mesh: Mesh) -> None:
    mesh.write(BIND)
    with VotingNodes(mesh.topology):
        code, out, _ = mesh("up", "--over", "5m")
    assert code == 0
    assert "restarts one after another: edge-1, edge-2, core, door; 'mesh status' shows them" in out


def test_a_second_up_is_told_of_the_nodes_that_the_first_still_restarts(mesh: Mesh) -> None:
    mesh.write(BIND)
    with VotingNodes(mesh.topology):
        assert mesh("up")[0] == 0
    rows = tuple(NodeRow(name, "edge", "ready", begun=1) for name in ("edge-1", "edge-2"))
    run = load_run(mesh.topology.data)
    assert run is not None
    save_status(mesh.topology.data, Snapshot(run.mesh, "ready", rows))
    code, out, _ = mesh("up")
    assert (code, out.splitlines()[-1]) == (0, "an earlier change still restarts edge-1, edge-2")
    mesh.write(BIND, MORE)
    with VotingNodes(mesh.topology):
        code, out, _ = mesh("up")
    said = "an earlier change was still restarting edge-1, edge-2: those that are left get this one as well\n"
    assert (code, said in out) == (0, True)


def test_a_warning_is_in_the_status_until_a_revision_removes_its_cause(mesh: Mesh) -> None:
    def shown() -> list[str]:
        return [text.partition(":")[0] for text in json.loads(mesh("status", "--json")[1])["warnings"]]

    assert "console" not in shown()
    with VotingNodes(mesh.topology):
        mesh.write(CONSOLE)
        assert "console" not in shown()  # the file alone changes nothing
        code, _, err = mesh("up")
        assert (code, "warning: console: the console has no login" in err) == (0, True)
        assert "console" in shown()
        assert "warning: console: the console has no login" in mesh("status")[2]
        mesh.write()
        assert mesh("up")[0] == 0
        assert "console" not in shown()


def test_history_and_the_way_back(mesh: Mesh) -> None:
    mesh.write(MORE)
    with VotingNodes(mesh.topology):
        assert mesh("up")[0] == 0
        assert mesh("up", "--revision", "1")[0] == 0
    code, out, _ = mesh("history", "--json")
    shown = json.loads(out)
    assert (code, [one["revision"] for one in shown]) == (0, [3, 2, 1])
    assert [one["current"] for one in shown] == [True, False, False]
    assert shown[0]["changes"] == ["limits.queue_messages: 2000 -> 1000"]
    code, out, _ = mesh("history")
    assert (code, "(in force)" in out.splitlines()[0]) == (0, True)
    code, _, err = mesh("up", "--revision", "7")
    assert code == 1
    none = "there is no revision 7: 'mesh history' shows those that are kept"
    assert err == f"nothing was changed in mesh {mesh.topology.mesh!r}: {none}\n"


def test_a_mesh_of_another_machine_is_found_by_the_file_alone(mesh: Mesh) -> None:
    run = load_run(mesh.topology.data)
    assert run is not None
    there = replace(run, host="far-away")
    run_path(mesh.topology.data).unlink()
    assert mesh("status")[0] == 3
    assert record(mesh.topology, there) == ""
    code, _, err = mesh("status")
    assert (code, "was started on far-away, and none of its nodes is announced" in err) == (3, True)
    with VotingNodes(mesh.topology):
        code, out, err = mesh("status", "--json")
        shown = json.loads(out)
        assert (code, shown["host"], shown["revision"]) == (1, "far-away", 1), err
        assert {row["name"]: row["host"] for row in shown["nodes"]} == dict.fromkeys(
            ("edge-1", "edge-2", "core", "door"), "127.0.0.1"
        )
        code, _, err = mesh("down")
        assert (code, "runs on far-away: run 'mesh down' there" in err) == (1, True)
        mesh.write(MORE)
        assert mesh("up")[0] == 0
    code, out, err = mesh("plan")
    assert (code, "does not run; the file is compared with revision 2" in out, "far-away" in err) == (0, True, True)
    assert mesh("down")[0] == 0
    code, _, err = mesh("status")
    assert (code, "far-away" in err) == (3, False)


def test_without_etcd_every_command_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with etcd_in(tmp_path / "etcd") as server:
        mesh = Mesh(tmp_path, (server, tmp_path / "etcd"), capsys)
        mesh.write(MORE)
    code, _, err = mesh("up")
    assert (code, err.startswith("nothing was changed")) == (1, True), err
    assert "etcd does not answer" in err
    code, _, err = mesh("plan")
    assert "etcd does not answer" in err
    code, _, err = mesh("history")
    assert (code, "could not be read" in err) == (1, True)
    code, out, err = mesh("status", "--json")
    assert "etcd does not answer" in err
    assert json.loads(out)["mesh"] == mesh.topology.mesh
    mesh.write(CONSOLE)
    assert "warning: console" in mesh("status")[2]
