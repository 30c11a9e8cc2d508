"""The demonstration as a user runs it, with Ray, real processes and a real crash."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import mesh
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".mesh" / "demo"

# It takes half a minute; a busy machine may need longer.
SECONDS = 240.0

pytestmark = [pytest.mark.e2e, pytest.mark.ray]


def demo(*words: str) -> subprocess.Popen[str]:
    """Start the demonstration on the package under test."""
    places = [str(Path(mesh.__path__[0]).parent), str(ROOT)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tools.demonstration", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_over() -> list[str]:
    """The command lines of processes of the demonstration that still run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(HOME) in line and process.pid != os.getpid():
            found.append(line)
    return found


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert left_over() == []


def test_the_demo_loses_no_message_and_no_connection() -> None:
    process = demo()
    said, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said + errors
    assert errors == ""
    assert re.search(r"edge-\d was killed \(kill -9 \d+\) and restarted after [\d.]+ s as process \d+", said)
    sums = re.search(r"commands to vehicles +(\d+) +(\d+) +0\n", said)
    assert sums is not None, said
    assert sums[1] == sums[2]
    assert int(sums[1]) > 100
    assert re.search(r"connections dropped +0\n", said)
    # The trace of one command, through all three kinds of nodes.
    assert all(re.search(rf"vehicles/{{vehicle}}/cmd +{node}", said) for node in ("core", "edge-[12]", "door"))
    assert "Nothing was lost, and no vehicle's connection was dropped." in said


def test_an_interrupted_demo_leaves_no_process() -> None:
    process = demo()
    assert process.stdout is not None
    assert "the mesh starts" in process.stdout.readline()
    wait_until(lambda: left_over() or process.poll() is not None, "its mesh is coming up", seconds=60.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
