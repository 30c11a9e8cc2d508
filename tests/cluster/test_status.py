"""The file with the status of a mesh, on a full disk too."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cluster import run
from mesh.cluster.actors import Rounds
from mesh.cluster.controller import Controller
from mesh.cluster.look import status_of
from mesh.cluster.run import RUNNING, Run, status_path
from mesh.cluster.status import NodeRow, Snapshot, load_status, save_status
from tests.cluster.meshes import fake_plan
from tests.fakes.cluster import FakeRuntime

ROWS = (NodeRow("edge-1", "edge", "ready", figures={"mesh_sessions": 7.0}),)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes the disk full for new bytes, or lets it have room again."""
    fdopen = os.fdopen

    def refuse(*arguments: object, **more: object) -> None:
        os.close(int(str(arguments[0])))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def switch(on: bool) -> None:
        monkeypatch.setattr(run.os, "fdopen", refuse if on else fdopen)  # type: ignore[attr-defined]

    return switch


def test_a_full_disk_does_not_keep_the_status_from_being_written(
    tmp_path: Path, full: Callable[[bool], None]
) -> None:
    save_status(tmp_path, Snapshot("m", "ready", ROWS))
    before = load_status(tmp_path)
    assert before is not None
    assert (before.nodes, before.note) == (ROWS, "")
    full(True)
    save_status(tmp_path, Snapshot("m", "ready", (replace(ROWS[0], detail="the journal cannot be written"),)))
    after = load_status(tmp_path)
    assert after is not None
    assert after.written > before.written
    assert after.nodes[0].detail == "the journal cannot be written"
    assert str(tmp_path) in after.note
    assert "No space left" in after.note
    assert [path.name for path in tmp_path.iterdir()] == [status_path(tmp_path).name]
    full(False)
    save_status(tmp_path, Snapshot("m", "ready", ROWS))
    last = load_status(tmp_path)
    assert last is not None
    assert last.note == ""


def test_a_status_that_has_no_room_leaves_out_the_figures(tmp_path: Path, full: Callable[[bool], None]) -> None:
    save_status(tmp_path, Snapshot("m", "ready", ROWS))
    figures = {f"mesh_{number}": 1.0 for number in range(3000)}
    full(True)
    save_status(tmp_path, Snapshot("m", "ready", (replace(ROWS[0], figures=figures),)))
    after = load_status(tmp_path)
    assert after is not None
    assert (after.nodes[0].state, after.nodes[0].figures) == ("ready", {})


def test_the_first_status_on_a_full_disk_is_an_error(tmp_path: Path, full: Callable[[bool], None]) -> None:
    full(True)
    with pytest.raises(OSError, match="No space left"):
        save_status(tmp_path, Snapshot("m", "ready", ROWS))
    assert load_status(tmp_path) is None


def test_status_is_not_unknown_on_a_full_disk(tmp_path: Path, full: Callable[[bool], None]) -> None:
    plan = fake_plan(tmp_path, names=("edge-1",))
    runtime = FakeRuntime()
    controller = Controller(plan, runtime)
    rounds = Rounds(controller, tmp_path, None)
    for _ in range(4):
        controller.tick()
    rounds.write()
    full(True)
    rounds.write()
    this = Run("fake", "", str(tmp_path), "local", "", "", (), os.getpid(), 0.0, RUNNING)
    status = status_of(this)
    assert status.state == "ready"
    assert "cannot be replaced" in status.error
