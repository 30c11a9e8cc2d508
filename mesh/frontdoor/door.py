"""The front door: it owns the vehicles' connections, and nothing else of them.

It composes listeners, links and the map. It must never know sessions or messages: those are the edge's. What always
holds: a vehicle's connection is not closed because an edge, a core or etcd is away; what is held for whoever is away is
bounded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

from mesh.broker.trace import Tracer
from mesh.frontdoor.links import Links, Members
from mesh.frontdoor.vehicle import Vehicle
from mesh.transport.admission import Admission
from mesh.transport.endpoint import settle
from mesh.transport.handshake import Prove
from mesh.transport.listener import SPARE, Listener
from mesh.transport.near import Near, nowhere
from mesh.transport.notices import Notices
from mesh.transport.refusal import Refused
from mesh.transport.stream import EAGER, Home
from mesh.transport.turn import Turn
from mesh.transport.wheel import Wheel
from mesh.wire.limits import Limits
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_AUTHENTICATION_METHOD

log = logging.getLogger(__name__)

Identify = Callable[[Connect, str], str]


class Record(Protocol):
    """Who owns a vehicle, and for the how-manieth time it was given an owner."""

    @property
    def edge(self) -> str: ...

    @property
    def epoch(self) -> int: ...


class VehicleMap(Protocol):
    """The map from vehicle to edge. Its errors, whatever they are, mean that there is no answer at present."""

    def cached(self, vehicle: str) -> Record | None:
        """The record, if it is known without asking."""

    async def lookup(self, vehicle: str) -> Record | None:
        """The record; ``None`` for a vehicle that was never seen."""

    async def claim(self, vehicle: str) -> Record:
        """Give the vehicle an owner; the record that won."""


@final
@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Seconds, bytes and counts.

    * ``connect_timeout``: for the whole CONNECT, however slowly it comes (CVE-2020-13849);
    * ``attach_timeout``: that a CONNECT waits for the vehicle's edge: longer than a restart of it, shorter than clients
      wait for CONNACK;
    * ``held_per_vehicle``: bytes of one vehicle that wait for confirmation: some hundred reports;
    * ``held_per_edge``: the same for all vehicles of one edge: what the door may cost while an edge is away;
    * ``topic_aliases``: that a vehicle may set up, as the edges tell it.
    """

    connect_timeout: float = 10.0
    attach_timeout: float = 30.0
    held_per_vehicle: int = 256 * 1024
    held_per_edge: int = 64 * 1024 * 1024
    topic_aliases: int = 0


@final
class Counters:
    """Since the start."""

    __slots__ = ("accepted", "packets_down", "packets_up", "refused", "silent")

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.silent = 0
        self.packets_up = 0
        self.packets_down = 0


def _nobody(_connect: Connect, _identity: str) -> str:
    raise Refused(BAD_AUTHENTICATION_METHOD)


def _far(_edge: str) -> Near:
    return nowhere


@final
class FrontDoor:
    """``listen``: addresses (host, port; port 0 takes a free one, see ``ports``); ``epoch`` grows with each start of
    this door's name. ``near`` gives an edge's socket on this machine.

    ``identify`` gives the vehicle of a CONNECT from a peer's address, or raises ``Refused``; ``proven`` gives that of
    who has proved its identity by a method of ``admission``. ``prove`` is the mesh secret's (see ``handshake``).
    Several doors of one machine may listen on the same address.
    """

    def __init__(
        self,
        name: str,
        epoch: int,
        listen: list[tuple[str, int]],
        map: VehicleMap,
        members: Members,
        identify: Identify,
        prove: Prove,
        admission: Admission,
        tracer: Tracer | None = None,
        limits: Limits | None = None,
        settings: DoorSettings | None = None,
        near: Callable[[str], Near] = _far,
        proven: Callable[[Connect, str], str] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.map = map
        self.identify = identify
        self.admission = admission
        self.proven = proven or _nobody
        self.tracer = tracer or Tracer()
        self.limits = limits or Limits()
        self.settings = settings or DoorSettings()
        self.counters = Counters()
        self.notices = Notices(log)
        self.turn = Turn(loop)
        self.wheel = Wheel(loop)
        self.home = Home(loop, self.wheel, high=EAGER)
        self._inside = Home(loop, self.wheel)
        packet, held = self.limits.max_packet_size, self.settings.held_per_edge
        self.links = Links(name, epoch, prove, members, near, self._inside, self.turn, packet, held)
        self._listeners = [
            Listener(name, host, port, self.home, self._vehicle, admission.most, shared=True, spare=SPARE)
            for host, port in listen
        ]

    @property
    def ports(self) -> list[int]:
        """The ports that are listened on, in the order of ``listen``."""
        return [listener.port for listener in self._listeners]

    async def start(self) -> None:
        """Connect to the edges and accept vehicles. Raises ``OSError`` that names the address when it cannot be had."""
        self.wheel.start()
        self.links.changed()
        for listener in self._listeners:
            await listener.start()

    def members_changed(self) -> None:
        """To be called whenever the membership has changed."""
        self.links.changed()

    async def stop(self, grace: float) -> None:
        """Accept no more and dismiss the vehicles, spread over half of ``grace`` seconds: they all come back to some
        other door."""
        deadline = self.home.loop.time() + grace
        for listener in self._listeners:
            listener.stop()
        await self._dismiss(grace / 2)
        await settle(self.home, max(0.0, deadline - self.home.loop.time()))
        self.turn.end()
        await self.links.drain(deadline - self.home.loop.time())
        await self.links.stop()
        await settle(self._inside, max(0.1, deadline - self.home.loop.time()))
        self.wheel.stop()

    def status(self) -> dict[str, object]:
        """Figures for people and metrics."""
        counters = self.counters
        return {
            "listen": [f"{listener.host}:{listener.port}" for listener in self._listeners],
            "connections": len(self.home.streams),
            "accepted": counters.accepted,
            "refused": counters.refused + sum(listener.refused for listener in self._listeners),
            "silent": counters.silent,
            "packets_up": counters.packets_up,
            "packets_down": counters.packets_down,
            "bytes_in": self.home.bytes_in,
            "bytes_out": self.home.bytes_out,
            "held": self.home.held(),
            "links": self.links.status(),
        }

    async def _dismiss(self, seconds: float) -> None:
        vehicles = [stream for stream in self.home.streams if isinstance(stream, Vehicle)]
        steps = max(1, min(len(vehicles), int(seconds / 0.05)))
        size = -(-len(vehicles) // steps)
        for start in range(0, len(vehicles), max(1, size)):
            for vehicle in vehicles[start : start + size]:
                vehicle.dismiss()
            await asyncio.sleep(seconds / steps if len(vehicles) > 1 else 0)

    def _vehicle(self) -> Vehicle:
        return Vehicle(self)
