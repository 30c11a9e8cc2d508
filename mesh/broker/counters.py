"""What the engine counts. The node shows it; a counter is a plain integer, which costs one addition where it counts."""

from __future__ import annotations

from typing import ClassVar, final


@final
class Counters:
    """Each only grows."""

    FIELDS: ClassVar[tuple[str, ...]] = (
        "answered", "connects", "delivered", "dropped_expired", "dropped_full", "dropped_large", "dropped_offline",
        "expired", "published", "received", "refused", "rejected", "takeovers",
    )  # fmt: skip
    __slots__ = FIELDS

    def __init__(self) -> None:
        self.connects = 0
        self.received = 0  # packets of all kinds
        self.answered = 0  # packets sent that are no PUBLISH
        self.expired = 0  # sessions that ended without a connection
        self.refused = 0
        self.takeovers = 0
        self.published = 0
        self.delivered = 0
        self.rejected = 0  # publishes answered with "quota exceeded"
        self.dropped_full = 0  # oldest messages dropped to make room, and QoS 0 to a receiver that does not keep up
        self.dropped_expired = 0
        self.dropped_large = 0  # more than the receiver's maximum packet size
        self.dropped_offline = 0  # QoS 0 to a session without a connection
