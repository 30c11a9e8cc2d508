"""Where a node listens, as one value.

It knows the kind of listener and its address: never who may come in. What always holds: a value never changes; a free
port that the system chose is known to the ``Listener`` only.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Listen:
    """``kind`` is ``mqtt`` for clients; ``device`` and ``tier`` are an edge's ports for front doors and cores. ``port``
    0 takes a free port. ``path`` is that of a WebSocket listener, else empty. ``tls``: the server's side of TLS;
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
