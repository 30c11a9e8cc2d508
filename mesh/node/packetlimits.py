"""The limits for packets of clients, for connections that were opened before and after a change.

It knows packet limits: never connections. What always holds: a connection keeps the largest packet that its CONNACK
named, because it keeps the object that it was opened with; the depth of topics, of which no CONNACK speaks, holds for
all connections at once. There is one object for each size that the topology had.
"""

from __future__ import annotations

from typing import final

from mesh.wire.limits import PacketLimits


@final
class ClientLimits:
    """``present``: the limits of connections that open now."""

    __slots__ = ("_all", "present")

    def __init__(self, present: PacketLimits) -> None:
        self.present = present
        self._all = {present.max_packet_size: present}

    def take(self, limits: PacketLimits) -> PacketLimits:
        """Have these limits from now on; returns the object for new connections."""
        for known in self._all.values():
            known.max_topic_levels = limits.max_topic_levels
        self.present = self._all.setdefault(limits.max_packet_size, limits)
        return self.present
