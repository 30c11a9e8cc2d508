"""The status of a broker. Not compiled: ``mesh.figures.status`` reads the types of the fields.

``BrokerCounters`` (see ``counters``) counts on the hot path; a status is made from it on request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, final

from mesh.figures.instrument import Distribution, counter, gauge, histogram
from mesh.figures.status import Status

CONNECTS: Final = counter("mesh_connects_total", "CONNECT packets that were accepted.")
_DROPPED: Final = counter("mesh_messages_dropped_total", "Messages dropped for one receiver, by reason.", ("reason",))
_LETTERS: Final = counter(
    "mesh_dead_letters_kept_total", "Messages that were put into the dead letters, by reason.", ("reason",)
)
_LETTERS_DROPPED: Final = counter(
    "mesh_dead_letters_dropped_total", "Dead letters dropped before a reader had them, by cause.", ("cause",)
)

_FORBIDDEN: Final = counter(
    "mesh_messages_forbidden_total",
    "Messages that their sender may not publish: with PUBLISH (reason topic), or as its will (reason will).",
    ("reason",),
)
_REVOKED: Final = counter(
    "mesh_revoked_total",
    "Subscriptions that ended, and retained messages that were deleted, as their client has lost the right.",
    ("kind",),
)


_REFUSALS: Final = counter(
    "mesh_quota_refusals_total", "New load that a limit of a vehicle or a budget of the node refused.", ("kind",)
)


@final
@dataclass(frozen=True, slots=True)
class QuotaStatus(Status):
    """The budgets of a node. ``strain`` is one sentence while new load is refused, else empty."""

    memory: Annotated[
        int,
        gauge(
            "mesh_budget_memory_bytes",
            "Memory of sessions, subscriptions, retained messages and queues, as estimated.",
            unit="bytes",
        ),
    ]
    memory_limit: Annotated[
        int, gauge("mesh_budget_memory_limit_bytes", "The memory budget of the node; 0: none.", unit="bytes")
    ]
    disk_limit: Annotated[
        int, gauge("mesh_budget_disk_limit_bytes", "The disk budget of the journal; 0: none.", unit="bytes")
    ]
    strained: Annotated[
        bool, gauge("mesh_budget_strained", "Whether new load is refused because a budget is used up to nine tenths.")
    ]
    refused_sessions: Annotated[int, _REFUSALS.of(kind="session")]
    refused_subscriptions: Annotated[int, _REFUSALS.of(kind="subscription")]
    refused_retained: Annotated[int, _REFUSALS.of(kind="retained")]
    refused_queued: Annotated[int, _REFUSALS.of(kind="queued")]
    strain: str = ""


@final
@dataclass(frozen=True, slots=True)
class BrokerStatus(Status):
    """Sessions and messages of one broker. The topics below ``$SYS`` show the same figures."""

    connected: Annotated[int, gauge("mesh_sessions_connected", "Sessions that have a connection.")]
    sessions: Annotated[int, gauge("mesh_sessions", "Sessions, with and without a connection.")]
    queued: Annotated[
        int, gauge("mesh_messages_queued", "Deliveries that wait in sessions, or are sent and not acknowledged.")
    ]
    retained: Annotated[int, gauge("mesh_messages_retained", "Topics that have a retained message.")]
    subscriptions: Annotated[int, gauge("mesh_subscriptions", "Subscriptions of all sessions.")]

    quotas: QuotaStatus
    pressed: Annotated[
        int, gauge("mesh_sessions_pressed", "Sessions of connected vehicles whose queue is full: cores hold back.")
    ]
    delayed: Annotated[
        int, gauge("mesh_publishes_delayed", "Publishes whose answers wait because a connected receiver is behind.")
    ]

    connects: Annotated[int, CONNECTS]
    refused: Annotated[int, counter("mesh_connects_refused_total", "CONNECT packets that the broker refused.")]
    takeovers: Annotated[
        int, counter("mesh_session_takeovers_total", "Connections closed because their client connected again.")
    ]
    expired: Annotated[int, counter("mesh_sessions_expired_total", "Sessions that ended while they had no connection.")]
    received: Annotated[int, counter("mesh_packets_received_total", "Packets of all types from clients.")]
    answered: Annotated[int, counter("mesh_answers_sent_total", "Packets to clients, PUBLISH excepted.")]
    published: Annotated[int, counter("mesh_messages_published_total", "PUBLISH packets taken from clients.")]
    delivered: Annotated[int, counter("mesh_messages_delivered_total", "PUBLISH packets sent to clients.")]
    rejected: Annotated[int, counter("mesh_messages_rejected_total", "Messages refused because a queue was full.")]
    presses: Annotated[
        int, counter("mesh_sessions_pressed_total", "How often the queue of a connected vehicle became full.")
    ]
    forbidden: Annotated[int, _FORBIDDEN.of(reason="topic")]
    forbidden_wills: Annotated[int, _FORBIDDEN.of(reason="will")]
    revoked_subscriptions: Annotated[int, _REVOKED.of(kind="subscription")]
    revoked_retained: Annotated[int, _REVOKED.of(kind="retained")]
    misfits: Annotated[
        int,
        counter(
            "mesh_acknowledgements_misfit_total",
            "Acknowledgements that did not fit the state of their delivery; each closed its connection.",
        ),
    ]
    dropped_expired: Annotated[int, _DROPPED.of(reason="expired")]
    dropped_full: Annotated[int, _DROPPED.of(reason="full")]
    dropped_large: Annotated[int, _DROPPED.of(reason="large")]
    dropped_offline: Annotated[int, _DROPPED.of(reason="offline")]
    dropped_poison: Annotated[int, _DROPPED.of(reason="poison")]

    letters: Annotated[int, gauge("mesh_dead_letters", "Messages in the dead letters.")]
    letters_bytes: Annotated[int, gauge("mesh_dead_letters_bytes", "Bytes of the dead letters.", unit="bytes")]
    letters_waiting: Annotated[
        int, gauge("mesh_dead_letters_waiting", "Publishers' messages that wait for room in the dead letters.")
    ]
    letters_full: Annotated[int, _LETTERS.of(reason="full")]
    letters_refused: Annotated[int, _LETTERS.of(reason="refused")]
    letters_large: Annotated[int, _LETTERS.of(reason="large")]
    letters_expired: Annotated[int, _LETTERS.of(reason="expired")]
    letters_no_owner: Annotated[int, _LETTERS.of(reason="no owner")]
    letters_poison: Annotated[int, _LETTERS.of(reason="poison")]
    letters_other: Annotated[int, _LETTERS.of(reason="other")]
    letters_read: Annotated[
        int, counter("mesh_dead_letters_read_total", "Dead letters that a reader has acknowledged.")
    ]
    letters_not_taken: Annotated[
        int,
        counter("mesh_dead_letters_not_taken_total", "Dead letters that a reader could not take; they stay."),
    ]
    letters_dropped_share: Annotated[int, _LETTERS_DROPPED.of(cause="share")]
    letters_dropped_node: Annotated[int, _LETTERS_DROPPED.of(cause="node")]
    letters_dropped_age: Annotated[int, _LETTERS_DROPPED.of(cause="age")]
    filling: Annotated[
        int, gauge("mesh_backend_queues_filling", "Queues of back ends that are at least three quarters full.")
    ]

    acknowledge: Annotated[
        Distribution,
        histogram(
            "mesh_publish_acknowledge_seconds",
            "Time from a PUBLISH of QoS 1 or 2 at this node to its PUBACK or PUBREC; one message in 16 is measured.",
        ),
    ]
    deliver: Annotated[
        Distribution,
        histogram(
            "mesh_publish_deliver_seconds",
            "Time from a PUBLISH at this node until it is sent to a receiver, retained messages excepted; "
            "one delivery in 16 is measured.",
        ),
    ]
