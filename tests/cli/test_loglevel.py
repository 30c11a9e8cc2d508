"""``mesh log-level``: the levels that it shows, the revisions that it makes, and its exit codes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.topology import as_dict
from tests.support.settings import VotingNodes, begun, etcd_in, question, write_file

_numbers = itertools.count()


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedEtcd, Path]]:
    folder = tmp_path_factory.mktemp("etcd") / "etcd"
    with etcd_in(folder) as server:
        yield server, folder


class Mesh:
    def __init__(self, folder: Path, etcd: tuple[EmbeddedEtcd, Path], capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        name = f"l-{os.getpid()}-{next(_numbers)}"
        self.file = write_file(folder, name, *etcd)
        self.topology = begun(self.file)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = main(["log-level", *words, "--topology", str(self.file)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def current(self) -> Revision:
        found = question(self.topology, lambda client: SettingsStore(client, self.topology.mesh).current())
        assert found is not None
        return found


@pytest.fixture
def mesh(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path], capsys: pytest.CaptureFixture[str]) -> Mesh:
    return Mesh(tmp_path, etcd, capsys)


def test_the_levels_in_force_are_shown(mesh: Mesh) -> None:
    assert mesh() == (0, "all nodes  info\n", "")
    with VotingNodes(mesh.topology):
        assert mesh("debug", "--node", "edge-1", "--node", "controller")[0] == 0
        assert mesh("warning", "--module", "mesh.broker")[0] == 0
        code, out, _ = mesh()
    assert code == 0
    rows = [tuple(line.split("  ", 1)[i].strip() for i in (0, 1)) for line in out.splitlines()]
    assert rows == [
        ("all nodes", "info"), ("edge-1", "debug"), ("controller", "debug"), ("mesh.broker", "warning"),
    ]  # fmt: skip


def test_a_level_is_a_revision_in_which_nothing_else_differs(mesh: Mesh) -> None:
    """What FILE says meanwhile does not come into force."""
    mesh.file.write_text(mesh.file.read_text().replace("queue_messages: 1000", "queue_messages: 2000"))
    with VotingNodes(mesh.topology):
        code, out, _ = mesh("debug")
    assert code == 0
    assert "logs.level  info -> debug" in out
    assert "revision 2 is in force" in out
    assert "confirmed by core, door, edge-1, edge-2" in out
    assert "the next 'mesh up FILE' goes back to the levels of FILE" in out
    settings = mesh.current().settings
    assert settings == {**as_dict(mesh.topology), "logs": {"level": "debug", "nodes": {}, "modules": {}}}
    assert mesh.current().changes == ("logs.level: info -> debug",)


def test_default_removes_a_level(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology):
        for words in (("debug",), ("error", "--node", "edge-1"), ("debug", "--module", "mesh.core")):
            assert mesh(*words)[0] == 0
        for words in (("default",), ("default", "--node", "edge-1"), ("default", "--module", "mesh.core")):
            assert mesh(*words)[0] == 0
        code, out, _ = mesh("default", "--node", "edge-2")
    assert (code, "are so already (revision 7); nothing was changed" in out) == (0, True)
    assert mesh.current().settings["logs"] == {"level": "info", "nodes": {}, "modules": {}}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("debug", "--node", "edge-9"), "has no node 'edge-9'; it has edge-1, edge-2, core, door, controller"),
        (("debug", "--module", "mesh.brokr"), "'mesh.brokr' is no module of the mesh"),
        (("debug", "--node", "edge-1", "--module", "mesh.core"), "give --node or --module, not both"),
        (("--node", "edge-1"), "write a level, one of debug, info, warning, error, default"),
    ],
)
def test_a_wrong_command_line_changes_nothing(mesh: Mesh, words: tuple[str, ...], what: str) -> None:
    code, _, err = mesh(*words)
    assert (code, what in err) == (2, True), err
    assert mesh.current().number == 1


def test_an_unknown_level_is_refused(mesh: Mesh) -> None:
    with pytest.raises(SystemExit) as exit:
        mesh("verbose")
    assert exit.value.code == 2


def test_what_a_node_refuses_changes_nothing(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology) as voting:
        voting.errors = {"core": "no room"}
        code, _, err = mesh("debug")
    assert (code, "nothing was changed" in err, "core: no room" in err) == (1, True, True)
    assert mesh.current().number == 1


def test_a_node_that_does_not_run_is_named(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology, frozenset({"edge-2"})):
        code, out, _ = mesh("debug")
    assert (code, "edge-2           does not run: it takes it when it starts" in out) == (1, True)


def test_without_etcd_nothing_is_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with etcd_in(tmp_path / "etcd") as server:
        mesh = Mesh(tmp_path, (server, tmp_path / "etcd"), capsys)
    code, _, err = mesh("debug")
    assert (code, "nothing was changed" in err) == (1, True), err
    assert mesh()[0] == 1
