"""The counters of the broker; ``BrokerStatus`` shows them.

A counter is a plain integer: an increment costs one addition. A time measurement costs two clock reads and a table
access, some 0.15 µs compiled, so one publish and one delivery in 16 are measured: 0.01 µs for each message. To measure
all of them would exceed the 1 % of a message's cost that figures may take.
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.letter import NAMES
from mesh.figures.timing import Timing

SAMPLED: Final = 15  # a message is measured if its count has none of these bits

# The bounds of the times (see ``Timing``): from 64 µs to 34 s, and to 73 minutes for messages that wait for a sleeping
# vehicle.
_SHORTEST: Final = 6
_LONGEST_ANSWER: Final = 25
_LONGEST_DELIVERY: Final = 32


@final
class BrokerCounters:
    """All counters only grow."""

    __slots__ = (
        "acknowledge", "answered", "connects", "deliver", "delivered", "dropped_expired", "dropped_full",
        "dropped_large", "dropped_offline", "dropped_poison", "expired", "forbidden", "forbidden_wills", "letters",
        "letters_dropped_age", "letters_dropped_node", "letters_dropped_share", "letters_not_taken", "letters_read",
        "misfits", "published", "received", "refused", "rejected", "revoked_retained", "revoked_subscriptions",
        "takeovers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connects = 0
        self.received = 0  # packets of all kinds
        self.answered = 0  # packets sent other than PUBLISH
        self.expired = 0  # sessions that ended without a connection
        self.refused = 0
        self.takeovers = 0
        self.published = 0
        self.delivered = 0
        self.forbidden = 0  # publishes to topics that their client may not publish to
        self.forbidden_wills = 0
        self.revoked_subscriptions = 0  # ended, as their client may not make them now
        self.revoked_retained = 0  # messages deleted, as their sender may not publish them now
        self.misfits = 0  # acknowledgements that did not fit their delivery
        self.rejected = 0  # publishes answered with "quota exceeded"
        self.dropped_full = 0  # oldest messages dropped to make room, and QoS 0 to a receiver that does not keep up
        self.dropped_expired = 0
        self.dropped_large = 0  # larger than the receiver's maximum packet size
        self.dropped_offline = 0  # QoS 0 to a session without a connection
        self.dropped_poison = 0  # QoS 0 in whose handling the process has ended
        self.letters = [0] * len(NAMES)  # dead letters kept, by reason
        self.letters_read = 0  # acknowledged by a reader
        self.letters_not_taken = 0  # by a reader: too large for it, or refused
        self.letters_dropped_share = 0
        self.letters_dropped_node = 0
        self.letters_dropped_age = 0
        self.acknowledge = Timing(_SHORTEST, _LONGEST_ANSWER)  # from PUBLISH to PUBACK or PUBREC
        self.deliver = Timing(_SHORTEST, _LONGEST_DELIVERY)  # from PUBLISH until it is sent to a receiver
