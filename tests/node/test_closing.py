"""A start that fails, or takes too long, at any of its steps leaves no task behind, and the next one succeeds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from mesh.core import clients as clients_room
from mesh.core import node as core_room
from mesh.core.node import CoreNode
from mesh.edge import node as edge_room
from mesh.edge.node import EdgeNode
from mesh.figures.node import NodeStatus
from mesh.frontdoor import node as door_room
from mesh.frontdoor.node import DoorNode
from mesh.node.closing import close_all, close_together
from mesh.node.config import NodeConfig
from mesh.node.follower import SettingsFollower
from mesh.node.services import Services
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.topology import EtcdSpec
from tests.support.configs import config
from tests.support.loop import run
from tests.support.waiting import until


class Node(Protocol):
    async def start(self) -> None: ...
    async def stop(self, grace: float) -> None: ...
    def status(self) -> NodeStatus: ...


ROLES: dict[str, Callable[[NodeConfig], Node]] = {"edge-1": EdgeNode, "core": CoreNode, "door": DoorNode}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path_factory.mktemp("etcd") / "etcd")
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The nodes of all tests: etcd knows which of them had a journal."""
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes do not wait for the others of the mesh."""
    monkeypatch.setattr(core_room, "_FIRST_LINKS", 0.0)
    monkeypatch.setattr(door_room, "_FIRST_EDGES", 0.0)


def place(name: str, etcd: EmbeddedEtcd, folder: Path) -> NodeConfig:
    found = config(name)
    own = folder / name
    own.mkdir(mode=0o700, exist_ok=True)
    topology = replace(found.topology, etcd=EtcdSpec(), data=etcd.log_file.parent.parent)
    return replace(found, topology=topology, endpoints=(etcd.endpoint,), folder=own)


async def stop(node: Node) -> None:
    """As the host does."""
    with contextlib.suppress(OSError, ValueError):
        await asyncio.wait_for(node.stop(0.2), 5.0)


async def gone(what: str = "") -> None:
    """gRPC ends its own tasks a moment after its channel is closed."""
    await until(lambda: left() == set(), what, 5.0)


def left() -> set[str]:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return {repr(task) for task in others}


class Cut:
    """Cancels the task that awaits it when ``start`` waits for the time number ``at``."""

    def __init__(self, start: Coroutine[Any, Any, None], at: int) -> None:
        self.waits = 0
        self._start = start
        self._at = at

    def __await__(self) -> Generator[Any, None, None]:
        inner = self._start.__await__()
        thrown: BaseException | None = None  # also by a timeout within ``start``
        while True:
            try:
                waited = next(inner) if thrown is None else inner.throw(thrown)
            except StopIteration:
                return
            thrown = None
            self.waits += 1
            if self.waits == self._at:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                yield waited
            except BaseException as error:
                thrown = error


async def begin(node: Node, at: int) -> None:
    await Cut(node.start(), at)


@pytest.mark.parametrize("name", list(ROLES))
def test_a_start_that_is_cut_anywhere_leaves_nothing(name: str, etcd: EmbeddedEtcd, folder: Path) -> None:
    async def main() -> None:
        it = place(name, etcd, folder)
        at, ended = 0, False
        while not ended:
            at += 1
            node = ROLES[name](it)
            task = asyncio.create_task(begin(node, at))
            await asyncio.wait([task])
            ended = not task.cancelled()
            if ended:
                task.result()
            await stop(node)
            await gone(f"wait {at}")
        assert at > 2

    run(main())


STEPS: dict[str, list[tuple[object, str]]] = {
    "edge-1": [
        (Services, "start"), (edge_room, "open_broker"), (edge_room, "keep_ports"), (edge_room, "Devices"),
        (edge_room, "Endpoint"), (edge_room, "Ownership"), (Services, "announce"), (Services, "show"),
        (edge_room, "newest"), (SettingsFollower, "start"),
    ],
    "core": [
        (core_room, "open_broker"), (core_room, "StreamGroup"), (core_room, "CoreItems"), (core_room, "Upstream"),
        (Services, "start"), (core_room, "TierLink"), (core_room, "Dialler"), (clients_room, "Endpoint"),
        (Services, "announce"), (Services, "show"), (core_room, "newest"), (SettingsFollower, "start"),
    ],
    "door": [
        (door_room, "FrontDoor"), (Services, "start"), (Services, "announce"), (Services, "show"),
        (door_room, "newest"), (SettingsFollower, "start"),
    ],
}  # fmt: skip


CASES = [(name, step, False) for name, steps in STEPS.items() for step in steps]
CASES += [(name, step, True) for name, step, _ in CASES if step[0] in (Services, SettingsFollower)]


@pytest.mark.parametrize(("name", "step", "late"), CASES, ids=[f"{one[0]} {one[1][1]} {one[2]}" for one in CASES])
def test_a_start_that_fails_at_a_step_leaves_nothing(
    name: str, step: tuple[Any, str], late: bool, etcd: EmbeddedEtcd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``late``: what the step does is done before it fails."""
    owner, attribute = step
    real = getattr(owner, attribute)

    def fail(*args: Any, **named: Any) -> Any:
        if late:
            return fail_late(*args, **named)
        raise ValueError("a fault of this step")

    async def fail_late(*args: Any, **named: Any) -> Any:
        await real(*args, **named)
        raise ValueError("a fault of this step")

    async def main() -> None:
        it = place(name, etcd, folder)
        node = ROLES[name](it)
        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, fail)
            with pytest.raises(ValueError, match="a fault"):
                await node.start()
        await stop(node)
        await gone()

    run(main())


@pytest.mark.parametrize("name", list(ROLES))
def test_an_error_in_the_stop_of_one_part_does_not_keep_the_others(
    name: str, etcd: EmbeddedEtcd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        it = place(name, etcd, folder)
        node = ROLES[name](it)
        await node.start()
        services: Services = node._services  # type: ignore[attr-defined]
        members_stop = services.members.stop

        async def fail() -> None:
            await members_stop()
            raise OSError("a fault of this part")

        monkeypatch.setattr(type(services.members), "stop", lambda self: fail())
        if name != "door":
            host = node._broker_host  # type: ignore[attr-defined]
            monkeypatch.setattr(host.journal.__class__, "close", _failing(host.journal.__class__.close))
        await stop(node)
        await gone()

    run(main())


def _failing(close: Callable[..., None]) -> Callable[..., None]:
    def closed(*args: Any) -> None:
        close(*args)
        raise OSError("the disk does not answer")

    return closed


def test_parts_are_closed_after_an_error_and_after_the_time_is_over() -> None:
    closed: list[str] = []

    async def fails() -> None:
        raise ValueError("first")

    async def hangs() -> None:
        closed.append("hangs")
        await asyncio.sleep(3600)

    async def closes() -> None:
        closed.append("closes")

    async def main() -> None:
        with pytest.raises(ValueError, match="first"):
            await close_all(fails, closes)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(close_all(hangs, closes, fails, closes), 0.01)

    asyncio.run(main())
    assert closed == ["closes", "hangs", "closes", "closes"]


def test_parts_that_are_closed_together_are_all_closed_before_an_error_is_raised() -> None:
    closed: list[str] = []

    async def fails() -> None:
        raise ValueError("first")

    async def closes() -> None:
        await asyncio.sleep(0)
        closed.append("closes")

    async def main() -> None:
        with pytest.raises(ValueError, match="first"):
            await close_together([closes(), fails(), closes()])
        assert closed == ["closes", "closes"]

    asyncio.run(main())
