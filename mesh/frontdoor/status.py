"""The status of a front door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, final

from mesh.broker.status import CONNECTS
from mesh.figures.instrument import counter, gauge
from mesh.figures.node import NodeStatus
from mesh.figures.status import Status
from mesh.node.status import ServicesStatus
from mesh.policy.status import NO_BANS, AttemptsStatus, BansStatus, ProviderStatus
from mesh.transport.status import LINK_CONNECTIONS, ArrivalsStatus, BuffersStatus, LinkStatus, SocketsStatus, TurnStatus

_LINK: Final = ("link", "peer")
_RELAYED: Final = counter(
    "mesh_relayed_packets_total", "Packets passed on, upstream (from vehicles) or downstream.", ("direction",)
)


@final
@dataclass(frozen=True, slots=True)
class EdgeLinkStatus(LinkStatus):
    """The device link to one edge. ``state`` is ``away``, ``replaying`` or ``up``."""

    connections: Annotated[int, LINK_CONNECTIONS]
    held_bytes: Annotated[
        int, gauge("mesh_link_held_bytes", "Bytes of packets that the edge has not confirmed.", _LINK, "bytes")
    ]
    unconfirmed: Annotated[
        int, gauge("mesh_link_unconfirmed_frames", "Frames sent on the present link and not confirmed.", _LINK)
    ]
    losses: Annotated[int, counter("mesh_link_losses_total", "How often the link was lost.", _LINK)]
    closed: Annotated[
        int,
        counter(
            "mesh_link_closed_connections_total",
            "Connections closed because the front door holds as much for the edges as it may.",
            _LINK,
        ),
    ]
    state: str


@final
@dataclass(frozen=True, slots=True)
class ConnectionsStatus(Status):
    """The connections of a front door and its links."""

    clients: SocketsStatus
    buffers: BuffersStatus
    arrivals: ArrivalsStatus
    accepted: Annotated[int, CONNECTS]
    packets_up: Annotated[int, _RELAYED.of(direction="upstream")]
    packets_down: Annotated[int, _RELAYED.of(direction="downstream")]
    links: tuple[EdgeLinkStatus, ...]
    turns: TurnStatus


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DoorStatus(NodeStatus):
    """A front door that has started."""

    door: ConnectionsStatus
    attempts: AttemptsStatus
    providers: tuple[ProviderStatus, ...] = ()
    bans: BansStatus = NO_BANS
    services: ServicesStatus
