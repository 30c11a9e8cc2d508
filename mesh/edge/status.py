"""The status of an edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from mesh.figures.instrument import counter, gauge
from mesh.figures.node import NodeStatus
from mesh.figures.status import Status
from mesh.node.status import BrokerHostStatus, ServicesStatus
from mesh.policy.status import NO_BANS, BansStatus
from mesh.transport.status import LINK_CONNECTIONS, LinkStatus, SocketsStatus


@final
@dataclass(frozen=True, slots=True)
class DoorLinkStatus(LinkStatus):
    """The device link of one front door."""

    connections: Annotated[int, LINK_CONNECTIONS]
    stalled: Annotated[
        int,
        gauge(
            "mesh_link_stalled_connections",
            "Connections of vehicles that wait because the front door does not read the link.",
            ("link", "peer"),
        ),
    ]


@final
@dataclass(frozen=True, slots=True)
class DevicesStatus(Status):
    """The links of all front doors. ``sockets.refused`` counts vehicles that this edge does not own, or whose packet
    ended its process; ``detail`` names the last such packet."""

    sockets: SocketsStatus
    doors: tuple[DoorLinkStatus, ...]
    poisoned: Annotated[
        int,
        counter(
            "mesh_poisoned_connections_total",
            "Connections of vehicles that were closed because handling the same packet ended the edge's process twice.",
        ),
    ]
    detail: str

    @property
    def connections(self) -> int:
        """Connections of vehicles."""
        return sum(door.connections for door in self.doors)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeStatus(NodeStatus):
    """An edge that has started."""

    foreign: Annotated[
        int, gauge("mesh_foreign_vehicles", "Vehicles of which the edge keeps messages, and which other edges own.")
    ]
    reclaimed: Annotated[
        int,
        counter(
            "mesh_reclaimed_vehicles_total", "Vehicles with sessions here that had no record in the map, and got one."
        ),
    ]
    broker_host: BrokerHostStatus
    devices: DevicesStatus
    cores: SocketsStatus
    bans: BansStatus = NO_BANS
    services: ServicesStatus
