"""A bare MQTT client: it sends the given packets or bytes and records the packets that come."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from mesh.wire.packets import MQTT311, Ack, Connack, Connect, Packet, Publish
from tests.support.connection import Connection
from tests.support.waiting import PATIENCE

T = TypeVar("T")


class Bare(Connection):
    """One connection. ``packets`` holds all packets received."""

    def __init__(self, protocol: int = MQTT311) -> None:
        super().__init__(protocol)
        self.packets: list[Packet] = []

    def take(self, packet: Packet) -> None:
        self.packets.append(packet)

    async def connect(self, port: int) -> Bare:
        """Make a TCP connection without sending anything."""
        await self.open(port)
        return self

    async def hello(self, port: int, client_id: str, **fields: object) -> Bare:
        """Make a connection with an accepted CONNECT; its user name is the client id."""
        await self.connect(port)
        self.send(Connect(self.protocol, client_id, username=client_id, **fields))  # type: ignore[arg-type]
        connack = await self.wait(Connack)
        assert connack.reason == 0, connack
        return self

    async def wait(self, kind: type[T]) -> T:
        """Wait for the first packet of a kind."""
        return (await self.wait_all(kind, 1))[0]

    async def wait_all(self, kind: type[T], count: int) -> list[T]:
        """Wait for ``count`` packets of a kind; return all of them."""
        found: list[T] = []

        def enough() -> bool:
            found[:] = [packet for packet in self.packets if isinstance(packet, kind)]
            return len(found) >= count or self.closed.is_set()

        await self.until(enough, f"{count} {kind.__name__}")
        assert len(found) >= count, f"closed after {self.packets[-5:]}"
        return found

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        async with asyncio.timeout(PATIENCE):
            await self.closed.wait()

    def acks(self, kind: int) -> list[int]:
        """The packet identifiers of all acknowledgements of a kind, in order."""
        return [packet.packet_id for packet in self.packets if isinstance(packet, Ack) and packet.type == kind]

    async def acked(self, kind: int, packet_ids: Iterable[int]) -> None:
        """Wait for acknowledgements of a kind, for exactly these packets in this order."""
        expected = list(packet_ids)
        await self.until(
            lambda: len(self.acks(kind)) >= len(expected) or self.closed.is_set(),
            f"{len(expected)} acknowledgements of type {kind}",
        )
        assert self.acks(kind) == expected, f"closed: {self.closed.is_set()}"

    def publishes(self) -> list[Publish]:
        """All PUBLISH packets, in order."""
        return [packet for packet in self.packets if isinstance(packet, Publish)]

    async def close(self) -> None:
        """End the connection without DISCONNECT, if it is open."""
        if self._transport is not None:
            self._transport.abort()
            await self.closed.wait()
