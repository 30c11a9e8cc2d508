"""The dialler against real sockets on this machine: back-off, news, addresses that change, and what it logs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from mesh.transport import dialler as subject
from mesh.transport.dialler import FIRST_RETRY, LAST_RETRY, Address, Dialler
from mesh.transport.unixsocket import no_unix_path
from tests.support.waiting import until


class Connection(asyncio.Protocol):
    """The dialled connection. It is welcome when the other end sends a byte; ``why`` is the reason of its end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.why = ""
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.world.welcomes += 1
        self.world.dialler.welcomed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set_result(self.why)

    def abort(self) -> None:
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()


class Server:
    """The other node; ``welcome``: it accepts every connection."""

    def __init__(self, welcome: bool = True) -> None:
        self.welcome = welcome
        self.writers: list[asyncio.StreamWriter] = []
        self.arrived = 0
        self.address: Address

    async def start(self) -> Server:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = self.server.sockets[0].getsockname()
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrived += 1
        self.writers.append(writer)
        if self.welcome:
            writer.write(b"!")

    def drop(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    def end(self) -> None:
        self.drop()
        self.server.close()


class World:
    def __init__(self) -> None:
        self.address: Address | None = None
        self.connections: list[Connection] = []
        self.welcomes = 0
        self.unix_path: Callable[[int], str] = no_unix_path
        self.dialler = Dialler(
            "core-1", "edge edge-1", lambda: self.address, lambda port: self.unix_path(port), self.make
        )  # fmt: skip
        self.pauses: list[float] = []

    def make(self) -> Connection:
        self.connections.append(Connection(self))
        return self.connections[-1]

    def record_pauses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note each pause without its jitter, and do not wait."""
        monkeypatch.setattr(subject.random, "uniform", lambda low, high: high)

        async def wait_for_news(seconds: float) -> bool:
            await asyncio.sleep(0)
            heard = self.dialler._news.is_set()
            self.pauses.append(-1.0 if heard else seconds)
            return heard

        monkeypatch.setattr(self.dialler, "_wait_for_news", wait_for_news)


def run(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        world = World()
        try:
            await scenario(world)
        finally:
            await world.dialler.stop()

    asyncio.run(whole())


@pytest.fixture
def forever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses last longer than the test: only news ends them."""
    monkeypatch.setattr(subject, "FIRST_RETRY", 1000.0)
    monkeypatch.setattr(subject, "LAST_RETRY", 1000.0)


def test_dialler_connects_again_after_each_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, subject.log.name)

    async def scenario(world: World) -> None:
        server = await Server().start()
        world.address = server.address
        world.dialler.start()
        for count in range(3):
            await until(lambda count=count: world.welcomes == count + 1)
            server.drop()
        await until(lambda: world.welcomes == 4)
        server.end()

    run(scenario)
    assert caplog.messages[:6] == ["core-1: edge edge-1 is disconnected", "core-1: edge edge-1 is connected again"] * 3


def test_pauses_grow_and_restart_after_a_welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        world.record_pauses(monkeypatch)
        server = await Server(welcome=False).start()
        world.address = ("127.0.0.1", 1)  # reserved: nothing listens there
        world.dialler.start()
        await until(lambda: len(world.pauses) > 6)
        assert world.pauses[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
        assert world.pauses[5:7] == [LAST_RETRY] * 2
        world.address = server.address
        await until(lambda: server.arrived == 1)
        world.pauses.clear()
        server.drop()
        await until(lambda: bool(world.pauses))
        assert world.pauses[0] == LAST_RETRY  # it was connected, but never let in
        server.welcome = True
        server.drop()
        await until(lambda: world.welcomes == 1)
        world.pauses.clear()
        server.end()
        await until(lambda: len(world.pauses) >= 2)
        assert world.pauses[:2] == [FIRST_RETRY, 2 * FIRST_RETRY]

    run(scenario)


def test_dialler_logs_a_trouble_only_when_it_changes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        world.record_pauses(monkeypatch)
        world.dialler.start()
        await until(lambda: len(world.pauses) >= 3)
        world.address = ("127.0.0.1", 1)
        await until(lambda: len(world.pauses) >= 6)
        server = await Server(welcome=False).start()
        world.address = server.address
        await until(lambda: bool(world.connections) and server.arrived > 0)
        world.connections[-1].why = "refused the connection: not authorized"
        server.drop()
        await until(lambda: "refused" in world.dialler.trouble)
        await until(lambda: bool(server.writers))
        server.drop()
        await until(lambda: "before" in world.dialler.trouble)
        server.end()

    run(scenario)
    unreachable = caplog.messages[1]
    assert unreachable.startswith("core-1: edge edge-1 cannot be reached at 127.0.0.1:1: ")
    assert caplog.messages[:4] == [
        "core-1: edge edge-1 has not announced its address yet",
        unreachable,
        "core-1: edge edge-1 refused the connection: not authorized",
        "core-1: edge edge-1 closed the connection before it accepted this node",
    ]


@pytest.mark.usefixtures("forever")
def test_news_ends_a_pause() -> None:
    async def scenario(world: World) -> None:
        world.dialler.start()
        await until(lambda: bool(world.dialler.trouble))
        server = await Server().start()
        world.address = server.address
        world.dialler.poke()
        await until(lambda: server.arrived == 1)
        server.end()

    run(scenario)


def test_news_while_connected_does_not_shorten_a_later_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        world.record_pauses(monkeypatch)
        server = await Server().start()
        world.address = server.address
        world.dialler.start()
        await until(lambda: world.welcomes == 1)
        world.dialler.poke()
        server.end()
        await until(lambda: bool(world.pauses))
        assert world.pauses[0] == FIRST_RETRY

    run(scenario)


@pytest.mark.usefixtures("forever")
def test_moved_node_is_dialled_at_its_new_address_at_once() -> None:
    async def scenario(world: World) -> None:
        old, new = await Server().start(), await Server().start()
        world.address = old.address
        world.dialler.start()
        await until(lambda: world.welcomes == 1)
        world.address = new.address
        world.dialler.moved()
        await until(lambda: new.arrived == 1)
        assert old.arrived == 1
        old.end()
        new.end()

    run(scenario)


def test_node_that_moves_while_it_is_dialled_is_dialled_again() -> None:
    async def scenario(world: World) -> None:
        old, new = await Server().start(), await Server().start()
        world.address = old.address

        def unix_path(_port: int) -> str:
            if world.address != new.address:
                world.address = new.address
                world.dialler.moved()
            return ""

        world.unix_path = unix_path
        world.dialler.start()
        await until(lambda: new.arrived == 1 and world.welcomes == 1)
        assert len(world.connections) == 2
        old.end()
        new.end()

    run(scenario)


def test_attempt_without_an_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    async def scenario(world: World) -> None:
        monkeypatch.setattr(subject, "connect", hang)
        monkeypatch.setattr(subject, "CONNECT", 0.01)
        world.address = ("127.0.0.1", 1)
        world.dialler.start()
        await until(lambda: world.dialler.trouble == "cannot be reached at 127.0.0.1:1: no answer")

    run(scenario)


def test_stop_leaves_an_open_connection_to_its_owner() -> None:
    async def scenario(world: World) -> None:
        server = await Server().start()
        world.address = server.address
        world.dialler.start()
        world.dialler.start()
        await until(lambda: world.welcomes == 1)
        await world.dialler.stop()
        (connection,) = world.connections
        assert not connection.over.done()
        connection.abort()
        await until(connection.over.done)
        assert server.arrived == 1
        server.end()

    run(scenario)
