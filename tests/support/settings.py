"""A mesh without Ray for tests of its settings: a real etcd, and nodes that only vote."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, final

from mesh.cluster.known import ask
from mesh.cluster.processes import started
from mesh.cluster.run import RUNNING, Run, save_run
from mesh.node.registry import client_of
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd, client_tls
from mesh.registry.keys import Keys
from mesh.registry.members import Announcement
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.load import load
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology, as_dict
from tests.support.loop import LoopThread

Result = TypeVar("Result")

TEXT = """\
mesh: {name}
etcd: {{endpoints: ["{etcd}"], tls: {{ca: "{ca}", cert: "{cert}", key: "{key}"}}}}
identity: {{from: username, pattern: "[A-Z0-9-]{{1,32}}"}}
topics: {{vehicle: "vehicles/{{vehicle}}/#"}}
front_doors: [{{name: door, listen: [{{mqtt: "127.0.0.1:18830"}}]}}]
cores: [{{name: core, listen: [{{mqtt: "127.0.0.1:18840"}}]}}]
backends: {{anonymous: true}}
pools: [{{name: standard, edges: [{{name: edge-1}}, {{name: edge-2}}]}}]
limits: {{queue_messages: 1000}}
data: data
"""


@contextmanager
def etcd_in(folder: Path) -> Iterator[EmbeddedEtcd]:
    """A running etcd that no mesh has started."""
    loop = LoopThread()
    server = EmbeddedEtcd(folder)
    loop.run(server.start(), 60.0)
    try:
        yield server
    finally:
        loop.run(server.stop(), 60.0)
        loop.close()


def write_file(folder: Path, name: str, etcd: EmbeddedEtcd, etcd_folder: Path, *changes: tuple[str, str]) -> Path:
    """The topology file of a mesh on this etcd, with changes of its text."""
    tls = client_tls(etcd_folder)
    text = TEXT.format(name=name, etcd=etcd.endpoint, ca=tls.ca, cert=tls.cert, key=tls.key)
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file = folder / "mesh.yaml"
    file.write_text(text)
    return file


def question(topology: Topology, answer: Callable[[EtcdClient], Awaitable[Result]]) -> Result:
    return ask(topology, topology.etcd.endpoints, answer)


def begun(file: Path, *changes: str) -> Topology:
    """Make the settings of a file the first revision of its mesh, and record that it runs, as this process."""
    topology = load(file)
    revision = Revision(0, as_dict(topology), 1.0, "tester", "here", changes)
    question(topology, lambda client: SettingsStore(client, topology.mesh).first(revision))
    topology.data.mkdir(mode=0o700, exist_ok=True)
    pid = os.getpid()
    save_run(
        Run(
            topology.mesh, str(file), str(topology.data), "local", "", "", topology.etcd.endpoints, pid,
            started(pid) or 0.0, RUNNING,
        )
    )  # fmt: skip
    return topology


@final
class VotingNodes:
    """The nodes of a topology: announced, and with a vote and a confirmation for each proposal. ``errors``: what nodes
    say against each; ``silent``: nodes that do not vote; ``tired``: nodes that do not confirm."""

    def __init__(self, topology: Topology, without: frozenset[str] = frozenset()) -> None:
        self._topology = topology
        self._names = {spec.name: spec.role for spec in nodes(topology) if spec.name not in without}
        self._loop = LoopThread()
        self.errors: Mapping[str, str] = {}
        self.silent: frozenset[str] = frozenset()
        self.tired: frozenset[str] = frozenset()
        self.seen: list[int] = []
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> VotingNodes:
        self._loop.run(self._start(), 30.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._stop(), 30.0)
        self._loop.close()

    async def _start(self) -> None:
        self._client = client_of(self._topology, self._topology.etcd.endpoints)
        self._keys = Keys(self._topology.mesh)
        self._announced = [
            Announcement(self._client, self._topology.mesh, name=name, role=role, host="127.0.0.1", ports={}, ttl=5)
            for name, role in self._names.items()
        ]
        for one in self._announced:
            await one.start(10.0)
        self._task = asyncio.create_task(self._follow())

    async def _stop(self) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        for one in self._announced:
            await one.stop()
        await self._client.close()

    async def _follow(self) -> None:
        while True:
            proposed = await self._number(self._keys.proposed)
            if proposed and proposed not in self.seen:
                self.seen.append(proposed)
                for name in self._names.keys() - self.silent:
                    await self._say(self._keys.votes, name, {"revision": proposed, "error": self.errors.get(name, "")})
            current = await self._number(self._keys.current)
            for name in self._names.keys() - self.tired if current else ():
                await self._say(self._keys.confirmed, name, {"revision": current, "error": "", "at": 1.0})
            await asyncio.sleep(0.02)

    async def _number(self, key: bytes) -> int:
        found = await self._client.get(key)
        return 0 if found is None else int(json.loads(found.value)["revision"])

    async def _say(self, prefix: bytes, name: str, value: dict[str, Any]) -> None:
        await self._client.put(prefix + name.encode(), json.dumps(value).encode())
