"""One MQTT connection of a test's client: bytes and packets out, packets in.

It knows the socket and the mesh's own codec. It does not know what packets mean and answers none. (The peer of the
conformance tests shares no code with this.)
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from mesh.wire.decode import CLIENT, PacketLimits, Reader
from mesh.wire.encode import encode
from mesh.wire.packets import Packet
from tests.support.waiting import PATIENCE

ANY_SIZE = PacketLimits(max_packet_size=256 << 20)  # a client that names no Maximum Packet Size takes all


class Connection(asyncio.Protocol):
    """``closed`` is set when the connection has ended; ``reset`` is true if it was reset.

    A subclass handles each received packet in ``take``. One object may connect again after an end.
    """

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol
        self.closed = asyncio.Event()
        self.reset = False
        self.tls: ssl.SSLContext | None = None  # for a listener with TLS
        self.source = ""  # the address that it connects from; empty: the system chooses it
        self._transport: asyncio.Transport | None = None
        self._reader = Reader(ANY_SIZE, CLIENT, protocol)
        self._changed = asyncio.Event()

    def take(self, packet: Packet) -> None:
        """Handle a received packet."""
        raise NotImplementedError

    @property
    def error(self) -> str:
        """The error in the received bytes; empty if there is none."""
        error = self._reader.error
        return "" if error is None else str(error)

    async def open(self, port: int) -> None:
        """Make a TCP or TLS connection."""
        self._reader = Reader(ANY_SIZE, CLIENT, self.protocol)
        loop, tls = asyncio.get_running_loop(), self.tls
        name = None if tls is None else "localhost"
        await loop.create_connection(
            lambda: self, "127.0.0.1", port, ssl=tls, server_hostname=name,
            local_addr=(self.source, 0) if self.source else None,
        )  # fmt: skip

    def session(self) -> ssl.SSLObject:
        """What TLS knows of the connection."""
        assert self._transport is not None
        found = self._transport.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    def send(self, *packets: Packet) -> None:
        """Send packets."""
        self.raw(b"".join(encode(packet, self.protocol) for packet in packets))

    def raw(self, data: bytes) -> None:
        """Send bytes unchanged; without a connection they are dropped."""
        if self._transport is not None:
            self._transport.write(data)

    def pause(self) -> None:
        """Stop reading from the socket."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        """Continue to read from the socket."""
        assert self._transport is not None
        self._transport.resume_reading()

    async def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition that only received packets or the end of the connection can make true."""
        try:
            async with asyncio.timeout(patience):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {patience:g} s: {what}") from None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # the transports of uvloop do not inherit from it
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
