"""What the parts of a client's session share of the present connection."""

from __future__ import annotations

from typing import final

from mesh.wire.packets import MQTT5


@final
class Line:
    """``out``: packets to be sent, in order; ``protocol``: 3, 4 or 5; ``durable``: the journal's durable position;
    ``max_packet``: bytes that the server takes, 0 for any."""

    __slots__ = ("durable", "max_packet", "out", "protocol")

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.protocol = MQTT5
        self.durable = 0
        self.max_packet = 0
