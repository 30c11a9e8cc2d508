"""The status of sockets and links. Not compiled: ``mesh.figures.status`` reads the types of the fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, final

from mesh.figures.instrument import Distribution, Label, counter, gauge, histogram
from mesh.figures.status import Status

# What a socket or link carries: packets of clients, of vehicles (a device link), or of a core (a tier link).
CLIENT: Final = "client"
DEVICE: Final = "device"
TIER: Final = "tier"

_HELD: Final = gauge(
    "mesh_connections_held", "Connections that are not read at present, by reason.", ("link", "reason")
)


@final
@dataclass(frozen=True, slots=True)
class Held(Status):
    """How many streams are not read, by reason (see ``stream``); a stream may have several."""

    writing: Annotated[int, _HELD.of(reason="writing")] = 0
    broker: Annotated[int, _HELD.of(reason="broker")] = 0
    identity: Annotated[int, _HELD.of(reason="identity")] = 0
    link: Annotated[int, _HELD.of(reason="link")] = 0
    node: Annotated[int, _HELD.of(reason="node")] = 0
    turn: Annotated[int, _HELD.of(reason="turn")] = 0


@final
@dataclass(frozen=True, slots=True)
class TurnStatus(Status):
    """The turns of a node's loop; see ``turn``."""

    longest: Annotated[
        float,
        gauge(
            "mesh_turn_longest_seconds", "The longest turn of the loop since the start, in processor time.", (),
            "seconds",
        ),
    ]
    spent: Annotated[
        Distribution,
        histogram("mesh_turn_seconds", "Processor time of the turns of the loop, garbage collection included."),
    ]


@final
@dataclass(frozen=True, slots=True)
class BuffersStatus(Status):
    """What the clients of a node make it buffer (see ``buffers``)."""

    used: Annotated[
        int,
        gauge(
            "mesh_buffered_bytes",
            "Bytes buffered for clients: unfinished and unread packets, CONNECTs, topic aliases.",
            unit="bytes",
        ),
    ]
    limit: Annotated[int, gauge("mesh_buffers_limit_bytes", "The most bytes that may be buffered.", unit="bytes")]
    closed: Annotated[
        int,
        counter("mesh_buffers_closed_total", "Connections closed because they buffered the most at the limit."),
    ]


_REFUSED: Final = counter(
    "mesh_arrivals_refused_total",
    "CONNECTs (connect) and TLS handshakes (handshake) that were refused because too many came.",
    ("kind",),
)


@final
@dataclass(frozen=True, slots=True)
class ArrivalsStatus(Status):
    """Clients that are not known yet (see ``arrivals``)."""

    pending: Annotated[int, gauge("mesh_pending_connects", "Connections whose CONNECT is not complete.")]
    closed: Annotated[
        int,
        counter(
            "mesh_pending_connects_closed_total", "Connections closed because too many had not completed their CONNECT."
        ),
    ]
    connects: Annotated[int, _REFUSED.of(kind="connect")]
    handshakes: Annotated[int, _REFUSED.of(kind="handshake")]


@final
@dataclass(frozen=True, slots=True)
class CertificateStatus(Status):
    """A file with a certificate. ``days`` until it expires; negative if it has expired."""

    file: Annotated[str, Label("file")]
    days: Annotated[
        float,
        gauge(
            "mesh_tls_certificate_days",
            "Days until a certificate of a listener expires.",
            ("link", "listener", "file"),
        ),
    ]


_HANDSHAKES: Final = counter(
    "mesh_tls_handshakes_total",
    "TLS handshakes of a listener, by result: done (of a new session), resumed, failed.",
    ("link", "listener", "result"),
)


@final
@dataclass(frozen=True, slots=True)
class TlsStatus(Status):
    """The TLS of one listener: its handshakes; whether the files that are there now cannot be used, so that older ones
    are in force; how many certificates are revoked."""

    begun: Annotated[
        int, counter("mesh_tls_handshakes_begun_total", "TLS handshakes that have begun.", ("link", "listener"))
    ]
    done: Annotated[int, _HANDSHAKES.of(result="done")]
    resumed: Annotated[int, _HANDSHAKES.of(result="resumed")]
    failed: Annotated[int, _HANDSHAKES.of(result="failed")]
    wrong: Annotated[
        bool,
        gauge(
            "mesh_tls_files_wrong",
            "Whether the files of a listener have changed to some that cannot be used; the old ones stay in force.",
            ("link", "listener"),
        ),
    ]
    revoked: Annotated[
        int,
        gauge("mesh_tls_revoked", "Certificates that the lists of a listener revoke.", ("link", "listener")),
    ]
    certificates: tuple[CertificateStatus, ...]


@final
@dataclass(frozen=True, slots=True)
class ListenerStatus(Status):
    """One listening socket; ``listener`` is its name: ``mqtt://127.0.0.1:1883``."""

    listener: Annotated[str, Label("listener")]
    accepted: Annotated[
        int,
        counter(
            "mesh_listener_accepted_total",
            "Connections that reached a listener, with the refused ones.",
            ("link", "listener"),
        ),
    ]
    refused: Annotated[
        int,
        counter(
            "mesh_listener_refused_total",
            "Connections closed at once because the limit of connections was reached.",
            ("link", "listener"),
        ),
    ]
    starved: Annotated[
        int,
        counter(
            "mesh_listener_starved_total",
            "Times, one a second, at which the process could open no file and so accept no connection.",
            ("link", "listener"),
        ),
    ]
    turned_away: Annotated[
        int,
        counter(
            "mesh_listener_turned_away_total",
            "Connections that ended before MQTT could begin: the address is banned, or PROXY protocol, TLS or "
            "WebSocket was refused, or late.",
            ("link", "listener"),
        ),
    ] = 0
    tls: TlsStatus | None = None


@final
@dataclass(frozen=True, slots=True)
class SocketsStatus(Status):
    """The sockets of one kind, ``CLIENT``, ``DEVICE`` or ``TIER``, and their listeners."""

    link: Annotated[str, Label("link")]
    connections: Annotated[int, gauge("mesh_connections", "Open network connections.", ("link",))]
    refused: Annotated[
        int,
        counter(
            "mesh_connections_refused_total",
            "Connections closed before their CONNECT was accepted: late, malformed or not allowed.",
            ("link",),
        ),
    ]
    silent: Annotated[
        int,
        counter(
            "mesh_keep_alive_timeouts_total", "Connections closed because the client was silent.", ("link",)
        ),
    ]
    bytes_in: Annotated[
        int, counter("mesh_received_bytes_total", "Bytes read from sockets, without TLS.", ("link",), "bytes")
    ]
    bytes_out: Annotated[
        int, counter("mesh_sent_bytes_total", "Bytes written to sockets, without TLS.", ("link",), "bytes")
    ]
    held: Held
    listeners: tuple[ListenerStatus, ...]
    outlived: Annotated[
        int,
        counter(
            "mesh_claims_expired_total",
            "Connections closed because what proved the client's identity, such as a token, has expired.",
            ("link",),
        ),
    ] = 0

    def with_refused(self) -> int:
        """All refused connections: by a listener, or later."""
        return self.refused + sum(listener.refused for listener in self.listeners)


def together(link: str, statuses: Sequence[SocketsStatus]) -> SocketsStatus:
    """The sum of several statuses of one kind."""
    held = [status.held for status in statuses]
    return SocketsStatus(
        link,
        connections=sum(status.connections for status in statuses),
        refused=sum(status.refused for status in statuses),
        silent=sum(status.silent for status in statuses),
        outlived=sum(status.outlived for status in statuses),
        bytes_in=sum(status.bytes_in for status in statuses),
        bytes_out=sum(status.bytes_out for status in statuses),
        held=Held(
            writing=sum(one.writing for one in held),
            broker=sum(one.broker for one in held),
            identity=sum(one.identity for one in held),
            link=sum(one.link for one in held),
            node=sum(one.node for one in held),
            turn=sum(one.turn for one in held),
        ),
        listeners=tuple(listener for status in statuses for listener in status.listeners),
    )


LINK_CONNECTIONS: Final = gauge(
    "mesh_link_connections", "Connections of vehicles that belong to a device link.", ("link", "peer")
)


@dataclass(frozen=True, slots=True)
class LinkStatus(Status):
    """This node's end of a link: ``link`` is ``DEVICE`` or ``TIER``, ``peer`` the node at the other end."""

    link: Annotated[str, Label("link")]
    peer: Annotated[str, Label("peer")]
    up: Annotated[bool, gauge("mesh_link_up", "Whether a link to another node is up.", ("link", "peer"))]
