"""A small MQTT client that records everything; a test can run two hundred of them.

It knows one session of either MQTT version, across connections. It behaves as the standard requires of a client: it
answers in order, repeats unacknowledged publishes with DUP on a new connection if the session is present, and takes a
QoS 2 message once for each identifier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mesh.wire.packets import (
    MQTT5,
    MQTT311,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import RELEASED_REASONS
from tests.support.connection import Connection
from tests.support.waiting import PATIENCE

WINDOW = 20  # unacknowledged publishes; below every receive maximum of the mesh


@dataclass(slots=True)
class Received:
    """One message as the application gets it."""

    topic: str
    payload: str
    qos: int
    dup: bool
    retain: bool
    user: list[tuple[str, str]]


class Client(Connection):
    """``received``: messages; ``acked``: (topic, payload) of acknowledged publishes in publishing order;
    ``closes``: the reason of each end of a connection that this client did not request."""

    def __init__(
        self,
        name: str,
        protocol: int = MQTT5,
        clean: bool = True,
        expiry: int = 0,
        keep_alive: int = 60,
        client_id: str = "",
        will: Will | None = None,
        holding: bool = False,
    ) -> None:
        """``holding``: answer no PUBLISH until ``release`` is called."""
        super().__init__(protocol)
        self.name = name
        self.client_id = client_id or name
        self.clean = clean
        self.expiry = expiry
        self.keep_alive = keep_alive
        self.will = will
        self.holding = holding
        self.window = WINDOW
        self.received: list[Received] = []
        self.acked: list[tuple[str, str]] = []
        self.reasons: list[int] = []
        self.refused: list[tuple[str, str]] = []
        self.closes: list[str] = []
        self.connack: Connack | None = None
        self.connected = False
        self._next = 0
        self._out: dict[int, Publish | Ack] = {}  # unacknowledged, in order; Ack: the PUBREL
        self._published: dict[int, tuple[str, str]] = {}
        self._incoming: set[int] = set()
        self._held: list[Publish] = []
        self._subacks: dict[int, SubAck] = {}
        self._leaving = False
        self._pinger: asyncio.TimerHandle | None = None

    # Connections

    async def connect(self, port: int, patience: float = PATIENCE) -> Client:
        """Connect; fail unless accepted."""
        await self.knock(port, patience)
        assert self.connected, f"{self.name} was refused: {self.connack}, {self.closes[-1:]}"
        return self

    async def knock(self, port: int, patience: float = PATIENCE) -> int:
        """Connect; return the reason code of the CONNACK, -1 if the connection was closed without one."""
        await self.until(lambda: self._transport is None, "the end of the old connection", patience)
        self.connack = None
        self._leaving = False
        before = len(self.closes)
        async with asyncio.timeout(patience):
            await self.open(port)
        await self.until(lambda: self.connack is not None or len(self.closes) > before, "CONNACK", patience)
        return -1 if self.connack is None else self.connack.reason

    async def reconnect(self, port: int, patience: float = PATIENCE) -> None:
        """Connect repeatedly until accepted."""
        async with asyncio.timeout(patience):
            while not self.connected:
                try:
                    if await self.knock(port, patience) == 0:
                        return
                except OSError:
                    pass
                self.drop()
                await asyncio.sleep(0.1)

    def leave(self) -> None:
        """Send DISCONNECT and close the connection."""
        self._leaving = True
        if self.connected and self._transport is not None:
            self.send(Disconnect())
        self.connected = False
        if self._transport is not None:
            self._transport.close()

    def drop(self) -> None:
        """Close the socket without DISCONNECT."""
        self._leaving = True
        self.connected = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        properties = None
        if self.protocol == MQTT5:
            properties = Properties()
            properties.session_expiry = self.expiry
        self.send(
            Connect(self.protocol, self.client_id, self.clean, self.keep_alive, self.name, None, self.will, properties)
        )

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.error:
            self.closes.append(f"malformed packet: {self.error}")
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
        if not self._leaving:
            self.closes.append(str(exc or "closed by the other side"))
        self.connected = False
        super().connection_lost(exc)

    # Packets

    def take(self, packet: Packet) -> None:
        if isinstance(packet, Publish):
            self._publish(packet)
        elif isinstance(packet, Ack):
            self._acknowledged(packet)
        elif isinstance(packet, Connack):
            self._accepted(packet)
        elif isinstance(packet, SubAck):
            self._subacks[packet.packet_id] = packet
        elif isinstance(packet, Disconnect):
            self.closes.append(f"DISCONNECT {packet.reason:#x}")

    def _accepted(self, packet: Connack) -> None:
        self.connack = packet
        if packet.reason:
            return
        self.connected = True
        if not packet.session_present:
            self._incoming.clear()
        for identifier, waiting in self._out.items():
            if isinstance(waiting, Publish):
                waiting.dup = packet.session_present  # a new session has not seen it
            elif not packet.session_present:
                self._out[identifier] = waiting = Ack(PUBREL, identifier)
            self.send(waiting)
        if self.keep_alive:
            self._ping()

    def _ping(self) -> None:
        self.send(Ping(PINGREQ))
        self._pinger = asyncio.get_running_loop().call_later(self.keep_alive / 2, self._ping)

    def _publish(self, packet: Publish) -> None:
        if self.holding and packet.qos:
            self._held.append(packet)
            return
        if packet.qos < 2 or packet.packet_id not in self._incoming:
            user = [] if packet.properties is None else packet.properties.user
            payload = packet.payload.decode()
            self.received.append(Received(packet.topic, payload, packet.qos, packet.dup, packet.retain, user))
        if packet.qos == 1:
            self.send(Ack(PUBACK, packet.packet_id))
        elif packet.qos == 2:
            self._incoming.add(packet.packet_id)
            self.send(Ack(PUBREC, packet.packet_id))

    def release(self) -> None:
        """Take and acknowledge the held messages, and hold no later ones."""
        self.holding = False
        held, self._held = self._held, []
        for packet in held:
            self._publish(packet)

    def release_one(self) -> None:
        """Take and acknowledge the oldest held message, if there is one."""
        if self._held and self.connected:
            self.holding = False
            self._publish(self._held.pop(0))
            self.holding = True

    def _acknowledged(self, packet: Ack) -> None:
        identifier = packet.packet_id
        if packet.type == PUBREL:
            self._incoming.discard(identifier)
            self.send(Ack(PUBCOMP, identifier))
        elif packet.type == PUBREC and packet.reason < 0x80:
            if identifier in self._out:
                self._out[identifier] = Ack(PUBREL, identifier)
            self.send(Ack(PUBREL, identifier))
        elif self._out.pop(identifier, None) is not None:
            message = self._published.pop(identifier)
            # A repeated PUBREL finds no identifier if its first PUBCOMP was lost: no error (3.7.2.1).
            done = packet.reason < 0x80 or (packet.type == PUBCOMP and packet.reason in RELEASED_REASONS)
            (self.acked if done else self.refused).append(message)
            self.reasons.append(packet.reason)

    # Use

    async def until(self, condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        await super().until(condition, f"{what} at {self.name}", patience)

    async def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        """Subscribe; return the reason codes of the SUBACK."""
        identifier = self._identifier()
        self.send(Subscribe(identifier, [Subscription(name, qos) for name in filters]))
        await self.until(lambda: identifier in self._subacks, "SUBACK")
        return self._subacks.pop(identifier).reasons

    def _identifier(self) -> int:
        while True:
            self._next = self._next % 0xFFFF + 1
            if self._next not in self._out:
                return self._next

    def publish(self, topic: str, payload: str, qos: int = 1, user: Iterable[tuple[str, str]] = ()) -> None:
        """Publish now; without a connection, QoS 1 and 2 wait for the next one."""
        properties = None
        if user:
            properties = Properties()
            properties.user = list(user)
        packet = Publish(topic, payload.encode(), qos, properties=properties)
        if qos:
            packet.packet_id = self._identifier()
            self._out[packet.packet_id] = packet
            self._published[packet.packet_id] = (topic, payload)
        if self.connected:
            self.send(packet)

    async def publish_all(self, messages: Iterable[tuple[str, str]], qos: int = 1, patience: float = PATIENCE) -> None:
        """Publish with a window; return when all are acknowledged."""
        for topic, payload in messages:
            await self.until(lambda: len(self._out) < self.window, "room in the window", patience)
            self.publish(topic, payload, qos)
        await self.settled(patience)

    async def settled(self, patience: float = PATIENCE) -> None:
        """Wait until everything published is acknowledged."""
        await self.until(lambda: not self._out, f"acknowledgements of {list(self._out)[:5]}", patience)

    def payloads(self, topic: str) -> list[str]:
        """The payloads received on a topic, with repeats."""
        return [message.payload for message in self.received if message.topic == topic]


def device(name: str, number: int, keep_alive: int = 60) -> Client:
    """One of four kinds of vehicles: 3.1.1 or 5.0, with a clean or a durable session."""
    protocol = MQTT311 if number % 2 else MQTT5
    clean = number % 4 < 2
    return Client(name, protocol, clean, 0 if clean else 3600, keep_alive)
