"""What all vehicles of one front door share.

It holds the door's policy, its map, its settings and its counters: never connections. What always holds: it is made
once, before the first vehicle is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

from mesh.broker.peer import Peer
from mesh.broker.trace import Tracer
from mesh.frontdoor.edgepath import EdgePath, VehicleConnection
from mesh.transport.client import ClientContext
from mesh.transport.turn import Turn
from mesh.wire.packets import Connect

Identify = Callable[[Connect, Peer], str]
"""The vehicle of a CONNECT from a peer; raises ``Refused``."""

Proven = Callable[[Connect, str], str]
"""The vehicle of a CONNECT whose sender has proved an identity; raises ``Refused``."""

Join = Callable[[str, VehicleConnection], EdgePath]
"""The lane of a connection to the edge of a name, which need not be there at present; the edge gets the CONNECT."""


class Owner(Protocol):
    """The owner of a vehicle. ``epoch`` grows by one with each change of the owner."""

    @property
    def edge(self) -> str: ...

    @property
    def epoch(self) -> int: ...


class OwnerMap(Protocol):
    """The map from vehicle to edge. Its errors, whatever they are, mean that there is no answer at present."""

    def cached(self, vehicle: str) -> Owner | None:
        """The record, if it is known without asking."""

    async def lookup(self, vehicle: str) -> Owner | None:
        """The record; ``None`` for a vehicle that was never seen."""

    async def claim(self, vehicle: str) -> Owner:
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
class DoorCounters:
    """Since the start."""

    __slots__ = ("accepted", "packets_down", "packets_up")

    def __init__(self) -> None:
        self.accepted = 0
        self.packets_up = 0
        self.packets_down = 0


@final
class DoorContext:
    """``clients`` is the listeners'."""

    __slots__ = ("clients", "counters", "identify", "join", "map", "proven", "settings", "tracer", "turn")

    def __init__(
        self,
        clients: ClientContext,
        turn: Turn,
        map: OwnerMap,
        identify: Identify,
        proven: Proven,
        join: Join,
        tracer: Tracer,
        settings: DoorSettings,
    ) -> None:
        self.clients = clients
        self.turn = turn
        self.map = map
        self.identify = identify
        self.proven = proven
        self.join = join
        self.tracer = tracer
        self.settings = settings
        self.counters = DoorCounters()
