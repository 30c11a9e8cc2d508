"""Finding the run of a mesh, with a copy in the data folder that is missing, damaged or out of date."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cluster.find import find
from mesh.cluster.lifecycle import NotDown, clear, planned, stop
from mesh.cluster.processes import started
from mesh.cluster.run import RUNNING, SUPERVISOR, Run, load_run, run_path, running, save_plan, save_run
from mesh.cluster.run import replace as replace_file
from mesh.topology.load import load
from mesh.topology.topology import Topology
from tests.support.topologies import topology as write_topology
from tests.support.waiting import wait_until


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    folder = tmp_path / "shop"
    folder.mkdir()
    return load(write_topology(folder, 18830, 18840, ["edge-1"]))


@pytest.fixture
def supervisor(topology: Topology) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the command line of a supervisor of this mesh."""
    save_plan(planned(topology))
    code = "import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, SUPERVISOR, str(topology.data), "--topology", "m.yaml"])
    wait_until(lambda: started(process.pid) is not None)
    yield process
    process.kill()
    process.wait()


def copy_of(topology: Topology, pid: int) -> Run:
    since = started(pid) or 0.0
    return Run(topology.mesh, "m.yaml", str(topology.data), "local", "", "", (), pid, since, RUNNING)


@pytest.mark.parametrize("damage", ["deleted", "{", '{"mesh": "m"}', "[]", "stale"])
def test_a_mesh_is_found_without_its_run_file(
    topology: Topology, supervisor: subprocess.Popen[bytes], damage: str
) -> None:
    if damage == "stale":
        save_run(replace(copy_of(topology, os.getpid()), since=1.0))
    elif damage != "deleted":
        replace_file(run_path(topology.data), damage)
    found = find(topology)
    assert found.alive
    assert found.run is not None
    assert (found.run.supervisor, found.run.topology, found.run.mesh) == (supervisor.pid, "m.yaml", topology.mesh)
    assert [run.supervisor for run in running() if run.data == str(topology.data)] == [supervisor.pid]


def test_a_mesh_that_has_ended_is_not_alive(topology: Topology) -> None:
    assert not find(topology).alive
    planned(topology)
    save_run(replace(copy_of(topology, os.getpid()), since=1.0))
    found = find(topology)
    assert (found.alive, found.run) == (False, load_run(topology.data))


def test_keys_of_another_version_are_ignored(topology: Topology) -> None:
    planned(topology)
    run = copy_of(topology, os.getpid())
    save_run(run)
    text = run_path(topology.data).read_text()
    replace_file(run_path(topology.data), text.replace('"mesh"', '"later": 1, "mesh"', 1))
    assert load_run(topology.data) == run


def test_down_does_not_claim_to_have_stopped_a_mesh_of_another_machine(topology: Topology) -> None:
    run = replace(copy_of(topology, os.getpid()), host="far-away")
    with pytest.raises(NotDown, match="runs on far-away: run 'mesh down' there"):
        stop(run)


def test_the_host_of_this_machine_is_here(topology: Topology) -> None:
    assert replace(copy_of(topology, os.getpid()), host=socket.gethostname()).here


def test_nothing_is_ended_here_for_a_run_of_another_machine(topology: Topology) -> None:
    """Its numbers of processes are those of other processes here."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        wait_until(lambda: started(child.pid) is not None)
        clear(replace(copy_of(topology, child.pid), host="far-away"))
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
