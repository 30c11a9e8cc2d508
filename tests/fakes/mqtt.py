"""A bare MQTT client for tests: it sends what it is told, byte for byte, and keeps what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

from mesh.wire.decode import CLIENT, Limits, Reader
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311, Ack, Connack, Connect, Packet, Publish
from tests.support.waiting import PATIENCE

T = TypeVar("T")


class Bare:
    """One socket. ``packets`` grows as they come; ``closed`` is set when the other side has closed."""

    def __init__(self, protocol: int = MQTT311) -> None:
        self.protocol = protocol
        self.packets: list[Packet] = []
        self.closed = asyncio.Event()
        self.reset = False
        self._changed = asyncio.Event()
        self._reader = Reader(Limits(), CLIENT, protocol)
        self._task: asyncio.Task[None] | None = None
        self._in: asyncio.StreamReader | None = None
        self.out: asyncio.StreamWriter | None = None
        self.reading = asyncio.Event()
        self.reading.set()

    async def connect(self, port: int) -> Bare:
        self._in, self.out = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        self._task = asyncio.create_task(self._read())
        return self

    async def hello(self, port: int, client_id: str, **fields: object) -> Bare:
        await self.connect(port)
        self.send(Connect(self.protocol, client_id, username=client_id, **fields))  # type: ignore[arg-type]
        connack = await self.wait(Connack)
        assert connack.reason == 0, connack
        return self

    def send(self, *packets: Packet) -> None:
        self.raw(b"".join(encode(packet, self.protocol) for packet in packets))

    def raw(self, data: bytes) -> None:
        assert self.out is not None
        self.out.write(data)

    async def wait(self, kind: type[T]) -> T:
        """The first packet of a kind."""
        return (await self.wait_all(kind, 1))[0]

    async def wait_all(self, kind: type[T], count: int) -> list[T]:
        """All packets of a kind, once there are ``count``."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found: list[T] = [packet for packet in self.packets if isinstance(packet, kind)]
                if len(found) >= count:
                    return found
                if self.closed.is_set():
                    raise AssertionError(f"closed with {self.packets[-5:]}")
                self._changed.clear()
                await self._changed.wait()

    async def wait_closed(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.closed.wait()

    def acks(self, kind: int) -> list[int]:
        return [packet.packet_id for packet in self.packets if isinstance(packet, Ack) and packet.type == kind]

    async def acked(self, kind: int, packet_ids: Iterable[int]) -> None:
        """Wait for acknowledgements of a kind, of exactly these packets in their order."""
        expected = list(packet_ids)
        async with asyncio.timeout(PATIENCE):
            while len(self.acks(kind)) < len(expected):
                assert not self.closed.is_set(), f"closed after {self.acks(kind)}"
                self._changed.clear()
                await self._changed.wait()
        assert self.acks(kind) == expected

    def publishes(self) -> list[Publish]:
        return [packet for packet in self.packets if isinstance(packet, Publish)]

    async def close(self) -> None:
        if self.out is not None:
            self.out.transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        assert self._in is not None
        try:
            while data := await self._in.read(65536):
                self.packets += self._reader.feed(data)
                self._changed.set()
                await self.reading.wait()
        except OSError:
            self.reset = True
        self.closed.set()
        if self.out is not None:
            self.out.close()
        self._changed.set()
