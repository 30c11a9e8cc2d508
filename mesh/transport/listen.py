"""Where a node listens, as one value.

It knows the kind of listener and its address: never which clients may connect. What always holds: a value never
changes; only the ``Listener`` knows a free port that the system chose.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Listen:
    """``kind`` is ``mqtt`` for clients; ``device`` and ``tier`` are an edge's ports for front doors and cores. ``port``
    0 takes a free port. ``path`` is the path of a WebSocket listener, else empty. ``tls`` is the server's TLS context;
    ``None`` for a plain listener."""

    kind: str
    host: str
    port: int
    path: str = ""
    tls: ssl.SSLContext | None = None

    def __str__(self) -> str:
        """The listener's name in logs and figures: ``mqtt://127.0.0.1:1883``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}{self.path}"
