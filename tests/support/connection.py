"""One MQTT connection of a test's client: bytes and packets out, packets in.

Knows the socket and our own codec, and nothing of what packets mean: it answers nothing by itself. (The peer of the
conformance tests shares no code with this.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from mesh.wire.decode import CLIENT, PacketLimits, Reader
from mesh.wire.encode import encode
from mesh.wire.packets import Packet
from tests.support.waiting import PATIENCE


class Connection(asyncio.Protocol):
    """``closed`` is set while there is no connection any more; ``reset``: it did not end in an orderly way.

    A subclass says in ``take`` what becomes of a packet that came. One object may connect again after an end.
    """

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol
        self.closed = asyncio.Event()
        self.reset = False
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(PacketLimits(), CLIENT, protocol)
        self._changed = asyncio.Event()

    def take(self, packet: Packet) -> None:
        """A packet has come."""
        raise NotImplementedError

    @property
    def error(self) -> str:
        """What is wrong with what came; empty while it is MQTT."""
        error = self._reader.error
        return "" if error is None else str(error)

    async def open(self, port: int) -> None:
        """Make a TCP connection."""
        self._reader = Reader(PacketLimits(), CLIENT, self.protocol)
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)

    def send(self, *packets: Packet) -> None:
        """Send packets."""
        self.raw(b"".join(encode(packet, self.protocol) for packet in packets))

    def raw(self, data: bytes) -> None:
        """Send bytes as they are; without a connection they are lost."""
        if self._transport is not None:
            self._transport.write(data)

    def pause(self) -> None:
        """Read nothing more from the socket."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        assert self._transport is not None
        self._transport.resume_reading()

    async def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition that only what comes can make true."""
        try:
            async with asyncio.timeout(patience):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {patience:g} s: {what}") from None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # those of uvloop are of no common class
        self.closed.clear()
        self.reset = False

    def data_received(self, data: bytes) -> None:
        for packet in self._reader.feed(data):
            self.take(packet)
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.reset = exc is not None
        self.closed.set()
        self._changed.set()
