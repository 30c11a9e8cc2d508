"""Calls of a Ray that does not answer end at their deadline, with a sentence and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.cluster import raycalls
from mesh.cluster.raycalls import Absent, Unreached
from mesh.cluster.run import RUNNING, Run
from tests.support.ports import free_port


def at(port: int) -> Run:
    address = f"127.0.0.1:{port}"
    return Run("m", "", "/nowhere", address, address, "mesh-m", (), 0, 1.0, RUNNING)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: int) -> Path:
    """The package whose ``rayprocess`` the calls run; a test writes it."""
    package = tmp_path / "mesh" / "cluster"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    monkeypatch.setattr(raycalls, "python_path", lambda inherited: str(tmp_path))
    return package / "rayprocess.py"


def test_a_dead_port_is_told_at_once() -> None:
    with pytest.raises(Unreached, match=r"Ray at 127\.0\.0\.1:\d+ does not answer: Connection refused"):
        raycalls.snapshot(at(free_port()))


def test_a_silent_port_is_given_up_at_the_deadline(
    silent: int, program: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program.write_text("import sys, time\nprint('a warning', file=sys.stderr, flush=True)\ntime.sleep(60)\n")
    with pytest.raises(Unreached, match="did not answer within 1 s"):
        raycalls.snapshot(at(silent), deadline=1.0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ('["absent", "it has no controller"]', Absent, "it has no controller"),
        ('["unreached", "no answer"]', Unreached, "no answer"),
        ("Traceback", Unreached, "ended with code 0 and no answer"),
        ("", Unreached, "ended with code 0 and no answer"),
    ],
)
def test_the_last_line_is_the_answer(silent: int, program: Path, line: str, kind: type[Exception], said: str) -> None:
    program.write_text(f"print('Ray says')\nprint({line!r})\n")
    with pytest.raises(kind, match=said):
        raycalls.snapshot(at(silent))


def test_a_snapshot_is_returned(silent: int, program: Path) -> None:
    program.write_text(
        'print(\'["answered", {"mesh": "m", "state": "ready", "written": 0.0, "note": "", "nodes": '
        '[{"name": "edge-1", "role": "edge", "state": "ready", "age": 1.5}]}]\')\n'
    )
    (row,) = raycalls.snapshot(at(silent)).nodes
    assert (row.name, row.state, row.age) == ("edge-1", "ready", 1.5)
