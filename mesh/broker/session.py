"""A session: what the server remembers of one client between and during its connections (MQTT 5.0 section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from mesh.broker.ledger import Ledger
from mesh.broker.principal import VEHICLE
from mesh.session.outbound import Depth, Outbound
from mesh.wire.packets import Subscription

if TYPE_CHECKING:
    from mesh.broker.connection import Connection
    from mesh.broker.subscriptions import SharedGroup
    from mesh.session.message import Message

Key = tuple[int, str, str]  # kind of principal, its name, client id


@final
class Interest:
    """One subscription of one session. ``group`` is set for a shared one; ``item`` is its journal item, which says that
    retained messages behind ``owed_after`` and up to ``owed_until`` are still due (0: none)."""

    __slots__ = ("group", "identifier", "item", "owed_after", "owed_until", "session", "subscription")

    def __init__(self, session: Session, subscription: Subscription, identifier: int) -> None:
        self.session = session
        self.subscription = subscription
        self.identifier = identifier  # 0: none
        self.group: SharedGroup | None = None
        self.item = 0
        self.owed_after = 0
        self.owed_until = 0


@final
class Arrears:
    """Retained messages that a subscription has yet to bring: those of ``topics`` from ``at`` on, whose journal items
    are at most ``until``. ``after`` is the item of the last one that it brought."""

    __slots__ = ("after", "at", "interest", "topics", "until")

    def __init__(self, interest: Interest, topics: list[str], until: int) -> None:
        self.interest = interest
        self.topics = topics
        self.until = until
        self.after = 0
        self.at = 0


@final
class Session:
    """``id`` is its owner number in the journal. Times are seconds since 1970; 0.0 means not set."""

    __slots__ = (
        "arrears", "attached", "connection", "durable", "ends", "expiry", "hungry", "id", "inbox", "incoming",
        "interests", "item", "key", "kind", "ledger", "outbound", "shared", "stalled", "vehicle", "will", "will_delay",
        "will_due",
    )  # fmt: skip

    def __init__(self, id: int, key: Key, vehicle: str, window: int, depth: Depth) -> None:
        self.id = id
        self.name(key)
        self.vehicle = vehicle
        self.connection: Connection | None = None
        self.attached = False  # at recovery: it had a connection when the journal heard of it last
        self.outbound = Outbound(depth, window)
        self.interests: dict[str, Interest] = {}
        self.arrears: tuple[Arrears, ...] = ()
        self.hungry = False  # it may have room for a portion of its arrears
        self.incoming: dict[int, int] = {}  # open QoS 2 identifiers of the client -> their journal items (0: none)
        self.shared = 0  # how many of the interests are shared
        self.stalled = False  # as a member of groups: it has not acknowledged anything for long
        self.expiry = 0  # seconds that it outlives its connection; settings.FOREVER: for good
        self.durable = False  # its state and its messages are in the journal
        self.item = 0
        self.ends = 0.0
        self.will: Message | None = None
        self.ledger: Ledger | None = None  # of a core's session on an edge
        self.will_delay = 0
        self.will_due = 0.0

    def name(self, key: Key) -> None:
        """Say whose session it is; once, but at recovery, where what it owns may come first."""
        self.key = key
        self.kind = key[0]  # VEHICLE, BACKEND or TIER
        self.inbox = key[0] == VEHICLE and not key[2]  # see inbox.py: no client has an empty client id
