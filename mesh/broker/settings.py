"""The limits and options of one broker, from the topology."""

from __future__ import annotations

from typing import Final, final

# What happens when a queue, or the dead letters, are full.
REJECT: Final = 0
DROP_OLDEST: Final = 1
DEAD_LETTER: Final = 2
HOLD: Final = 3

IGNORE: Final = 0
DISCONNECT: Final = 1

# Bytes of unacknowledged publishes that a core sends to an edge, one packet more excepted: what some 10 ms of a fast
# network carry.
IN_FLIGHT_BYTES: Final = 16 << 20

FOREVER: Final = 0xFFFFFFFF  # a session expiry that means never, MQTT 5.0 section 3.1.2.11.2


NAMES: Final = (
    "attach_grace", "backend_queue_bytes", "backend_queue_messages", "backend_when_full", "dead_letter_age",
    "dead_letter_bytes", "dead_letter_expired", "dead_letter_share", "dead_letter_when_full", "disk", "fan_out",
    "hold_bytes", "hold_messages", "in_flight", "inbox_bytes", "inbox_messages", "inbox_when_full", "keep_all",
    "match_nodes", "max_keep_alive", "max_packet", "max_queue_bytes", "max_queue_messages", "max_retained",
    "max_session_expiry", "max_sessions",
    "max_subscriptions", "memory", "node", "on_refusal", "overshoot_bytes", "queue_patience", "receive_maximum",
    "refused", "routes", "shared_patience", "system_interval", "tier_packet", "tier_queue_bytes",
    "tier_queue_messages", "topic_aliases", "vehicle_queue_bytes", "vehicle_retained_bytes", "vehicle_sessions",
    "vehicle_subscription_bytes",
)  # fmt: skip


@final
class Settings:
    """Counts, bytes and seconds. The defaults are those of the topology file. All parts of a broker have the same
    object, which changes in place (``Broker.take``)."""

    __slots__ = NAMES

    def __init__(self) -> None:
        self.node = ""  # the node's name
        # An edge keeps every session in its journal, also those that end with their connection: the front door owns
        # the connection, which can outlive the edge's process. A core's connections end with the core.
        self.keep_all = False
        self.attach_grace = 60.0  # seconds that a session waits for its connection after a restart of the edge
        self.in_flight = 1024  # unacknowledged deliveries of one client, unless the client sets a lower limit
        self.receive_maximum = 1024  # unanswered publishes of one client
        self.max_packet = 1 << 20
        self.tier_packet = 2 << 20  # of a core, which adds properties of the mesh to its clients' messages
        self.max_keep_alive = 0xFFFF  # a huge keep alive holds a slot for a day (CVE-2020-13849)
        self.max_queue_messages = 1000
        self.max_queue_bytes = 64 << 20
        self.queue_patience = 10.0  # seconds that a publisher waits for a receiver that is behind (``slowdown``)
        # By how many bytes the queue of a connected vehicle may exceed its limit, for each connected core: what a core
        # has in flight when it learns that the queue is full (``pressure``). In messages that is ``receive_maximum``.
        self.overshoot_bytes = IN_FLIGHT_BYTES + (2 << 20)
        # Perhaps no client ever reads an inbox, so it has limits of its own, and can drop its oldest message when full.
        self.inbox_messages = 1000
        self.inbox_bytes = 64 << 20
        # DEAD_LETTER applies to the queues of all sessions of vehicles, DROP_OLDEST to inboxes.
        self.inbox_when_full = REJECT
        # A core's session queues for all its back ends, so it has limits of its own.
        self.tier_queue_messages = 1_000_000
        self.tier_queue_bytes = 1 << 30
        # A durable session of a back end waits for a program that may be down for days.
        self.backend_queue_messages = 1_000_000
        self.backend_queue_bytes = 1 << 30
        self.backend_when_full = DEAD_LETTER  # or HOLD
        # Dead letters: bytes of the node, bytes of one vehicle or back end, and seconds until they are dropped.
        self.dead_letter_bytes = 1 << 30
        self.dead_letter_share = 64 << 20
        self.dead_letter_age = 30 * 86_400.0
        self.dead_letter_expired = False  # also messages that expire in a queue
        self.dead_letter_when_full = DROP_OLDEST  # or HOLD
        # With HOLD: how far a queue of a back end, or the dead letters, may exceed their limits. Publishers wait for
        # those messages, or have lost their connections while they waited. Beyond that a publish is refused.
        self.hold_messages = 65_536
        self.hold_bytes = 64 << 20
        self.max_session_expiry = FOREVER
        self.max_sessions = 1_000_000
        self.max_subscriptions = 10_000
        self.match_nodes = 8192  # of the tree of filters, that one topic may lead through: three milliseconds
        self.max_retained = 1_000_000
        # Of one vehicle, with all its clients.
        self.vehicle_sessions = 16
        self.vehicle_subscription_bytes = 64 << 20
        self.vehicle_retained_bytes = 64 << 20
        self.vehicle_queue_bytes = 128 << 20
        # Budgets of the node: bytes of memory, and of the journal on disk; 0: none.
        self.memory = 0
        self.disk = 0
        self.topic_aliases = 16  # of one connection, in either direction
        # A client before 5.0 cannot be told that it may not publish to a topic. Closed for it, most send the message
        # again on each connection, for ever.
        self.on_refusal = IGNORE
        self.refused: tuple[str, ...] = ()  # filters of topics that no client may receive
        self.system_interval = 10.0  # seconds between two updates of the $SYS topics; 0: none
        self.shared_patience = 30.0  # seconds without an acknowledgement until a member of a group counts as stalled
        self.fan_out = 256  # receivers that a message may have and still reach all of them in one turn
        self.routes = 16_384  # topics whose receivers are remembered: about 1 KB each

    def take(self, other: Settings) -> None:
        """Have all values of ``other`` from now on."""
        for name in NAMES:
            setattr(self, name, getattr(other, name))

    def in_force(self) -> dict[str, object]:
        """All values, by name."""
        return {name: getattr(self, name) for name in NAMES}
