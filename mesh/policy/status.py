"""The status of log-ins and of bans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, final

from mesh.figures.instrument import Label, counter, gauge
from mesh.figures.status import Status

_DECISIONS: Final = counter(
    "mesh_identity_decisions_total",
    "Decisions about who a client is, by provider and outcome; failed: the provider could not decide.",
    ("provider", "outcome"),
)


@final
@dataclass(frozen=True, slots=True)
class ProviderStatus(Status):
    """A provider of identities. ``fault`` says why it does not work as it is meant to, in one sentence."""

    name: Annotated[str, Label("provider")]
    allowed: Annotated[int, _DECISIONS.of(outcome="allow")]
    denied: Annotated[int, _DECISIONS.of(outcome="deny")]
    passed: Annotated[int, _DECISIONS.of(outcome="next")]
    failed: Annotated[int, _DECISIONS.of(outcome="failed")]
    cached: Annotated[
        int, counter("mesh_identity_cached_total", "Decisions that were known from before.", ("provider",))
    ]
    faulty: Annotated[
        int,
        gauge(
            "mesh_identity_provider_faulty",
            "1 while a provider does not work as it is meant to: its server does not answer, or its file is wrong.",
            ("provider",),
        ),
    ]
    fault: str


@final
@dataclass(frozen=True, slots=True)
class AttemptsStatus(Status):
    """Log-ins with passwords, of back ends at a core or of vehicles at a front door."""

    wrong: Annotated[int, counter("mesh_wrong_passwords_total", "Wrong passwords of back ends or vehicles.")]
    unseen: Annotated[
        int,
        counter(
            "mesh_unseen_passwords_total",
            "Passwords that were refused without a look, because too many wrong ones came before.",
        ),
    ]


@final
@dataclass(frozen=True, slots=True)
class BansStatus(Status):
    """The bans in force at a node, and what they and kicks have ended."""

    bans: Annotated[int, gauge("mesh_bans", "Bans in force at this node.")] = 0
    refused: Annotated[
        int, counter("mesh_banned_connects_total", "Connections refused because of a ban, also before their CONNECT.")
    ] = 0
    ended: Annotated[int, counter("mesh_banned_connections_total", "Open connections ended by a ban.")] = 0
    kicked: Annotated[int, counter("mesh_kicked_connections_total", "Open connections ended by mesh kick.")] = 0


NO_BANS: Final = BansStatus()
