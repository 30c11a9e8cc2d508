"""The status of an edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from mesh.figures.instrument import gauge
from mesh.figures.node import NodeStatus
from mesh.figures.status import Status
from mesh.node.status import BrokerHostStatus, ServicesStatus
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
    """The links of all front doors. ``sockets.refused`` counts vehicles that this edge does not own."""

    sockets: SocketsStatus
    doors: tuple[DoorLinkStatus, ...]

    @property
    def connections(self) -> int:
        """Connections of vehicles."""
        return sum(door.connections for door in self.doors)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeStatus(NodeStatus):
    """An edge that has started."""

    broker_host: BrokerHostStatus
    devices: DevicesStatus
    cores: SocketsStatus
    services: ServicesStatus
