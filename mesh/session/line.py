"""State of the present connection that the parts of a client's session share."""

from __future__ import annotations

from typing import final

from mesh.wire.packets import MQTT5


@final
class Line:
    """``out``: packets to send, in order; ``protocol``: 3, 4 or 5; ``durable``: the journal's durable position;
    ``max_packet``: the server's maximum packet size in bytes, 0 for no limit."""

    __slots__ = ("durable", "max_packet", "out", "protocol")

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.protocol = MQTT5
        self.durable = 0
        self.max_packet = 0
