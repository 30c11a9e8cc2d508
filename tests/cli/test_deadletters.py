"""``mesh dead-letters`` on a running mesh."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from mesh.cli.main import main
from mesh.topology.load import load
from tests.cli.filled import ROOM, client, fill
from tests.cli.running import running_mesh
from tests.support.waiting import wait_until

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_mesh(tmp_path_factory.mktemp("mesh"), f"limits: {{queue_messages: {ROOM}}}") as file:
        yield str(file)


def letters(mesh: str, capsys: Captured, action: str, *words: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["dead-letters", action, *words, "--json", "--topology", mesh]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_letters_are_listed_shown_and_purged(mesh: str, capsys: Captured) -> None:
    fill(mesh, "CAR-1", 3)
    fill(mesh, "CAR-2", 1)
    found = letters(mesh, capsys, "list")
    assert [(one["topic"], one["share"], one["reason"]) for one in found] == [
        *[("vehicles/CAR-1/other", "vehicle/CAR-1", "queue full")] * 3,
        ("vehicles/CAR-2/other", "vehicle/CAR-2", "queue full"),
    ]
    shown = letters(mesh, capsys, "show", "vehicles/CAR-1/#")
    assert [one["payload"] for one in shown] == ["2", "3", "4"]
    assert main(["dead-letters", "list", "--topology", mesh]) == 0
    assert "queue full        vehicle/CAR-2  vehicles/CAR-2/other 1 B" in capsys.readouterr().out
    assert letters(mesh, capsys, "purge", "vehicles/CAR-1/#") == [{"purged": 3, "expired": 0, "error": None}]
    assert [one["share"] for one in letters(mesh, capsys, "list")] == ["vehicle/CAR-2"]
    assert letters(mesh, capsys, "purge", "#")[0]["purged"] == 1
    assert letters(mesh, capsys, "list") == []


def test_a_replay_that_is_refused_leaves_the_letter(mesh: str, capsys: Captured) -> None:
    fill(mesh, "CAR-3", 2)
    assert main(["dead-letters", "replay", "vehicles/CAR-3/#", "--topology", mesh]) == 1
    said = capsys.readouterr()
    assert "0 letters replayed" in said.out
    assert "the message on vehicles/CAR-3/other was refused" in said.err
    assert len(letters(mesh, capsys, "list", "vehicles/CAR-3/#")) == 2
    came: list[bytes] = []
    car = client(load(mesh).front_doors[0].listen[0].address, "CAR-3", True, came)
    wait_until(lambda: came == [b"0", b"1"])
    assert letters(mesh, capsys, "replay", "vehicles/CAR-3/#") == [{"replayed": 2, "expired": 0, "error": None}]
    wait_until(lambda: came == [b"0", b"1", b"2", b"3"])
    car.disconnect()
    car.loop_stop()
    assert letters(mesh, capsys, "list", "vehicles/CAR-3/#") == []


def test_purge_needs_a_filter(mesh: str, capsys: Captured) -> None:
    assert main(["dead-letters", "purge", "--topology", mesh]) == 2
    assert "'#' for all" in capsys.readouterr().err
