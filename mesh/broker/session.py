"""A session and its connection: the state of one client, also between its connections (MQTT 5.0 section 4.1), and its
connection, of which it has at most one.

The two refer to each other, so they are in one file. The broker puts packets into ``Connection.out`` and marks the
connection dirty; the shell that owns the socket (or the slot on a device link) writes them at the end of the turn.
What always holds: ``session.connection is connection`` exactly while ``connection.session is session``; nothing is put
into ``out`` after ``closing`` was set.
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.gate import Gate
from mesh.broker.ledger import Ledger
from mesh.broker.peer import NOWHERE, Peer
from mesh.broker.principal import BACKEND, VEHICLE, Principal
from mesh.broker.quotas import NO_LIMIT, Share, session_weight
from mesh.broker.search import Search
from mesh.broker.shell import Flushable
from mesh.broker.timers import Timer
from mesh.session.fifo import Fifo
from mesh.session.inbound import Inbound, Publisher
from mesh.session.message import Message
from mesh.session.outbound import Depth, Outbound
from mesh.wire.packets import Packet, Subscription
from mesh.wire.tracecontext import TraceContext
from mesh.wire.tree import TopicNode

_LONGEST: Final = 1024  # characters of a client id in the name of its share of the dead letters

Key = tuple[int, str, str]  # kind of principal, its name, client id


@final
class Interest:
    """One subscription of one session. ``item`` is its journal item. Retained messages whose items come after
    ``due_after`` and up to ``due_until`` are still due (0: none)."""

    __slots__ = ("due_after", "due_until", "identifier", "item", "session", "subscription")

    def __init__(self, session: Session, subscription: Subscription, identifier: int) -> None:
        self.session = session
        self.subscription = subscription
        self.identifier = identifier  # 0: none
        self.item = 0
        self.due_after = 0
        self.due_until = 0


@final
class RetainedBacklog:
    """Retained messages that are still due by a subscription: those of ``topics`` from ``at`` on whose journal items
    are at most ``until``. ``after`` is the item of the last one that was queued. ``searched``: all topics were found;
    until then, ``search`` looks for them, or has not begun."""

    __slots__ = ("after", "at", "interest", "search", "searched", "topics", "until")

    def __init__(self, interest: Interest, after: int, until: int) -> None:
        self.interest = interest
        self.topics: list[TopicNode[int]] = []
        self.search: Search | None = None
        self.searched = False
        self.until = until
        self.after = after
        self.at = 0


@final
class Session:
    """``id`` is its owner number in the journal. Times are seconds since 1970; 0.0 means not set."""

    __slots__ = (
        "attached",
        "backlog_due",
        "connection",
        "durable",
        "ended",
        "ends",
        "expiry",
        "filling",
        "id",
        "inbox",
        "incoming",
        "interests",
        "item",
        "key",
        "kind",
        "ledger",
        "origin",
        "outbound",
        "provider",
        "pumping",
        "refused",
        "retained_backlog",
        "roles",
        "share",
        "shared",
        "stalled",
        "timer",
        "vehicle",
        "weight",
        "will",
        "will_delay",
        "will_due",
    )  # fmt: skip

    def __init__(
        self, id: int, key: Key, vehicle: str, window: int, depth: Depth, share: Share | None = None
    ) -> None:
        self.id = id
        self.name(key)
        self.share = share or Share(key[0], key[1], NO_LIMIT)  # at recovery it gets the right one when its key is known
        self.weight = session_weight(key[2], 0)  # bytes that it counts in its share, without its queue
        self.vehicle = vehicle
        self.roles: tuple[str, ...] = ()  # those that its client had when it was last connected
        self.provider = ""  # who admitted its client when it was last connected
        self.refused: tuple[str, ...] = ()  # filters of topics that it does not get, beside those of all clients
        self.origin = NOWHERE  # if it has a will: where its client was last connected from, as far as bans go by that
        self.connection: Connection | None = None
        self.attached = False  # after recovery, until it is attached: its last record says that it had a connection
        self.outbound = Outbound(depth, window, self.share)
        self.interests: dict[str, Interest] = {}
        self.retained_backlog: dict[Interest, RetainedBacklog] | None = None  # in the order in which they are served
        self.pumping = False  # the broker's work has a job that sends what waits for it
        self.backlog_due = False  # it may have room for a portion of its retained backlog
        self.incoming: dict[int, int] = {}  # open QoS 2 identifiers of the client -> their journal items (0: none)
        self.filling = False  # a back end's: its queue was three quarters full and has not been half full since
        self.shared = 0  # how many of the interests are shared
        self.stalled = False  # as a member of groups: it has acknowledged nothing for ``shared_patience`` seconds
        self.expiry = 0  # seconds that it outlives its connection; settings.FOREVER: it never expires
        self.durable = False  # its state and its messages are in the journal
        self.item = 0
        self.ends = 0.0
        self.ended = False
        self.timer: Timer[Session] | None = None  # for its end and its will
        self.will: Message | None = None
        self.ledger: Ledger | None = None  # of a core's session on an edge
        self.will_delay = 0
        self.will_due = 0.0

    def name(self, key: Key) -> None:
        """Set the key. Called again at recovery, where the items of a session may precede its state, and for an inbox
        that becomes the session of a client."""
        self.key = key
        self.kind = key[0]  # VEHICLE, BACKEND or TIER
        self.inbox = key[0] == VEHICLE and not key[2]  # see inbox.py: no client has an empty client id

    def letter_share(self) -> str:
        """The share of the dead letters that its messages belong to."""
        if self.kind == VEHICLE:
            return f"vehicle/{self.vehicle}"
        return f"backend/{self.key[1]}/{self.key[2][:_LONGEST]}" if self.kind == BACKEND else f"core/{self.key[1]}"


@final
class Connection(Publisher):
    """``shell`` owns the socket or link to the client, and writes the packets in ``out``."""

    __slots__ = (
        "accepted", "alias_maximum", "aliases", "assigned", "begun", "closing", "congested", "dirty", "given", "held",
        "inbound", "keep_alive", "later", "live", "max_packet", "out", "peer", "principal", "problem_info", "protocol",
        "receive_maximum", "session", "shell", "traced", "unacked", "waiting", "writable",
    )  # fmt: skip

    def __init__(self, principal: Principal, protocol: int, peer: Peer, shell: Flushable, alias_maximum: int) -> None:
        self.principal = principal
        self.protocol = protocol
        self.peer = peer
        self.shell = shell
        self.session: Session | None = None
        self.out: list[bytes] = []
        self.traced: list[tuple[int, TraceContext]] = []  # indexes in ``out`` of the PUBLISHes of sampled messages
        self.closing = False
        self.accepted = False  # CONNACK with success has been put into ``out``
        self.assigned = False  # the server assigned the client id
        self.unacked: list[int] = []  # from ``attach`` until ``live``: identifiers that the client has
        self.given = False  # of a core: this node has all that the core keeps for every edge
        self.live = True  # False from ``attach`` until the replay is over
        self.writable = True
        self.congested = False  # too many answers are outstanding: the shell does not read while it is True
        self.dirty = False
        self.waiting = False  # it has output that waits for the journal
        self.keep_alive = 0
        self.max_packet = 0  # the client's own limit in bytes; 0: none
        self.receive_maximum = 0  # the most unanswered publishes of the client
        self.problem_info = True  # the client accepts reason strings in all packets
        self.alias_maximum = 0  # the most topic aliases that the client accepts
        self.aliases: dict[str, int] | None = None  # those that the client knows
        self.inbound = Inbound(alias_maximum)
        # While a packet takes several turns: those that came after it. ``begun`` counts all such packets so far.
        self.later: Fifo[Packet] | None = None
        self.begun = 0
        # Packets that wait for a journal position, and for other nodes to confirm a subscription.
        self.held: Fifo[tuple[int, Gate | None, bytes]] = Fifo()
