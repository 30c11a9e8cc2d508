"""A thousand vehicles, each on a connection of its own, and which of them a change has ended.

It knows sockets, TLS and a few fixed packets: never why a connection should end. What always holds: ``changed`` returns
only when all members that should be gone are, and asserts that no other one is; each of those has answered a PINGREQ
afterwards.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, cast, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, PINGREQ, Connect, Ping
from tests.support.waiting import until

_TOGETHER: Final = 50  # connections that are made at the same time
_CONNACK: Final = 0x20
_PINGREQ: Final = encode(Ping(PINGREQ), MQTT5)
_PINGRESP: Final = b"\xd0\x00"


@final
class Member(asyncio.Protocol):
    """One vehicle; its client id is its name. ``tls``: the context of its connection; ``address``: its own address,
    which may be any of this machine's."""

    def __init__(
        self, name: str, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", password: bytes | None = None
    ) -> None:
        self.name = name
        self.tls = tls
        self.address = address
        self.closed = False
        self.data = bytearray()
        self._hello = encode(Connect(MQTT5, name, True, 0, name, password), MQTT5)
        self._transport: asyncio.Transport | None = None

    async def join(self, port: int) -> None:
        """Connect; returns when the CONNECT is accepted."""
        await asyncio.get_running_loop().create_connection(
            lambda: self, "127.0.0.1", port, ssl=self.tls, server_hostname=self.tls and "localhost",
            local_addr=(self.address, 0),
        )  # fmt: skip
        await until(lambda: len(self.data) > 3 or self.closed, f"an answer to the CONNECT of {self.name}")
        assert self.data[:1] + self.data[3:4] == bytes([_CONNACK, 0]), f"{self.name} was refused: {self.data.hex()}"
        self.data.clear()

    def ping(self) -> None:
        assert self._transport is not None
        self.data.clear()
        self._transport.write(_PINGREQ)

    @property
    def answered(self) -> bool:
        return self.data.endswith(_PINGRESP)

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True


@final
class Crowd:
    """``members`` are those that should be connected."""

    def __init__(self, members: Iterable[Member]) -> None:
        self.members = list(members)

    async def join(self, port: int) -> None:
        """Connect all."""
        for start in range(0, len(self.members), _TOGETHER):
            await asyncio.gather(*[member.join(port) for member in self.members[start : start + _TOGETHER]])

    async def alive(self) -> None:
        """All members are connected and answered."""
        for member in self.members:
            assert not member.closed, f"the connection of {member.name} should have stayed"
            member.ping()
        await until(lambda: all(member.answered or member.closed for member in self.members), "all answers")
        assert not [member.name for member in self.members if member.closed], "these should have stayed"

    async def changed(
        self, what: str, change: Callable[[], Awaitable[object]], ends: Callable[[Member], bool]
    ) -> list[Member]:
        """Make a change, after which the members of ``ends`` have to go, and no other one; returns these."""
        going = [member for member in self.members if ends(member)]
        self.members = [member for member in self.members if not ends(member)]
        began = time.monotonic()
        await change()
        await until(lambda: all(member.closed for member in going), f"{what}: the end of all that should go")
        took = time.monotonic() - began
        print(f"{what}: {len(going)} connections gone after {took:.2f} s, {len(self.members)} stay")
        await self.alive()
        return going

    def leave(self) -> None:
        """End all connections."""
        for member in self.members:
            member.leave()
