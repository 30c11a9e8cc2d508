"""``mesh journal`` on the folder of a mesh that does not run."""

from __future__ import annotations

import json
from pathlib import Path
from queue import SimpleQueue

import pytest

from mesh.broker.records import DELIVERY, SESSION
from mesh.cli.main import main
from mesh.journal import Journal, JournalLimits
from mesh.journal.layout import HEADER_SIZE

TOPOLOGY = """\
mesh: damaged
etcd: embedded
identity: {from: username}
topics: {vehicle: "vehicles/{vehicle}/#"}
front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:1883"}]}]
cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]
pools: [{name: standard, edges: [{name: edge-1}]}]
data: data
"""


def meta(name: str, client: str) -> bytes:
    return json.dumps([2, name, client, name, 3600, 0, 64, 0, 0, 5, False, 1]).encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The topology of a mesh whose edge has a session with three messages, each in a segment of its own."""
    path = tmp_path / "mesh.yaml"
    path.write_text(TOPOLOGY)
    limits = JournalLimits(segment=256)
    journal = Journal.open(folder(path), limits=limits, notify=SimpleQueue().put)
    journal.append(SESSION, 9, meta("CAR-7", "c1"), b"")
    for _ in range(3):
        journal.append(DELIVERY, 9, b"m" * 50, b"b" * 200)
        journal.commit()
        while journal.backlog_bytes:
            journal._drain()
    journal.close()
    return path


def folder(file: Path) -> Path:
    return file.parent / "data" / "nodes" / "edge-1" / "journal"


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def call(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> tuple[int, str, str]:
    code = main(["journal", *words, "--topology", str(file)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_whole_journal(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, file, "verify", "edge-1", "--json")
    found = json.loads(out)
    assert (code, found["state"], found["faults"], found["lost_items"]) == (0, "whole", [], [])
    code, out, _ = call(capsys, file, "inspect", "edge-1", "--json")
    found = json.loads(out)
    assert (code, found["kinds"]) == (0, {"session": 1, "message": 3})
    assert found["sessions"] == [{"name": "CAR-7", "client": "c1", "messages": 3}]
    code, out, _ = call(capsys, file, "inspect", "edge-1")
    assert (code, "CAR-7 / c1: 3 messages wait" in out) == (0, True)
    code, out, _ = call(capsys, file, "salvage", "edge-1", "--yes")
    assert (code, "nothing was changed" in out) == (0, True)


def test_a_damaged_message_is_named_and_salvage_keeps_the_rest(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment = sorted(folder(file).glob("*.log"))[1]
    flip(segment, HEADER_SIZE + 28 + 26 + 50 + 20)
    code, out, _ = call(capsys, file, "verify", "edge-1")
    assert (code, f"{segment.name}: the frame at byte {HEADER_SIZE} is damaged" in out) == (4, True)
    assert "kind message" in out
    assert "name CAR-7, client c1" in out
    names = sorted(path.name for path in folder(file).iterdir())
    code, out, err = call(capsys, file, "salvage", "edge-1")
    assert (code, "--yes" in err) == (4, True)
    assert sorted(path.name for path in folder(file).iterdir()) == names
    code, out, _ = call(capsys, file, "salvage", "edge-1", "--yes", "--json")
    done = json.loads(out)
    assert (code, done["kept"], done["lost"], done["before"]["state"]) == (0, 3, 1, "damaged")
    code, out, _ = call(capsys, file, "verify", "edge-1", "--json")
    assert (code, json.loads(out)["kept_items"]) == (0, 3)


def test_what_cannot_be_done_is_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, file, "verify", "edge-9")
    assert (code, "there are edge-1, core" in err or "there are core, edge-1" in err) == (1, True)
    code, out, _ = call(capsys, file, "verify", "core")
    assert (code, "absent" in out and "was not asked" in out) == (1, True)
    journal = Journal.open(folder(file), notify=SimpleQueue().put)
    flip(sorted(folder(file).glob("*.log"))[0], HEADER_SIZE + 60)
    code, out, _ = call(capsys, file, "verify", "edge-1")
    assert (code, "in use" in out) == (4, True)
    journal.close()
