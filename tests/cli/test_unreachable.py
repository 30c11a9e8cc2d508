"""Every command ends in time when etcd, Ray or both do not answer; it says which, and what it does know."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mesh.cluster.find import record
from mesh.cluster.lifecycle import planned
from mesh.cluster.run import load_run, save_plan, save_run
from mesh.registry.embedded import EmbeddedEtcd
from tests.support.freezing import frozen
from tests.support.ports import free_port
from tests.support.settings import begun, etcd_in, write_file

_numbers = itertools.count()

# Seconds for all commands at the same time. Each has 10 s by itself.
DEADLINE = 60.0

MORE = ("queue_messages: 1000", "queue_messages: 2000")
READING = {
    "status": ["status", "FILE", "--json"],
    "plan": ["plan", "FILE"],
    "history": ["history", "FILE"],
    "where": ["where", "CAR-1", "--topology", "FILE"],
    "pub": ["pub", "vehicles/CAR-1/cmd", "on", "--topology", "FILE"],
    "sub": ["sub", "vehicles/#", "--topology", "FILE"],
    "dead-letters": ["dead-letters", "list", "--topology", "FILE"],
    "settings": ["settings", "--topology", "FILE"],
    "ban": ["ban", "add", "vehicle", "CAR-1", "--topology", "FILE"],
    "kick": ["kick", "CAR-1", "--topology", "FILE"],
    "audit": ["audit", "FILE"],
    "up": ["up", "FILE"],
    "back": ["up", "FILE", "--revision", "1"],
}


@dataclass
class Said:
    code: int
    out: str
    err: str


class Mesh:
    """A mesh on a Ray cluster, as its files and etcd say."""

    def __init__(self, folder: Path, etcd: tuple[EmbeddedEtcd, Path], ray: str) -> None:
        self.ray, self._etcd = ray, etcd
        name = f"u-{os.getpid()}-{next(_numbers)}"
        place = ("data: data", "data: data" if ray == "local" else f'data: data\nray: "{ray}"')
        self.file = write_file(folder, name, *etcd, place)
        self.topology = begun(self.file)
        save_plan(replace(planned(self.topology), revision=1))
        if ray != "local":
            run = load_run(self.topology.data)
            assert run is not None
            save_run(replace(run, ray=ray, address=ray, namespace="mesh-u", supervisor=0))
            assert record(self.topology, replace(run, ray=ray, address=ray, namespace="mesh-u", supervisor=0)) == ""
        write_file(folder, name, *etcd, place, MORE)

    def say(self, words: list[str]) -> Said:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mesh.cli.main", *(str(self.file) if one == "FILE" else one for one in words)],
            capture_output=True, text=True, timeout=DEADLINE, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def all(self) -> dict[str, Said]:
        with ThreadPoolExecutor(len(READING)) as threads:
            return dict(zip(READING, threads.map(self.say, READING.values()), strict=True))


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[tuple[EmbeddedEtcd, Path]]:
    with etcd_in(tmp_path / "etcd") as server:
        yield server, tmp_path / "etcd"


@pytest.fixture
def silent_ray() -> Iterator[str]:
    """An address that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def without_etcd(said: dict[str, Said]) -> None:
    """What every command says of an etcd that does not answer, and what it knows without it."""
    for name, one in said.items():
        assert "etcd does not answer: no answer from https://127.0.0.1:" in one.err, (name, one)
    assert (said["plan"].code, said["history"].code, said["where"].code) == (5, 1, 1), said
    assert "live     limits.queue_messages  1000 -> 2000" in said["plan"].out
    assert "compared with the settings in the data folder, of the last start or change" in said["plan"].out
    assert "only etcd has it" in said["history"].err
    assert "the edge of CAR-1 is not known: only etcd has it" in said["where"].err
    assert "the nodes can be asked through etcd only" in said["settings"].err
    assert (said["settings"].code, said["back"].code) == (1, 1)
    assert "nothing was changed in mesh" in said["back"].err
    assert "etcd does not answer, and only etcd has the earlier revisions" in said["back"].err
    for name in ("ban", "kick", "audit"):
        assert (said[name].code, said[name].out) == (1, ""), said[name]
        assert "etcd, which keeps it, does not answer" in said[name].err
    assert said["up"].code == 1
    assert "nothing was changed in mesh" in said["up"].err
    assert "is not up" not in said["up"].err


def reaches_no_core(said: dict[str, Said]) -> None:
    for name in ("pub", "sub", "dead-letters"):
        assert (said[name].code, "cannot connect to 127.0.0.1:18840" in said[name].err) == (1, True), said[name]


def without_ray(said: dict[str, Said], mesh: Mesh) -> None:
    shown = json.loads(said["status"].out)
    assert (said["status"].code, shown["state"]) == (1, "unreachable")
    assert {row["name"]: row["state"] for row in shown["nodes"]} == dict.fromkeys(
        ("edge-1", "edge-2", "core", "door"), "unreachable"
    )
    for name in ("status", "up"):
        assert f"Ray at {mesh.ray} did" in said[name].err or f"Ray at {mesh.ray} does" in said[name].err, said[name]


def test_etcd_is_frozen_and_ray_is_gone(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path]) -> None:
    mesh = Mesh(tmp_path, etcd, f"127.0.0.1:{free_port()}")
    with frozen(etcd[0].pid):
        said = mesh.all()
        without_etcd(said)
        without_ray(said, mesh)
        reaches_no_core(said)
        down = mesh.say(["down", "FILE"])
    assert down.code == 1
    assert "could not be stopped: Ray at" in down.err
    assert "etcd does not answer, so whether nodes run on other machines is not known" in down.err


def test_etcd_and_ray_are_frozen(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path], silent_ray: str) -> None:
    mesh = Mesh(tmp_path, etcd, silent_ray)
    with frozen(etcd[0].pid):
        said = mesh.all()
        without_etcd(said)
        without_ray(said, mesh)
        down = mesh.say(["down", "FILE"])
    assert (down.code, f"Ray at {silent_ray} did not answer" in down.err) == (1, True), down


def test_ray_is_frozen(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path], silent_ray: str) -> None:
    mesh = Mesh(tmp_path, etcd, silent_ray)
    said = mesh.all()
    without_ray(said, mesh)
    reaches_no_core(said)
    assert json.loads(said["status"].out)["revision"] == 1
    assert (said["plan"].code, "compared with revision 1" in said["plan"].out) == (5, True)
    assert (said["history"].code, "(in force)" in said["history"].out) == (0, True)
    assert (said["where"].code, "CAR-1 has no edge yet" in said["where"].err) == (4, True)
    assert (said["up"].code, "nothing was changed in mesh" in said["up"].err) == (1, True)
    down = mesh.say(["down", "FILE"])
    assert (down.code, "was not running" in down.out) == (0, True), down
    assert f"Ray at {silent_ray} did not answer" in down.err


def test_etcd_of_a_mesh_on_this_machine_is_frozen(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path]) -> None:
    mesh = Mesh(tmp_path, etcd, "local")
    with frozen(etcd[0].pid):
        said = mesh.all()
    reaches_no_core(said)
    assert "etcd does not answer" in said["status"].err
    assert {row["name"] for row in json.loads(said["status"].out)["nodes"]} == {"edge-1", "edge-2", "core", "door"}
    assert "live     limits.queue_messages  1000 -> 2000" in said["plan"].out
    assert "etcd does not answer" in said["plan"].err
    assert (said["history"].code, said["where"].code) == (1, 1)
    assert (said["up"].code, said["up"].err.partition(" in mesh")[0]) == (1, "nothing was changed")
