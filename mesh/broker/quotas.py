"""What each identity holds on this node, what the node holds in all, and what is refused at a limit.

It counts bytes and sessions, in plain integers, when sessions, subscriptions, retained messages and queues change. It
knows identities and sizes: never packets, receivers or connections. What always holds:

* a limit refuses only what is new; what is stored stays, also above a limit (after a restart with lower limits);
* a vehicle's limits concern that vehicle alone. At nine tenths of the node's memory or disk budget the node is
  *strained*, until it is below eight tenths: new sessions, subscriptions and retained messages are refused, and so are
  messages for long queues. At the whole budget every message that would have to be queued is refused;
* what makes room is never refused: acknowledgements, removals, and what moves from one queue to another;
* a core may always connect and subscribe: its back ends have been told that they are subscribed.

The sizes are estimates of what the node's process needs, a little too large rather than too small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.session.outbound import Depth, QueueBytes

SESSION: Final = 4096  # bytes of a session without its queue
MESSAGE: Final = 512  # of a queued message besides its bytes
_FILTER: Final = 600  # of a subscription besides its text
_TOPIC: Final = 400  # of a retained message besides its topic and payload
_LEVEL: Final = 350  # of one level of a filter or topic: a node of a tree, with a dictionary
_TEXTS: Final = 2  # a filter or topic is stored whole, and level by level

# While the node is strained, a queue still takes messages up to these bytes: clients that read go on undisturbed.
SMALL: Final = 64 << 10
NO_LIMIT: Final = 1 << 62

_LINES: Final = 5  # log lines in one second
_LONGEST: Final = 120  # characters of a client's text in a log line
_SCANNED: Final = 10_000  # identities that one tick examines: about a millisecond

COMMON: Final = -1  # the kind of the share that holds the retained messages of no vehicle
_KINDS: Final = {VEHICLE: "vehicle", BACKEND: "back end", TIER: "core", COMMON: "the topics of no vehicle"}


def session_weight(client_id: str, will: int) -> int:
    """The bytes that a session counts without its queue; ``will``: those of its will."""
    return SESSION + _TEXTS * len(client_id) + will


def filter_weight(filter: str) -> int:
    """The bytes that a subscription counts."""
    return _FILTER + _TEXTS * len(filter.encode()) + _LEVEL * (filter.count("/") + 1)


def topic_weight(topic: str) -> int:
    """The bytes of memory that a retained message counts."""
    return _TOPIC + _TEXTS * len(topic.encode()) + _LEVEL * (topic.count("/") + 1)


@final
class Share(QueueBytes):
    """What one identity holds: how many sessions, and the bytes of sessions, subscriptions, retained messages and
    queues, which are in ``bytes``. There is one for each vehicle that has a session."""

    __slots__ = ("kind", "name", "retained", "session_bytes", "sessions", "subscriptions")

    def __init__(self, kind: int, name: str, queue_limit: int) -> None:
        super().__init__(queue_limit)
        self.kind = kind
        self.name = name
        self.sessions = 0  # without the inbox
        self.session_bytes = 0
        self.subscriptions = 0
        self.retained = 0

    def total(self) -> int:
        """All bytes that it holds, in memory and on disk."""
        return self.session_bytes + self.subscriptions + self.retained + self.bytes

    def title(self) -> str:
        """Its name in texts for people."""
        kind = _KINDS.get(self.kind, "")
        return f"{kind} {_shown(self.name)}" if self.name else kind


@final
class Quotas:
    """The shares of all identities, and the node's budgets. ``depths`` are the queues of this node: those of sessions,
    and on a core those of its links. ``disk`` is what the journal takes on disk; the node sets it."""

    def __init__(self, settings: Settings, depth: Depth, vehicle_of: Callable[[str], str]) -> None:
        self._settings = settings
        self._vehicle_of = vehicle_of
        # By kind and name: a key of both would take 80 bytes for each vehicle.
        self._shares: dict[int, dict[str, Share]] = {VEHICLE: {}, BACKEND: {}, TIER: {}, COMMON: {}}
        self.depths: list[Depth] = [depth]
        self.disk = 0
        self.strained = False
        self.full = False
        self.moving = False  # a message moves from one queue to another: it is no new load
        self.refused_sessions = 0
        self.refused_subscriptions = 0
        self.refused_retained = 0
        self.refused_queued = 0
        self._held = 0  # bytes of memory of sessions, subscriptions and retained messages
        self._worst: Share | None = None
        self._unscanned: list[Share] = []  # those that ``tick`` has still to examine
        self._unsaid = False  # the log does not say yet that the node is strained, and by which identity
        self._lines: list[str] = []
        self._left_out = 0

    # Shares

    def share_of(self, kind: int, name: str) -> Share:
        """The share of an identity; an empty one if it holds nothing yet."""
        shares = self._shares[kind]
        share = shares.get(name)
        if share is None:
            limit = self._settings.vehicle_queue_bytes if kind == VEHICLE else NO_LIMIT
            share = shares[name] = Share(kind, name, limit)
        return share

    def adjust(self) -> Iterator[int]:
        """``vehicle_queue_bytes`` has changed, and with it the limits of the vehicles' queues. New shares have it."""
        for share in list(self._shares[VEHICLE].values()):
            share.limit = self._settings.vehicle_queue_bytes
            yield 1

    def shares(self) -> list[Share]:
        """The shares of all identities that hold something."""
        return [share for shares in self._shares.values() for share in shares.values()]

    def identities(self) -> list[tuple[int, str]]:
        """Kind and name of all identities that hold something."""
        return [(share.kind, share.name) for share in self.shares()]

    def holds(self, kind: int, name: str) -> bool:
        """Whether an identity holds something."""
        return name in self._shares[kind]

    def _forget_empty(self, share: Share) -> None:
        if share.sessions == 0 and share.total() == 0:
            self._shares[share.kind].pop(share.name, None)
            if self._worst is share:
                self._worst = None

    def _grown(self, share: Share) -> None:
        worst = self._worst
        if worst is None or share.total() > worst.total():
            self._worst = share

    # Sessions

    def may_create(self, share: Share) -> bool:
        """Whether an identity may have one more session."""
        if share.kind == VEHICLE and share.sessions >= self._settings.vehicle_sessions:
            self.refused_sessions += 1
            self._note(share, f"a new session: it has {share.sessions}, as limits.vehicle_sessions allows")
            return False
        return True

    def is_strained_for(self, share: Share) -> bool:
        """Whether a new session of this identity is refused because the node is strained."""
        if not self.strained or share.kind == TIER:
            return False
        self.refused_sessions += 1
        self._note(share, f"a new session: {self.strain()}")
        self._forget_empty(share)
        return True

    def opened(self, share: Share, inbox: bool, weight: int) -> None:
        """A session was made. An ``inbox`` is not counted as one: the vehicle did not ask for it."""
        if not inbox:
            share.sessions += 1
        self.weigh(share, weight)

    def weigh(self, share: Share, change: int) -> None:
        """The bytes of a session have changed: it has another will."""
        share.session_bytes += change
        self._held += change
        if change > 0:
            self._grown(share)

    def closed(self, share: Share, inbox: bool, weight: int) -> None:
        """A session has ended; its subscriptions and its queue are counted out as they are removed, see ``settled``."""
        if not inbox:
            share.sessions -= 1
        share.session_bytes -= weight
        self._held -= weight
        self._forget_empty(share)

    def settled(self, share: Share) -> None:
        """The subscriptions and the queue of a session that has ended are counted out."""
        self._forget_empty(share)

    # Subscriptions

    def may_subscribe(self, share: Share, filter: str) -> bool:
        """Whether an identity may have one more subscription."""
        if share.kind == TIER:
            return True
        limit = self._settings.vehicle_subscription_bytes
        if share.kind == VEHICLE and share.subscriptions + filter_weight(filter) > limit:
            why = f"its subscriptions hold {share.subscriptions} bytes of {limit} (limits.vehicle_subscription_bytes)"
        elif self.strained:
            why = self.strain()
        else:
            return True
        self.refuse_subscription(share, filter, why)
        return False

    def refuse_subscription(self, share: Share, filter: str, why: str) -> None:
        """Count and log a subscription that is refused at a limit."""
        self.refused_subscriptions += 1
        self._note(share, f"a subscription to {_shown(filter)}: {why}")

    def subscribed(self, share: Share, filter: str) -> None:
        """A subscription was added."""
        weight = filter_weight(filter)
        share.subscriptions += weight
        self._held += weight
        self._grown(share)

    def unsubscribed(self, share: Share, filter: str) -> None:
        """A subscription has ended."""
        weight = filter_weight(filter)
        share.subscriptions -= weight
        self._held -= weight

    # Retained messages

    def holder_of(self, topic: str, publisher: Share | None) -> Share:
        """The share that a retained message counts in: that of the topic's vehicle, else that of the vehicle that
        publishes it. The journal does not name the publisher: after a restart it is the share of no vehicle."""
        vehicle = self._vehicle_of(topic)
        if vehicle:
            return self.share_of(VEHICLE, vehicle)
        if publisher is not None and publisher.kind == VEHICLE:
            return publisher
        return self.share_of(COMMON, "")

    def may_retain(self, share: Share, topic: str, size: int, before: int) -> bool:
        """Whether a retained message of ``size`` bytes may take the place of one with ``before`` bytes (0: none)."""
        if size <= before:
            return True
        limit = self._settings.vehicle_retained_bytes
        if share.kind == VEHICLE and share.retained - before + size > limit:
            why = f"its retained messages hold {share.retained} bytes of {limit} (limits.vehicle_retained_bytes)"
        elif self.strained:
            why = self.strain()
        else:
            return True
        self.refused_retained += 1
        self._note(share, f"a retained message on {_shown(topic)}: {why}")
        self._forget_empty(share)
        return False

    def retained_full(self, share: Share, topic: str) -> None:
        """The node has as many retained messages as it may have."""
        self.refused_retained += 1
        self._note(share, f"a retained message on {_shown(topic)}: the node has as many as limits.retained allows")
        self._forget_empty(share)

    def retained(self, share: Share, size: int, memory: int) -> None:
        """A retained message was stored: its bytes, and those of them that are in memory."""
        share.retained += size
        self._held += memory
        self._grown(share)

    def unretained(self, share: Share, size: int, memory: int) -> None:
        """A retained message was removed."""
        share.retained -= size
        self._held -= memory
        self._forget_empty(share)

    # Queues

    def may_queue(self, share: Share, queued: int, size: int) -> bool:
        """Whether a message of ``size`` bytes may join a queue of ``queued`` bytes. Call it when the node is strained
        or the identity's queues would exceed their limit. An identity for which nothing waits gets any message."""
        if self.moving:
            return True
        if share.bytes and share.bytes + size > share.limit:
            return False
        return not (self.full or (self.strained and share.kind != TIER and queued and queued + size > SMALL))

    def refuse_queued(self, share: Share, size: int) -> None:
        """Count and log a message that ``may_queue`` does not allow."""
        if share.bytes + size > share.limit:
            why = f"its queues hold {share.bytes} bytes of {share.limit} (limits.vehicle_queue_bytes)"
        else:
            why = self.strain()
        self.refused_queued += 1
        self._note(share, f"a message of {size} bytes for its queue: {why}")

    def may_spool(self, edge: str, spooled: int, size: int) -> bool:
        """Whether a message may join the spool of an edge, which has ``spooled`` bytes."""
        if not self.strained or (not self.full and spooled + size <= SMALL):
            return True
        self.refused_queued += 1
        self._line(f"refused a message of {size} bytes for the spool of {edge}: {self.strain()}")
        return False

    # The node

    def memory(self) -> int:
        """The bytes of memory that all of this takes."""
        found = self._held
        for depth in self.depths:
            found += MESSAGE * depth.messages + depth.loaded
        return found

    def measure(self) -> None:
        """Compare with the budgets. Called at the end of every turn."""
        settings = self._settings
        memory, disk = settings.memory, settings.disk
        if not memory and not disk and not self.strained:
            return
        used = self.memory()
        tenths = max(10 * used // memory if memory else 0, 10 * self.disk // disk if disk else 0)
        self.full = tenths >= 10
        if tenths >= 9 and not self.strained:
            self.strained = True
            self._unscanned = self.shares()
            self._unsaid = True
        elif tenths < 8 and self.strained:
            self.strained = False
            self._unsaid = False
            self._lines.append("memory and disk are below eight tenths of their budgets: new load is accepted again")

    def tick(self) -> None:
        """Called once a second: while the node is strained, look for the identity that holds the most."""
        if not self.strained:
            return
        if not self._unscanned:
            self._unscanned = self.shares()
        for share in self._unscanned[-_SCANNED:]:
            if self.holds(share.kind, share.name):
                self._grown(share)
        del self._unscanned[-_SCANNED:]
        if self._unsaid and not self._unscanned:
            self._unsaid = False
            self._lines.append(self.strain())

    def strain(self) -> str:
        """One sentence on the strain; empty if there is none."""
        if not self.strained:
            return ""
        settings, worst = self._settings, self._worst
        used = self.memory()
        parts: list[str] = []
        if settings.memory and 10 * used >= 8 * settings.memory:
            parts.append(f"memory is at {used} bytes of {settings.memory}")
        if settings.disk and 10 * self.disk >= 8 * settings.disk:
            parts.append(f"the disk is at {self.disk} bytes of {settings.disk}")
        text = " and ".join(parts) + ": new load is refused"
        if worst is not None:
            text += f"; {worst.title()} holds the most, {worst.total()} bytes"
        return text

    # The log

    def _note(self, share: Share, what: str) -> None:
        self._line(f"refused {share.title()} {what}")

    def _line(self, text: str) -> None:
        if len(self._lines) < _LINES:
            self._lines.append(text)
        else:
            self._left_out += 1

    def take_lines(self) -> list[str]:
        """The lines for the log since the last call, which the node makes once a second."""
        lines = self._lines
        if not lines:
            return []
        if self._left_out:
            lines.append(f"{self._left_out} more refusals at a limit")
        self._lines = []
        self._left_out = 0
        return lines


def _shown(text: str) -> str:
    """A client's text in a log line: one line, not too long."""
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
