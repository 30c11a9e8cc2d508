"""Secrets of a whole real mesh come from files and the environment, and are in no output, log, file, process argument
or key of etcd."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from mesh.cluster.lifecycle import down
from mesh.cluster.run import load_run, topology_of
from mesh.node.registry import client_of
from mesh.policy.secrets import FILE, MeshSecret, read
from mesh.registry import etcd_pb2 as pb
from mesh.topology.load import load
from mesh.wire.packets import MQTT5, Disconnect, Publish, SubAck, Subscribe, Subscription
from tests.support.bare import Bare
from tests.support.loop import LoopThread
from tests.support.ports import free_ports
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.ray

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"
OF_FILE: Final = "correct-horse-of-a-file"
OF_VARIABLE: Final = "battery-staple-of-a-variable"
CHANGED: Final = "correct-horse-changed"
REFUSED: Final = "correct-horse-that-others-can-read"
SECRETS: Final = (OF_FILE, OF_VARIABLE, CHANGED, REFUSED)
BACK_ENDS: Final = """\
  anonymous: false
  users:
    - {user: app, password: {file: app.secret}}
    - {user: job, password: {env: MESH_TEST_JOB_PASSWORD}}

"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    vehicles, backends = free_ports(2)
    text = LOCAL.read_text().replace("1883", str(vehicles)).replace("1884", str(backends))
    path = tmp_path / "local.yaml"
    text = text.replace("../.mesh/local", "data").replace(", {name: edge-2}", "")
    head, _, tail = text.partition("  anonymous: true")
    path.write_text(head + BACK_ENDS + tail[tail.index("pools:") :])
    write(tmp_path, OF_FILE)
    yield path
    down(tmp_path / "data")


def write(folder: Path, secret: str, mode: int = 0o600) -> None:
    draft = folder / "draft"
    draft.touch(mode)
    draft.write_text(f"{secret}\n")
    draft.chmod(mode)
    draft.rename(folder / "app.secret")


class Command:
    """Runs the ``mesh`` command, and keeps all that it prints."""

    def __init__(self) -> None:
        self.printed = ""
        self.last = ""  # stdout of the last command

    def __call__(self, *words: str) -> int:
        environment = {**os.environ, "MESH_TEST_JOB_PASSWORD": OF_VARIABLE}
        command = [sys.executable, "-P", "-m", "mesh.cli.main", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
        self.last = done.stdout
        self.printed += done.stdout + done.stderr
        return done.returncode


def arguments() -> str:
    """The arguments of all processes of this machine."""
    return "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))


async def stored(data: Path) -> bytes:
    """All keys and values of the mesh's etcd."""
    run = load_run(data)
    assert run is not None
    client = client_of(topology_of(run), run.endpoints)
    try:
        answer = await client.range(pb.RangeRequest(key=b"\0", range_end=b"\0"))
        assert answer.count > 0
        return b"\n".join(pair.key + b" " + pair.value for pair in answer.kvs)
    finally:
        await client.close()


def in_files(data: Path) -> list[str]:
    """The files of the data folder that have a secret."""
    found = []
    for path in data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [str(path) for secret in SECRETS if secret.encode() in content]
    return found


def test_secrets_are_used_and_never_shown(file: Path) -> None:
    mesh = Command()
    place = ("--topology", str(file))
    assert mesh("check", str(file)) == 0, mesh.printed
    assert mesh("up", str(file), "--detach") == 0, mesh.printed

    def publishes(user: str) -> bool:
        return mesh("pub", "vehicles/VIN1/cmd/x", "m", "--user", user, *place) == 0

    assert publishes("app"), mesh.printed
    assert publishes("job"), mesh.printed
    write(file.parent, CHANGED)
    wait_until(lambda: publishes("app"), seconds=30.0)
    write(file.parent, REFUSED, mode=0o644)
    log = file.parent / "data" / "logs" / "core.log"
    wait_until(lambda: "other users could read it" in log.read_text(), "the fault")
    write(file.parent, CHANGED)
    text = file.read_text()
    file.write_text(text.replace("{user: job, ", "{user: other, "))
    assert mesh("plan", str(file)) == 5, mesh.printed
    assert mesh("up", str(file), "--detach") == 0, mesh.printed
    assert publishes("other"), mesh.printed
    for words in (["status", "--json"], ["settings"], ["settings", "--json"], ["history"]):
        assert mesh(*words, *place) == 0, mesh.printed
    data = file.parent / "data"
    assert "app.secret" in (data / "plan.json").read_text()
    assert [secret for secret in SECRETS if secret in mesh.printed] == []
    assert [secret for secret in SECRETS if secret in arguments()] == []
    keys = asyncio.run(stored(data))
    assert b"MESH_TEST_JOB_PASSWORD" in keys
    assert [secret for secret in SECRETS if secret.encode() in keys] == []
    assert in_files(data) == []


def test_the_mesh_secret_is_exchanged_and_no_vehicle_is_closed(file: Path) -> None:
    """Nodes that start later have the new secret, although their assignment has the old one."""
    mesh = Command()
    place = ("--topology", str(file))
    assert mesh("up", str(file), "--detach") == 0, mesh.printed
    data = file.parent / "data"
    before = read(data / FILE)
    loop = LoopThread()
    try:
        vehicle = loop.run(_vehicle(load(file).front_doors[0].listen[0].address.port), PATIENCE)
        assert mesh("secret", "rotate", str(file)) == 0, mesh.printed
        after = read(data / FILE)
        assert after != before
        for name in ("edge-1", "core"):
            process = process_of(mesh, place, name)
            os.kill(process, signal.SIGKILL)
            wait_until(lambda: process_of(mesh, place, name) not in (0, process), f"{name} is back", seconds=60.0)  # noqa: B023
        wait_until(lambda: mesh("pub", "vehicles/VIN1/cmd/x", "m", "--user", "app", *place) == 0, "the links are back")
        loop.run(vehicle.wait(Publish), PATIENCE)
        assert not [packet for packet in vehicle.packets if isinstance(packet, Disconnect)]
        mesh("settings", "--json", *place)
        marks = {name: one["settings"]["proofs"] for name, one in last_json(mesh).items()}
        assert marks == dict.fromkeys(("edge-1", "core", "door"), MeshSecret(after).marks())
        loop.run(vehicle.close(), PATIENCE)
    finally:
        loop.close()
    assert before.hex() not in mesh.printed
    assert after.hex() not in mesh.printed
    assert after.hex() not in arguments()
    keys = asyncio.run(stored(data))
    assert not [one for one in (before, after) if one in keys or one.hex().encode() in keys]


def process_of(mesh: Command, place: tuple[str, str], name: str) -> int:
    """The process id of a node that is ready; else 0."""
    if mesh("status", "--json", *place) != 0:
        return 0
    rows = {row["name"]: row for row in last_json(mesh)["nodes"]}
    return int(rows[name]["pid"]) if rows[name]["state"] == "ready" else 0


def last_json(mesh: Command) -> Any:
    return json.loads(mesh.last)


async def _vehicle(port: int) -> Bare:
    client = await Bare(MQTT5).hello(port, "VIN1")
    client.send(Subscribe(1, [Subscription("vehicles/VIN1/cmd/#", 1)]))
    await client.wait(SubAck)
    return client
