"""The status of a core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, final

from mesh.figures.instrument import counter, gauge
from mesh.figures.node import NodeStatus
from mesh.node.status import BrokerHostStatus, ServicesStatus
from mesh.policy.status import NO_BANS, AttemptsStatus, BansStatus, ProviderStatus
from mesh.transport.status import ArrivalsStatus, BuffersStatus, LinkStatus, SocketsStatus

_LINK: Final = ("link", "peer")


@final
@dataclass(frozen=True, slots=True)
class TierLinkStatus(LinkStatus):
    """The tier link to one edge. ``error`` says why it is down, or which filter the edge refused last; the
    text follows the edge's name."""

    in_flight: Annotated[
        int, gauge("mesh_link_in_flight_messages", "Messages sent to the edge and not acknowledged yet.", _LINK)
    ]
    waiting: Annotated[int, gauge("mesh_link_waiting_messages", "Messages that wait to be sent to the edge.", _LINK)]
    spool: Annotated[
        int, gauge("mesh_link_spool_messages", "Messages in the journal for the edge, sent or not.", _LINK)
    ]
    spool_bytes: Annotated[int, gauge("mesh_link_spool_bytes", "Bytes of the messages in the spool.", _LINK, "bytes")]
    sent: Annotated[int, counter("mesh_link_sent_messages_total", "PUBLISH packets sent to the edge.", _LINK)]
    arrived: Annotated[
        int, counter("mesh_link_received_messages_total", "PUBLISH packets received from the edge.", _LINK)
    ]
    spooled: Annotated[
        int, counter("mesh_link_spooled_messages_total", "Messages written to the spool since the start.", _LINK)
    ]
    rejected: Annotated[
        int,
        counter(
            "mesh_link_rejected_messages_total",
            "Messages from the spool that the edge refused after their publisher was acknowledged.",
            _LINK,
        ),
    ]
    held: Annotated[
        int,
        gauge("mesh_link_held_messages", "Messages held back because the queues of their vehicles are full.", _LINK),
    ]
    pressed: Annotated[int, gauge("mesh_link_held_vehicles", "Vehicles whose messages are held back.", _LINK)]
    refused: Annotated[
        int,
        counter(
            "mesh_link_refused_messages_total",
            "Messages refused because the queue of their vehicle was full for longer than queue_patience, or too many "
            "messages were held back.",
            _LINK,
        ),
    ]
    error: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CoreStatus(NodeStatus):
    """A core that has started."""

    broker_host: BrokerHostStatus
    clients: tuple[SocketsStatus, ...]
    buffers: BuffersStatus
    arrivals: ArrivalsStatus
    links: tuple[TierLinkStatus, ...]
    unknown_vehicles: Annotated[
        int, counter("mesh_unknown_vehicle_messages_total", "Messages for vehicles that no edge owns.")
    ]
    attempts: AttemptsStatus
    providers: tuple[ProviderStatus, ...] = ()
    bans: BansStatus = NO_BANS
    services: ServicesStatus
