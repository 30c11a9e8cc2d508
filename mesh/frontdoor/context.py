"""What all vehicles of one front door share.

It holds the door's policy, its map, its settings and its counters: never connections. What always holds: it is created
once, before the first vehicle is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Protocol, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.roles import RolesOf
from mesh.broker.trace import Tracer
from mesh.frontdoor.edgepath import EdgePath, VehicleConnection
from mesh.transport.arrivals import ArrivalLimits
from mesh.transport.buckets import Buckets
from mesh.transport.buffers import BUFFERS
from mesh.transport.client import PACKET_RATE, ClientContext
from mesh.transport.refusal import Refused
from mesh.transport.turn import Turn
from mesh.wire.packets import Connect
from mesh.wire.reasons import CONNECTION_RATE_EXCEEDED

Identify = Callable[[Connect, Peer, Claim | None], Claim | Coroutine[object, object, Claim]]
"""Returns the claim of a CONNECT from a peer, whose name is the vehicle, or a coroutine of it; both raise ``Refused``.
The last argument is the claim that the client has proved by an authentication method."""

Join = Callable[[str, VehicleConnection], EdgePath]
"""Returns the path of a connection to the named edge, which gets the CONNECT when it is connected."""


class Owner(Protocol):
    """The owner of a vehicle. ``epoch`` grows with each change of the owner, and with each new map."""

    @property
    def edge(self) -> str: ...

    @property
    def epoch(self) -> int: ...


class OwnerMap(Protocol):
    """The map from vehicle to edge. Every error that it raises means that there is no answer at present."""

    def cached(self, vehicle: str) -> Owner | None:
        """The record, if it is cached."""

    async def lookup(self, vehicle: str) -> Owner | None:
        """The record; ``None`` for a vehicle that has none."""

    async def claim(self, vehicle: str) -> Owner:
        """Give the vehicle an owner; returns the record that won."""


@final
@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Seconds, bytes and counts.

    * ``connect_timeout``: for the whole CONNECT, even if single bytes keep coming (CVE-2020-13849);
    * ``attach_timeout``: how long a CONNECT waits for the vehicle's edge: longer than an edge takes to restart, shorter
      than clients wait for CONNACK;
    * ``held_per_vehicle``: bytes of one vehicle that wait for confirmation or an answer: some hundred reports;
    * ``held_per_edge``: the same for all vehicles of one edge: bounds the door's memory while an edge is disconnected;
    * ``held``: the same for all edges;
    * ``buffers``: bytes of unfinished packets, unread packets, CONNECTs and topic aliases of all vehicles;
    * ``packet_rate``: bytes a second at which a packet must come to count as a sign of life;
    * ``topic_aliases``: topic aliases that a vehicle may set up; the edges announce the same number in CONNACK;
    * ``set_username``: whether the edge gets the vehicle as the user name of the CONNECT;
    * ``arrivals``: bounds clients that are not known yet;
    * ``vehicle_connects``: CONNECTs of one vehicle a minute.
    """

    connect_timeout: float = 10.0
    attach_timeout: float = 30.0
    held_per_vehicle: int = 256 * 1024
    held_per_edge: int = 64 * 1024 * 1024
    held: int = 256 * 1024 * 1024
    buffers: int = BUFFERS
    packet_rate: int = PACKET_RATE
    topic_aliases: int = 0
    set_username: bool = False
    arrivals: ArrivalLimits = field(default_factory=ArrivalLimits)
    vehicle_connects: int = 1_000_000


@final
class DoorCounters:
    """Counters since the start of the door."""

    __slots__ = ("accepted", "packets_down", "packets_up")

    def __init__(self) -> None:
        self.accepted = 0
        self.packets_up = 0
        self.packets_down = 0


@final
class DoorContext:
    """``clients`` is the context of the listeners' client streams. ``flapping`` counts the CONNECTs of each vehicle."""

    __slots__ = ("clients", "counters", "flapping", "identify", "join", "map", "roles_of", "settings", "tracer",
                 "turn")  # fmt: skip

    def __init__(
        self,
        clients: ClientContext,
        turn: Turn,
        map: OwnerMap,
        identify: Identify,
        join: Join,
        tracer: Tracer,
        settings: DoorSettings,
        roles_of: RolesOf,
    ) -> None:
        self.clients = clients
        self.turn = turn
        self.map = map
        self.identify = identify
        self.join = join
        self.tracer = tracer
        self.settings = settings
        self.roles_of = roles_of
        self.counters = DoorCounters()
        self.flapping = Buckets(settings.vehicle_connects, 60.0)

    def flap(self, vehicle: str) -> None:
        """A vehicle connects, and is identified. Raises ``Refused`` with 0x9F if it does so too often: each CONNECT
        costs its edge a turn of the session, also if two clients with one identifier end each other's connections."""
        now = self.clients.group.loop.time()
        wait = self.flapping.wait(vehicle, now)
        if wait > 0:
            raise Refused(
                CONNECTION_RATE_EXCEEDED, f"{vehicle} connects too often; the next time is in {wait:.0f} s"
            )
        self.flapping.take(vehicle, now)
