"""Nodes of one machine meet at a Unix socket, and at the TCP port where there is none."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path
from typing import cast

from mesh.transport.listen import Listen
from mesh.transport.listener import Listener
from mesh.transport.near import Near, connect, near_path, nowhere
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.wheel import Wheel
from tests.support.loop import run
from tests.support.waiting import until


class Heard(Stream):
    def __init__(self, group: StreamGroup, heard: list[tuple[str, bytes]]) -> None:
        super().__init__(group)
        self.said = heard  # ``heard`` is the stream's own

    def received(self, data: bytes) -> None:
        self.said.append((str(self.peer), data))

    def opened(self) -> None:
        """Nothing is said first."""

    def lost(self, error: Exception | None) -> None:
        """The tests end it."""

    def expired(self) -> None:
        """No time is short here."""


class Ends:
    """A listener, and what it hears from whom."""

    def __init__(self, near: Near, limit: int = 9) -> None:
        loop = asyncio.get_running_loop()
        self.group = StreamGroup(loop, Wheel(loop))
        self.heard: list[tuple[str, bytes]] = []
        self.listener = Listener("edge-1", Listen("device", "127.0.0.1", 0), self.group, self.stream, limit, near=near)

    def stream(self) -> Stream:
        return Heard(self.group, self.heard)

    async def say(self, near: str, data: bytes) -> Stream:
        """Connect as another node does."""
        caller = Heard(self.group, [])
        protocol = cast(asyncio.BaseProtocol, caller)
        await connect(self.group.loop, lambda: protocol, near, "127.0.0.1", self.listener.port)
        caller.write(data)
        return caller

    async def stop(self) -> None:
        for stream in list(self.group.streams):
            stream.abort()
        await until(lambda: not self.group.streams)
        self.listener.stop()


def test_the_unix_socket_is_used_where_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        near = partial(near_path, tmp_path, "device")
        ends = Ends(near)
        await ends.listener.start()
        path = near(ends.listener.port)
        caller = await ends.say(path, b"near")
        await until(lambda: ends.heard)
        assert ends.heard == [("this machine", b"near")]
        assert (caller.peer.address, caller.peer.port, str(caller.peer)) == (path, 0, path)
        await ends.stop()
        assert not Path(path).exists()

    run(main())


def test_a_socket_that_nobody_listens_at_any_more_is_passed_by(tmp_path: Path) -> None:
    async def main() -> None:
        ends = Ends(nowhere)
        await ends.listener.start()
        left = near_path(tmp_path, "device", ends.listener.port)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(left)
        for near in (left, str(tmp_path / "missing"), ""):
            ends.heard.clear()
            await ends.say(near, b"far")
            await until(lambda: ends.heard)
            assert ends.heard[0][0].startswith("127.0.0.1:")
        await ends.stop()

    run(main())


def test_a_successor_takes_the_socket_of_the_dead(tmp_path: Path) -> None:
    async def main() -> None:
        def near(_port: int) -> str:
            return str(tmp_path / "device.sock")

        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(near(0))
        ends = Ends(near)
        await ends.listener.start()
        await ends.say(near(0), b"again")
        await until(lambda: ends.heard)
        assert ends.heard[0][0] == "this machine"
        await ends.stop()

    run(main())


def test_both_ways_count_for_the_limit(tmp_path: Path) -> None:
    async def main() -> None:
        near = partial(near_path, tmp_path, "tier")
        ends = Ends(near, limit=2)  # a caller counts as well here: both ends have one home
        await ends.listener.start()
        await ends.say(near(ends.listener.port), b"first")
        await until(lambda: ends.heard)
        await ends.say("", b"second")
        await until(lambda: ends.listener.refused == 1)
        await ends.stop()

    run(main())


def test_a_folder_with_a_long_name_does_without(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    assert near_path(long, "device", 1) == ""

    async def main() -> None:
        ends = Ends(partial(near_path, long, "device"))
        await ends.listener.start()
        await ends.say("", b"far")
        await until(lambda: ends.heard)
        await ends.stop()

    run(main())


def test_a_listener_that_cannot_have_the_unix_socket_has_the_port(tmp_path: Path) -> None:
    async def main() -> None:
        ends = Ends(partial(near_path, tmp_path / "missing", "device"))
        await ends.listener.start()
        await ends.say(near_path(tmp_path / "missing", "device", ends.listener.port), b"far")
        await until(lambda: ends.heard)
        assert ends.heard[0][0].startswith("127.0.0.1:")
        await ends.stop()

    run(main())
