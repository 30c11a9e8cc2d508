"""A client without scruples: one TCP connection that sends packets, or any bytes, and reads what comes back.

It knows packets and a deadline for each wait; it must never acknowledge anything by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from types import TracebackType
from typing import Final, TypeVar

from mesh.wire.decode import CLIENT, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Connack, Connect, Packet, Will
from mesh.wire.properties import Properties

PATIENCE: Final = 30.0  # seconds; a deadline for a mesh under attack, not an expectation
_READ: Final = 1 << 16
_LIMITS: Final = PacketLimits(max_packet_size=4 << 20, max_user_properties=10_000, max_subscriptions=10_000)

Address = tuple[str, int]
P = TypeVar("P")


class Raw:
    """One connection. ``ended``: the server has closed it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: int) -> None:
        self.protocol = protocol
        self.ended = False
        self._reader = reader
        self._writer = writer
        self._packets: deque[Packet] = deque()
        self._decoder = Reader(_LIMITS, CLIENT, protocol)

    @classmethod
    async def dial(
        cls, address: Address, protocol: int = MQTT5, own: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> Raw:
        """A new connection from the address ``own``, if the other one is of this machine. Raises ``OSError``."""
        local = (own, 0) if address[0].startswith("127.") else None
        name = None if tls is None else "localhost"
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*address, local_addr=local, ssl=tls, server_hostname=name)
        return cls(reader, writer, protocol)

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def say(self, *packets: Packet | bytes) -> None:
        """Send packets, or bytes as they are, without waiting; nothing if the connection has ended."""
        if not self._writer.is_closing():
            data = [one if isinstance(one, bytes) else encode(one, self.protocol) for one in packets]
            self._writer.write(b"".join(data))

    async def flush(self) -> None:
        """Wait until the system has taken what was said, or the connection has ended."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._writer.drain()

    async def next(self, seconds: float = PATIENCE) -> Packet | None:
        """The next packet; ``None`` if the connection has ended or nothing came."""
        try:
            async with asyncio.timeout(seconds):
                while not self._packets and not self.ended:
                    await self._fill()
        except TimeoutError:
            return None
        return self._packets.popleft() if self._packets else None

    async def find(self, kind: type[P], seconds: float = PATIENCE) -> P | None:
        """The next packet of a kind, without those before it; ``None`` if the connection has ended or none came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (packet := await self.next(seconds)) is not None:
                    if isinstance(packet, kind):
                        return packet
        return None

    async def closed(self, seconds: float = PATIENCE) -> bool:
        """Whether the server closes the connection in this time. Drops what comes before, unread: the server may answer
        in another version of the protocol."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ended:
                    await self._read()
        return self.ended

    async def _read(self) -> bytes:
        try:
            data = await self._reader.read(_READ)
        except OSError:
            data = b""
        self.ended = self.ended or not data
        return data

    async def _fill(self) -> None:
        self._packets += self._decoder.feed(await self._read())
        if self._decoder.error is not None:
            raise AssertionError(f"the server sent bytes that cannot be read: {self._decoder.error}")

    def abort(self) -> None:
        """Close the socket without DISCONNECT."""
        self._writer.transport.abort()

    async def connect(
        self,
        client_id: str,
        user: str | None = None,
        clean: bool = True,
        expiry: int = 0,
        keep_alive: int = 0,
        will: Will | None = None,
    ) -> Connack | None:
        """CONNECT and its answer; ``None`` if there is none."""
        self.say(hello(client_id, user, self.protocol, clean, expiry, keep_alive, will))
        return await self.find(Connack)


def hello(
    client_id: str,
    user: str | None = None,
    protocol: int = MQTT5,
    clean: bool = True,
    expiry: int = 0,
    keep_alive: int = 0,
    will: Will | None = None,
) -> Connect:
    """A CONNECT."""
    properties = None
    if protocol == MQTT5 and expiry:
        properties = Properties()
        properties.session_expiry = expiry
    return Connect(protocol, client_id, clean, keep_alive, user, None, will, properties)
