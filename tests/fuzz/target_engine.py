"""The real broker under fuzzed sequences, in one process and at full speed.

A ``World`` is one broker on a journal in memory with ``AT_ONCE`` fuzzed clients, a clock that advances, crashes, and a
neighbour that follows the protocol. The checks are in ``watch`` (each connection), ``sizes`` (the broker and its
journal) and ``neighbour``; an exception of the broker is a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from mesh.broker.broker import Broker
from mesh.broker.inbox import InboxRules
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions, Principal, everything
from mesh.broker.settings import DEAD_LETTER, DROP_OLDEST, HOLD, REJECT, Settings
from mesh.broker.trace import Tracer
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Connect, Disconnect, Packet, Publish, Subscription
from tests.fakes.clock import FakeClock
from tests.fuzz import sizes
from tests.fuzz.edges import Edges, Interests
from tests.fuzz.generate import ALIASES, Cast
from tests.fuzz.line import Line
from tests.fuzz.neighbour import Neighbour
from tests.fuzz.peer import Peer
from tests.fuzz.sequences import sequence
from tests.fuzz.store import CrashStore
from tests.fuzz.watch import insist

AT_ONCE: Final = 24  # fuzzed clients
_LOOK: Final = 150  # turns between two checks of the whole broker
_PACKETS: Final = 105  # of one sequence
# How far the journal is durable at the end of a turn.
SYNCED: Final = "all"
LATE: Final = "one turn behind"
STUCK: Final = "no further"
_DISKS: Final = (SYNCED, SYNCED, LATE, LATE, STUCK)
_CRASHES: Final = (0.0, 0.0002, 0.002)  # chance in a turn
_VEHICLES: Final = tuple(f"V{number}" for number in range(6))

_TICKS: Final = 100  # in which all dead letters that are too old are dropped
_AGE: Final = 31 * 86_400.0  # seconds, beyond every session expiry of the sequences but "never"


@dataclass
class Tally:
    """The counts of a run. Of the packets ``sent`` the broker handled some, refused some (which ended the connection),
    and never read the rest: they came after the end of a connection, or in an incomplete packet."""

    sequences: int = 0
    sent: int = 0
    handled: int = 0
    refused: int = 0
    connections: int = 0
    crashes: int = 0
    neighbour: int = 0  # messages that came back to the neighbour
    holding: int = 0  # worlds in which publishers wait for full queues and full dead letters

    @property
    def judged(self) -> int:
        """Packets that were handled or refused."""
        return self.handled + self.refused

    def add(self, other: Tally) -> None:
        """Add the counts of ``other``."""
        for name in self.__dict__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def fuzz_limits(large: bool) -> PacketLimits:
    """Small limits, so that they are reached, or large ones that allow the longest texts."""
    packet, connect = (300_000, 200_000) if large else (16_384, 4096)
    return PacketLimits(
        packet, max_user_properties=20, max_topic_levels=32, max_subscriptions=16, max_connect_size=connect
    )


def fuzz_settings(dice: Random, edge: bool, limits: PacketLimits) -> Settings:
    """Small limits, so that they are reached; an edge keeps every session."""
    settings = Settings()
    settings.keep_all = edge
    settings.attach_grace = 20.0
    settings.in_flight = dice.choice((3, 20, 1024))
    settings.receive_maximum = dice.choice((8, 20))
    settings.max_packet = limits.max_packet_size
    settings.max_keep_alive = dice.choice((30, 0xFFFF))
    settings.max_queue_messages = settings.tier_queue_messages = 40
    settings.max_queue_bytes = settings.tier_queue_bytes = 20_000 if limits.max_packet_size < 100_000 else 1_000_000
    settings.inbox_messages = 10
    settings.inbox_when_full = dice.choice((REJECT, DROP_OLDEST, DEAD_LETTER))
    settings.backend_queue_messages = dice.choice((5, 40))
    settings.backend_queue_bytes = settings.max_queue_bytes
    settings.backend_when_full = dice.choice((DEAD_LETTER, DEAD_LETTER, HOLD))
    settings.dead_letter_share = dice.choice((5000, limits.max_packet_size + 2000))
    settings.dead_letter_bytes = 10 * settings.dead_letter_share
    settings.dead_letter_age = dice.choice((60.0, 30 * 86_400.0))
    settings.dead_letter_when_full = dice.choice((DROP_OLDEST, DROP_OLDEST, HOLD))
    settings.dead_letter_expired = settings.dead_letter_when_full == DROP_OLDEST and dice.random() < 0.5
    settings.hold_messages = dice.choice((10, 200))
    settings.hold_bytes = dice.choice((limits.max_packet_size + 2000, 10 * limits.max_packet_size))
    settings.max_subscriptions = 12
    settings.max_retained = 12
    if settings.max_keep_alive == 30:  # in half of the worlds
        settings.vehicle_sessions = 8
        settings.vehicle_subscription_bytes = settings.vehicle_retained_bytes = 20_000
        settings.vehicle_queue_bytes = settings.max_queue_bytes // 2
    settings.topic_aliases = ALIASES
    settings.routes = 20
    if settings.in_flight == 3:  # in a third of the worlds nearly every message has many receivers
        settings.fan_out = 1
    settings.system_interval = dice.choice((0.0, 10.0))
    return settings


class World:
    """``edge``: the clients are vehicles with inboxes, and cores; else they are back ends of a core. ``large``: large
    packets are allowed; ``None``: at random."""

    def __init__(self, seed: str, edge: bool, large: bool | None = None) -> None:
        self._dice = Random(seed)
        self._edge = edge
        drawn = self._dice.random() < 0.3
        self._limits = fuzz_limits(drawn if large is None else large)
        self._settings = fuzz_settings(self._dice, edge, self._limits)
        self._rules = _inbox() if edge else None
        self._peers: list[Peer] = []
        self._handed = 0
        self._last_sender: Peer | None = None
        self._casts = [Cast(f"vehicles/{name}/", (name,)) for name in _VEHICLES] if edge else [Cast()]
        self._turn = 0
        self._crashes = self._dice.choice(_CRASHES)
        self._edges: Edges | None = None
        self._interests: Interests | None = None
        self.tally = Tally(holding=int(self._holds()))
        self.clock = FakeClock()
        self.store = CrashStore()
        self.broker = self._start()
        self.neighbour = self._neighbour()
        self.neighbour.join(self.broker)

    def _start(self) -> Broker:
        edges = self._edges = None if self._edge else Edges(self._dice)
        broker = Broker(self._settings, self.store, self.clock, Tracer(), edges, self._rules, _vehicle_of)
        broker.recover(self.store.live())
        if not self._edge:
            interests = self._interests = Interests(self._dice)
            interests.known.update(broker.subscriptions.filters())
            broker.subscriptions.listener = interests
        broker.durable(self.store.commit())
        return broker

    def _neighbour(self) -> Neighbour:
        if self._edge:
            return Neighbour(_vehicle("GOOD"), self._limits, "vehicles/GOOD/", self._holds())
        return Neighbour(Principal("good", BACKEND, everything()), self._limits, "good/", self._holds())

    # A run

    def run(self, sequences: int) -> None:
        """Send ``sequences`` sequences."""
        dice = self._dice
        left = sequences
        while left or self._peers:
            while left and len(self._peers) < AT_ONCE:
                self._peers.append(self._new_peer())
                left -= 1
            for peer in dice.sample(self._peers, min(4, len(self._peers))):
                self._last_sender = peer
                peer.step(self.broker)
                self._disturb(peer)
                if peer.finished:
                    self._finish_peer(peer)
            self.neighbour.step()
            self.end_turn(dice.choice(_DISKS))
            self._advance()

    def _new_peer(self) -> Peer:
        dice = self._dice
        number = dice.randrange(len(self._casts))
        cast = self._casts[number]
        if not self._edge:
            principal = Principal(dice.choice(("one", "other")), BACKEND, everything())
        elif dice.random() < 0.15:
            principal = Principal(dice.choice(("core-1", "core-2")), TIER, everything())
        else:
            principal = _vehicle(_VEHICLES[number])
        return Peer(dice, sequence(dice, cast, _PACKETS), principal, self._limits)

    def _disturb(self, peer: Peer) -> None:
        """Lose, pause or resume a connection, at random."""
        chance, line = self._dice.random(), peer.line
        if chance > 0.03 or line is None or line.closed or line.connection is None:
            return
        if chance < 0.01:
            line.lose()
        elif chance < 0.02:
            self.broker.pause(line.connection)
        else:
            self.broker.resume(line.connection)

    def _finish_peer(self, peer: Peer) -> None:
        """The sequence has ended: close the client and count its packets."""
        peer.leave()
        self._peers.remove(peer)
        tally = self.tally
        tally.sequences += 1
        tally.sent += peer.packets
        tally.handled += peer.handled
        tally.refused += peer.refused
        tally.connections += peer.connections

    def line(self, principal: Principal) -> Line:
        """A new connection."""
        return Line(self.broker, principal, self._limits)

    def end_turn(self, disk: str = SYNCED, all: bool = False) -> None:
        """End a turn as a node does: commit, release the waiting output, write. ``all``: all edges have answered."""
        broker = self.broker
        if self._edges is not None:
            self._edges.answer(broker, all)
        if self._interests is not None:
            self._interests.open(broker, all)
        broker.end_turn()
        if disk == LATE:  # the records of the turn before
            broker.durable(self.store.commit(self._handed))
        elif disk == SYNCED:
            broker.durable(self.store.commit())
        self._handed = self.store.position
        dirty = broker.dirty[:]
        broker.dirty.clear()
        for connection in dirty:
            connection.dirty = False
            shell = connection.shell
            assert isinstance(shell, Line)
            shell.flush()

    def _advance(self) -> None:
        """Advance the clock, and at random crash the server."""
        dice = self._dice
        self._turn += 1
        if self._turn % 10 == 0:
            self.clock.now += dice.choice((0.1, 1.0, 1.0, 3.0, 40.0))
            self.broker.tick()
        if self._turn % _LOOK == 0:
            sizes.check(self.broker, self.store)
            sizes.check_timers(self.broker)
        if dice.random() < self._crashes:
            self.crash()

    def crash(self) -> None:
        """The server dies and restarts with the state on disk."""
        for peer in self._peers:
            if peer.line is not None:
                peer.line.closed = True
        self.neighbour.lose()
        self.store = self.store.crash()
        self._handed = self.store.position
        self.broker = self._start()
        sizes.check(self.broker, self.store)
        self.neighbour.join(self.broker)
        self.tally.crashes += 1

    def story(self) -> list[str]:
        """The client that sent last, and its packets on the connection, in the format of the corpus."""
        peer = self._last_sender
        if peer is None:
            return []
        principal = peer.principal
        about = f"# {principal.name} (kind {principal.kind}), MQTT {peer.sequence.protocol}, turn {self._turn}"
        return [about, *(packet.hex() for packet in peer.said)]

    # The end

    def finish(self) -> None:
        """The neighbour gets the rest of its messages; all sessions end; no state may be left."""
        if self._holds():
            self._end_sessions("neighbour")  # it may wait for queues, and for room in the dead letters
            self._age()
        for _ in range(100):
            self.neighbour.step(publish=False)
            self.end_turn(all=True)
            if self.neighbour.settled:
                break
        late = f"{self.neighbour.published} messages of the neighbour, and {self.neighbour.arrived} came back"
        insist(self.neighbour.settled, late)
        self.tally.neighbour += self.neighbour.arrived
        for _ in range(3):  # the wills of sessions that end may be retained, and wait in inboxes
            self._end_sessions()
            self.clock.now += _AGE
            self.broker.tick()
            self.end_turn()
        self._clear_retained()
        self._end_sessions()
        self._age()
        sizes.check_empty(self.broker, self.store)

    def _holds(self) -> bool:
        return HOLD in (self._settings.backend_when_full, self._settings.dead_letter_when_full)

    def _age(self) -> None:
        """All dead letters become too old."""
        self.clock.now += _AGE
        for _ in range(_TICKS):  # they are dropped in portions
            self.broker.tick()
            self.end_turn()
            if not len(self.broker.letters):
                break

    def _end_sessions(self, but: str = "") -> None:
        """End each session with a clean start of expiry 0, except that of the client ``but``."""
        for session in self.broker.sessions.all():
            kind, name, client_id = session.key
            if client_id in ("", but):
                continue  # an inbox has no client; it expires
            principal = Principal(name, kind, everything(), session.vehicle)
            self._send(principal, client_id)
        self.end_turn()

    def _send(self, principal: Principal, client_id: str, *packets: Publish) -> None:
        line = self.line(principal)
        said: list[Packet] = [Connect(MQTT5, client_id, True, 0), *packets, Disconnect()]
        for packet in said:
            line.feed(encode(packet, MQTT5))
            self.end_turn()

    def _clear_retained(self) -> None:
        for topic, _ in self.broker.retained._tree.match("#"):
            self._send(Principal("broom", BACKEND, everything()), "broom", Publish(topic, b"", 0, True))


def _vehicle(name: str) -> Principal:
    return Principal(name, VEHICLE, Permissions(f"vehicles/{name}/"), name)


def _vehicle_of(topic: str) -> str | None:
    parts = topic.split("/", 2)
    return parts[1] if len(parts) == 3 and parts[0] == "vehicles" and parts[1] else None


def _inbox() -> InboxRules:
    def subscriptions_of(vehicle: str) -> list[Subscription]:
        return [Subscription(f"vehicles/{vehicle}/cmd/#", 1)]

    return InboxRules(_vehicle_of, subscriptions_of, 86_400)
