"""What all attacks have in common: a target, a size, and a count of what the mesh did."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar, Final, NamedTuple, final

from mesh.wire.packets import MQTT5, PUBACK, Ack, Connack, Publish
from tests.attacks.raw import Address, Raw

_AT_ONCE: Final = 200  # dials at a time: more only measure the backlog of the listener
_WINDOW: Final = 500  # publishes under way
_SPARE: Final = 200  # descriptors of this process that an attack leaves alone


@final
class Asked(NamedTuple):
    """``server``: whom a mesh asks who vehicles are that come to ``listener``."""

    listener: Address
    server: Address


@final
class Target:
    """A running mesh: where vehicles and back ends connect, and the identity that the attacker has. ``secured``: where
    vehicles connect with TLS, if they can; ``asked``: where another server is asked who they are, if there is one."""

    def __init__(
        self, door: Address, core: Address, vehicle: str = "attacker", secured: Address | None = None,
        asked: Asked | None = None,
    ) -> None:  # fmt: skip
        self.secured = secured
        self.asked = asked
        self.door = door
        self.core = core
        self.vehicle = vehicle

    def topic(self, rest: str) -> str:
        """A topic of the attacker's own subtree."""
        return f"vehicles/{self.vehicle}/{rest}"


class Attack(ABC):
    """``about`` is one sentence for the table. ``size``: the share of the full attack that is made, above 0 to 1.

    ``run`` counts in ``seen`` what the mesh did, and raises ``AssertionError`` if it did what it must never do.
    """

    about: ClassVar[str]

    def __init__(self, target: Target, size: float) -> None:
        self.target = target
        self.size = size
        self.seen: dict[str, int] = {}

    @abstractmethod
    async def run(self) -> None:
        """Attack, and end all connections."""

    def full(self, number: int) -> int:
        """A number of the full attack, at this size."""
        return max(1, round(number * self.size))

    def count(self, what: str, number: int = 1) -> None:
        """Something happened."""
        self.seen[what] = self.seen.get(what, 0) + number

    async def vehicle(
        self,
        client_id: str = "attacker",
        protocol: int = MQTT5,
        clean: bool = True,
        expiry: int = 0,
        keep_alive: int = 0,
    ) -> Raw:
        """A connected vehicle of the attacker."""
        raw = await Raw.dial(self.target.door, protocol)
        answer = await raw.connect(client_id, self.target.vehicle, clean, expiry, keep_alive)
        self.note(answer)
        return raw

    async def backend(self, client_id: str = "attacker", protocol: int = MQTT5) -> Raw:
        """A connected back end."""
        raw = await Raw.dial(self.target.core, protocol)
        self.note(await raw.connect(client_id))
        return raw

    def note(self, answer: Connack | None) -> None:
        """Count an answer to CONNECT."""
        if answer is None:
            self.count("CONNECTs without an answer")
        elif answer.reason:
            self.count(f"CONNECTs refused with 0x{answer.reason:02X}")

    @asynccontextmanager
    async def crowd(self, number: int, join: Callable[[int], Awaitable[Raw]]) -> AsyncIterator[list[Raw]]:
        """``number`` connections made by ``join``, or as many as this process may have; closed at the end."""
        raise_descriptors()
        number = min(number, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE)
        gate = asyncio.Semaphore(_AT_ONCE)
        joined: list[Raw] = []

        async def one(index: int) -> None:
            async with gate:
                try:
                    joined.append(await join(index))
                except (OSError, TimeoutError):
                    self.count("connections not made")

        try:
            await asyncio.gather(*(one(index) for index in range(number)))
            self.count("connections", len(joined))
            yield joined
        finally:
            for raw in joined:
                raw.abort()

    async def count_closed(self, crowd: list[Raw], seconds: float) -> None:
        """Count which connections the mesh closes in this time."""
        closed = await asyncio.gather(*(raw.closed(seconds) for raw in crowd))
        self.count("closed by the mesh", sum(closed))


def raise_descriptors() -> None:
    """Allow this process as many descriptors as the system lets it have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def publish_all(raw: Raw, packets: Iterable[Publish], window: int = _WINDOW) -> list[int]:
    """Publish with QoS 1 as fast as the answers come; returns their reason codes, fewer if the connection ends.
    Identifiers are given here. Messages that come meanwhile are acknowledged."""
    codes: list[int] = []
    sent = 0
    for packet in packets:
        sent += 1
        packet.packet_id = (sent - 1) % 65_535 + 1
        raw.say(packet)
        if sent - len(codes) >= window:
            await raw.flush()
        while sent - len(codes) >= window:
            if not await _answered(raw, codes):
                return codes
    while len(codes) < sent:
        if not await _answered(raw, codes):
            break
    return codes


async def _answered(raw: Raw, codes: list[int]) -> bool:
    """Take one packet; ``False`` if none came."""
    packet = await raw.next()
    if isinstance(packet, Ack) and packet.type == PUBACK:
        codes.append(packet.reason)
    elif isinstance(packet, Publish) and packet.qos == 1:
        raw.say(Ack(PUBACK, packet.packet_id))
    return packet is not None


def retained(topics: Iterable[str], payload: bytes = b"x") -> Iterator[Publish]:
    """A retained message for each topic; an empty payload removes it."""
    for topic in topics:
        yield Publish(topic, payload, 1, True)
