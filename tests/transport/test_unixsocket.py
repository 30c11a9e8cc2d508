"""Nodes of one machine connect over a Unix socket, and over TCP if there is none."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path
from typing import cast

from mesh.transport.listen import Listen
from mesh.transport.listener import Listener
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.unixsocket import UnixPath, connect, no_unix_path, socket_path
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
        """Sends nothing first."""

    def lost(self, error: Exception | None) -> None:
        """The tests end it."""

    def expired(self) -> None:
        """No deadline applies here."""


class Ends:
    """A listener, and what it received from each peer."""

    def __init__(self, unix_path: UnixPath, limit: int = 9) -> None:
        loop = asyncio.get_running_loop()
        self.group = StreamGroup(loop, Wheel(loop))
        self.heard: list[tuple[str, bytes]] = []
        listen = Listen("device", "127.0.0.1", 0)
        self.listener = Listener("edge-1", listen, self.group, self.stream, limit, unix_path=unix_path)

    def stream(self) -> Stream:
        return Heard(self.group, self.heard)

    async def say(self, path: str, data: bytes) -> Stream:
        """Connect as another node does."""
        caller = Heard(self.group, [])
        protocol = cast(asyncio.BaseProtocol, caller)
        await connect(self.group.loop, lambda: protocol, path, "127.0.0.1", self.listener.port)
        caller.write(data)
        return caller

    async def stop(self) -> None:
        for stream in list(self.group.streams):
            stream.abort()
        await until(lambda: not self.group.streams)
        self.listener.stop()


def test_unix_socket_is_used_if_it_exists(tmp_path: Path) -> None:
    async def main() -> None:
        unix_path = partial(socket_path, tmp_path, "device")
        ends = Ends(unix_path)
        await ends.listener.start()
        path = unix_path(ends.listener.port)
        caller = await ends.say(path, b"unix")
        await until(lambda: ends.heard)
        assert ends.heard == [("this machine", b"unix")]
        assert (caller.peer.address, caller.peer.port, str(caller.peer)) == (path, 0, path)
        await ends.stop()
        assert not Path(path).exists()

    run(main())


def test_unix_socket_without_a_listener_falls_back_to_tcp(tmp_path: Path) -> None:
    async def main() -> None:
        ends = Ends(no_unix_path)
        await ends.listener.start()
        left = socket_path(tmp_path, "device", ends.listener.port)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(left)
        for path in (left, str(tmp_path / "missing"), ""):
            ends.heard.clear()
            await ends.say(path, b"tcp")
            await until(lambda: ends.heard)
            assert ends.heard[0][0].startswith("127.0.0.1:")
        await ends.stop()

    run(main())


def test_listener_replaces_the_socket_of_a_dead_process(tmp_path: Path) -> None:
    async def main() -> None:
        def unix_path(_port: int) -> str:
            return str(tmp_path / "device.sock")

        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(unix_path(0))
        ends = Ends(unix_path)
        await ends.listener.start()
        await ends.say(unix_path(0), b"again")
        await until(lambda: ends.heard)
        assert ends.heard[0][0] == "this machine"
        await ends.stop()

    run(main())


def test_unix_and_tcp_connections_share_the_limit(tmp_path: Path) -> None:
    async def main() -> None:
        unix_path = partial(socket_path, tmp_path, "tier")
        ends = Ends(unix_path, limit=2)  # both ends have one group, so the caller counts as well
        await ends.listener.start()
        await ends.say(unix_path(ends.listener.port), b"first")
        await until(lambda: ends.heard)
        await ends.say("", b"second")
        await until(lambda: ends.listener.refused == 1)
        await ends.stop()

    run(main())


def test_folder_with_a_long_name_has_no_unix_socket(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    assert socket_path(long, "device", 1) == ""

    async def main() -> None:
        ends = Ends(partial(socket_path, long, "device"))
        await ends.listener.start()
        await ends.say("", b"tcp")
        await until(lambda: ends.heard)
        await ends.stop()

    run(main())


def test_listener_without_its_unix_socket_still_has_its_port(tmp_path: Path) -> None:
    async def main() -> None:
        ends = Ends(partial(socket_path, tmp_path / "missing", "device"))
        await ends.listener.start()
        await ends.say(socket_path(tmp_path / "missing", "device", ends.listener.port), b"tcp")
        await until(lambda: ends.heard)
        assert ends.heard[0][0].startswith("127.0.0.1:")
        await ends.stop()

    run(main())
