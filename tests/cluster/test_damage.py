"""A whole real mesh with damaged journals: their edges stay down, all others serve, and they start with the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.cluster.lifecycle import down
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.long]

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The example topology, with a third edge, on free ports; afterwards its mesh is stopped."""
    vehicles, backends = free_ports(2)
    text = LOCAL.read_text().replace("1883", str(vehicles)).replace("1884", str(backends))
    path = tmp_path / "local.yaml"
    edge = "{name: edge-2}"
    assert edge in text
    path.write_text(text.replace("../.mesh/local", "data").replace(edge, f"{edge}, {{name: edge-3}}"))
    yield path
    down(tmp_path / "data")


def mesh(file: Path, *words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-P", "-m", "mesh.cli.main", *words, "--topology", str(file)]
    if words[0] == "up":
        command = [*command[:-2], str(file), "--detach"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def states(file: Path) -> dict[str, tuple[str, str]]:
    rows = json.loads(mesh(file, "status", "--json")[1])["nodes"]
    return {row["name"]: (row["state"], row["detail"]) for row in rows}


def test_edges_with_damaged_journals_stay_down_alone(file: Path) -> None:
    journals = {name: file.parent / "data" / "nodes" / name / "journal" for name in ("edge-1", "edge-2", "edge-3")}
    assert mesh(file, "up")[0] == 0
    owner = {}
    for number in range(40):
        vehicle = f"CAR-{number}"
        code, _, err = mesh(file, "pub", f"vehicles/{vehicle}/cmd/x", "wait for it", "--qos", "1")
        assert code == 0, err
        owner[vehicle] = json.loads(mesh(file, "where", vehicle, "--json")[1])["edge"]
        if set(owner.values()) == set(journals):
            break
    assert mesh(file, "down")[0] == 0

    newest = sorted(journals["edge-1"].glob("*.log"))[-1]
    newest.unlink()
    shutil.rmtree(journals["edge-2"].parent)
    code, out, err = mesh(file, "up")
    assert (code, "is ready" in out, "edge-1" in err, newest.name in err) == (4, True, True, True), (out, err)
    found = states(file)
    assert (found["edge-1"][0], found["edge-2"][0]) == ("damaged", "damaged")
    assert newest.name in found["edge-1"][1]
    assert "the journal is missing" in found["edge-2"][1]
    assert {state for name, (state, _) in found.items() if name not in ("edge-1", "edge-2")} == {"ready"}
    served = next(vehicle for vehicle, edge in owner.items() if edge == "edge-3")
    assert mesh(file, "pub", f"vehicles/{served}/cmd/x", "served", "--qos", "1")[0] == 0

    code, out, _ = mesh(file, "journal", "verify", "edge-1", "--json")
    lost = json.loads(out)
    assert (code, lost["state"], lost["lost_records"][0]["first"]) == (4, "damaged", 1)
    assert mesh(file, "journal", "verify", "edge-3")[0] == 0
    assert mesh(file, "journal", "salvage", "edge-1", "--yes")[0] == 0
    wait_until(lambda: states(file)["edge-1"][0] == "ready")
    assert states(file)["edge-2"][0] == "damaged"
    assert mesh(file, "journal", "salvage", "edge-2", "--yes")[0] == 0
    wait_until(lambda: states(file)["edge-2"][0] == "ready")
    assert mesh(file, "status")[0] == 0
