"""``mesh settings`` on a real mesh in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from mesh.cli.main import main
from tests.cli.running import running_mesh


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    extra = 'limits: {queue_messages: 77}\nconsole: "127.0.0.1:0"\n'
    with running_mesh(tmp_path_factory.mktemp("settings"), extra) as path:
        yield str(path)


def test_every_node_says_what_its_parts_have(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--json", "--topology", file]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(found) == ["console", "core", "door", "edge-1"]
    for name in ("core", "edge-1"):
        assert found[name]["settings"]["broker"]["max_queue_messages"] == 77
    pools = {"standard": {"prefix": "", "edges": {"edge-1": 100}}}
    assert all(found[name]["settings"]["pools"] == pools for name in ("core", "door", "edge-1"))


def test_passwords_are_not_shown(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "core", "--topology", file]) == 0
    out = capsys.readouterr().out
    assert "clients.providers.users.users.control = " in out
    assert "secret" not in out
    assert "door" not in {line.split()[0] for line in out.splitlines()}


def test_without_a_node_each_has_a_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--topology", file]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["console", "core", "door", "edge-1"]


def test_an_unknown_node_is_named(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "edge-9", "--topology", file]) == 2
    assert "no node 'edge-9'; it has console, core, door, edge-1" in capsys.readouterr().err
