"""The status of log-ins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from mesh.figures.instrument import counter
from mesh.figures.status import Status


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
