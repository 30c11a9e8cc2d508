"""A core and an edge under random load: full queues, lost links, crashes, slow and absent vehicles.

Each vehicle has a publisher of its own, whose messages are numbered for each QoS. The checks:

* messages of one vehicle and QoS arrive in order; those of QoS 2 once;
* what was acknowledged arrives, unless the edge refused it when it came from the spool (counted). In a *calm* world, in
  which vehicles stay connected and every core minds the signals, nothing is refused so;
* what was refused never arrives;
* no queue exceeds its limit by more than the cores had in flight;
* while the core knows that a queue is full, no publisher of a new message for it is answered with success;
* when a queue was full for longer than the patience, no publisher waits for it, until it has drained.
"""

from __future__ import annotations

from random import Random
from typing import Final

from mesh.broker.pressure import HIGH, signalled
from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.core.tier import TierLink
from mesh.wire.decode import CLIENT, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish, Subscribe, Subscription
from tests.core.harness import PATIENCE, Edge, Mesh, Pipe
from tests.support.bench import Client

EDGE: Final = "edge-1"
_VEHICLES: Final = 3
_UNANSWERED: Final = 150  # publishes of one publisher
_BURST: Final = 40
_FOREVER: Final = 1_000_000


class Breach(AssertionError):
    """A rule was broken."""


def insist(holds: bool, what: str) -> None:
    """Raise ``Breach`` unless a rule holds."""
    if not holds:
        raise Breach(what)


class SpyPipe(Pipe):
    """Notes the signals of the edge: ``full`` has the vehicles whose queues are full, and since when."""

    def __init__(self, link: TierLink, edge: Edge) -> None:
        self.full: dict[str, float] = {}
        self._spy = Reader(PacketLimits(), CLIENT, MQTT5)
        super().__init__(link, edge)

    def flush(self) -> None:
        assert self.connection is not None
        if self.open and not self.mute:
            for packet in self._spy.feed(b"".join(self.connection.out)):
                vehicle = signalled(packet.topic) if isinstance(packet, Publish) else None
                if vehicle and isinstance(packet, Publish):
                    self._note(vehicle, packet.payload == HIGH)
        super().flush()

    def _note(self, vehicle: str, high: bool) -> None:
        if high:
            self.full.setdefault(vehicle, self.edge.clock.now)
        else:
            self.full.pop(vehicle, None)


class LinkMesh(Mesh):
    def pipe(self, link: TierLink, edge: Edge) -> Pipe:
        return SpyPipe(link, edge)


class Flow:
    """The messages for one vehicle: those of each kind by (QoS, number)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next = {1: 0, 2: 0}
        self.under_way: dict[int, tuple[int, int, float]] = {}  # by packet identifier; with the time of the publish
        self.acked: set[tuple[int, int]] = set()
        self.refused: set[tuple[int, int]] = set()
        self.arrived: dict[int, list[int]] = {1: [], 2: []}
        self.seen: set[tuple[int, int]] = set()
        self.taken: set[int] = set()  # QoS 2 identifiers at the vehicle
        self.due: list[Ack] = []
        self.waiting: tuple[float, set[tuple[int, int]]] | None = None  # published in this step; full since then

    def take(self, packet: Publish) -> None:
        """The vehicle gets a message."""
        if packet.qos == 1:
            self.due.append(Ack(PUBACK, packet.packet_id))
        else:
            self.due.append(Ack(PUBREC, packet.packet_id))
            if packet.packet_id in self.taken:
                return
            self.taken.add(packet.packet_id)
        if not packet.payload[:1].isdigit():
            return
        qos, number = (int(part) for part in packet.payload.split(b":"))
        if (qos, number) in self.seen:
            insist(qos == 1, f"{self.name}: message {qos}:{number} came twice")
            return
        insist((qos, number) not in self.refused, f"{self.name}: message {qos}:{number} was refused and came")
        last = self.arrived[qos][-1:]
        insist(not last or last[0] < number, f"{self.name}: message {qos}:{number} came after {last}")
        self.seen.add((qos, number))
        self.arrived[qos].append(number)


class LinkWorld:
    """``calm``: see above; ``None``: at random. ``hurried``: the next event often comes before all work is done."""

    def __init__(self, seed: str, calm: bool | None = None, hurried: bool = False) -> None:
        self.hurried = hurried
        dice = self._dice = Random(seed)
        drawn = dice.random() < 0.5
        self.calm = drawn if calm is None else calm
        self.rejected = 0
        self.refusals = 0
        self.messages = 0
        self.mesh: Mesh = LinkMesh(1)
        self.flows = {f"V{number}": Flow(f"V{number}") for number in range(1, _VEHICLES + 1)}
        for name in self.flows:
            self.mesh.owners[name] = EDGE
        settings = self.mesh.edges[EDGE].settings
        settings.max_queue_messages = dice.choice((1, 3, 10))
        settings.in_flight = dice.choice((1, 2, 8))
        settings.receive_maximum = dice.choice((4, 8, 20))
        self.vehicles: dict[str, Client] = {}
        self.senders: dict[str, Client] = {}
        self.mesh.connect()
        for name in self.flows:
            self._join(name, True)
            self._sender(name)
        self.deaf = None if self.calm else self.mesh.edges[EDGE].client("deaf", "deaf", TIER)
        self._deaf_sent = 0

    @property
    def _link(self) -> TierLink:
        return self.mesh.links[EDGE]

    def _join(self, name: str, first: bool = False) -> None:
        flow = self.flows[name]
        flow.due.clear()
        vehicle = self.vehicles[name] = self.mesh.edges[EDGE].client(
            "v", name, VEHICLE, False, clean=first, expiry=_FOREVER
        )
        if first:
            vehicle.send(Subscribe(1, [Subscription(f"vehicles/{name}/#", 2)]))

    def _sender(self, name: str) -> None:
        self.flows[name].under_way.clear()
        self.senders[name] = self.mesh.core.client(f"of-{name}", "app", BACKEND)

    # Steps

    def step(self) -> None:
        """One random event."""
        dice, mesh = self._dice, self.mesh
        name = dice.choice(list(self.flows))
        chance = dice.random()
        if chance < 0.35:
            self._publish(name, dice.randrange(1, _BURST), 1 if dice.random() < 0.8 else 2)
        elif chance < 0.75:
            self._answer(name, dice.choice((1, 3, 20, 100)))
        elif chance < 0.85:
            self.advance(dice.choice((0.5, 1.0, 3.0, PATIENCE)))
        elif chance < 0.88:
            mesh.pipes[EDGE].mute = True
        elif chance < 0.91:
            mesh.pipes[EDGE].cut()
        elif chance < 0.93:
            self._crash_core()
        elif chance < 0.95:
            self._restart_edge()
        elif not self.calm:
            self._disturb(name)
        if not self.mesh.pipes[EDGE].open and dice.random() < 0.5:
            self.mesh.connect(EDGE)
        if self.hurried and dice.random() < 0.7:
            self._hurry()
        else:
            self.settle()

    def _hurry(self) -> None:
        """A moment, and no check."""
        for flow in self.flows.values():
            flow.waiting = None
        for _ in range(self._dice.randrange(3)):
            self.mesh.core.turn()
        self._link.advance()
        self._link.flush()
        self.mesh.edges[EDGE].turn()

    def _disturb(self, name: str) -> None:
        dice, vehicle = self._dice, self.vehicles[name]
        chance = dice.random()
        if chance < 0.4:
            if vehicle.connection.session is not None:
                vehicle.lose()
        elif chance < 0.8:
            self._join(name)
        elif chance < 0.9 and self.deaf is not None:
            for _ in range(dice.randrange(1, _BURST)):
                self.deaf.publish(f"vehicles/{name}/cmd", b"deaf")
        else:
            self._crash_edge()

    def _publish(self, name: str, count: int, qos: int) -> None:
        flow, sender = self.flows[name], self.senders[name]
        full = self._known_full(name)
        if full is not None:
            flow.waiting = (full, set())
        for _ in range(count):
            self._hear(name)
            if len(flow.under_way) >= _UNANSWERED:
                return
            number = flow.next[qos]
            if self._known_full(name) is not None and flow.waiting is not None:
                flow.waiting[1].add((qos, number))
            flow.next[qos] += 1
            self.messages += 1
            packet_id = sender.last_id = sender.last_id % 60_000 + 1
            flow.under_way[packet_id] = (qos, number, self.mesh.clock.now)
            sender.publish(f"vehicles/{name}/cmd", b"%d:%d" % (qos, number), qos, packet_id=packet_id)

    def _known_full(self, name: str) -> float | None:
        """Since when the queue of a vehicle is full, if the core knows that and waits for the edge to read."""
        pipe = self.mesh.pipes[EDGE]
        assert isinstance(pipe, SpyPipe)
        return pipe.full.get(name) if self._link.up and not pipe.mute else None

    def _answer(self, name: str, count: int) -> None:
        """The vehicle reads, and sends up to ``count`` acknowledgements."""
        flow, vehicle = self.flows[name], self.vehicles[name]
        while count:
            for packet in vehicle.take(Publish, Ack):
                if isinstance(packet, Publish):
                    flow.take(packet)
                elif packet.type == PUBREL:
                    flow.taken.discard(packet.packet_id)
                    flow.due.append(Ack(PUBCOMP, packet.packet_id))
            if not flow.due or vehicle.connection.session is None:
                return
            vehicle.send(flow.due.pop(0))
            count -= 1

    def advance(self, seconds: float) -> None:
        """The clock advances; the link ticks each second."""
        mesh = self.mesh
        while seconds > 0:
            mesh.clock.now += min(1.0, seconds)
            seconds -= 1.0
            if self._link.up:
                self._link.tick()
            mesh.run()

    def _crash_core(self) -> None:
        self._note_link()
        self.mesh = self.mesh.restart_core()
        self.mesh.connect()
        for name in self.flows:
            self._sender(name)

    def _crash_edge(self) -> None:
        self.mesh.kill(EDGE)
        for name in self.flows:
            self._join(name)
        self.deaf = self.mesh.edges[EDGE].client("deaf", "deaf", TIER)

    def _restart_edge(self) -> None:
        """The edge dies; the connections of its vehicles outlive it."""
        mesh = self.mesh
        mesh.kill(EDGE)
        if self._dice.random() < 0.5:
            mesh.connect(EDGE)
        for name, vehicle in self.vehicles.items():
            vehicle.bench = mesh.edges[EDGE]
            if vehicle.connection.session is not None:
                flow = self.flows[name]
                here = {packet.packet_id for packet in vehicle.packets if isinstance(packet, Publish)}
                here |= flow.taken | {ack.packet_id for ack in flow.due}
                vehicle.attach(sorted(here))
                vehicle.live()
        if self.deaf is not None:
            self.deaf = mesh.edges[EDGE].client("deaf", "deaf", TIER)

    def _note_link(self) -> None:
        self.rejected += self._link.status("").rejected
        self.refusals += self._link.status("").refused

    # Checks

    def settle(self) -> None:
        """Let all bytes arrive, then check. In a hurry, messages that are being spooled may be answered though their
        vehicle is full."""
        if self.hurried:
            for flow in self.flows.values():
                flow.waiting = None
        for _ in range(6 if self.hurried else 1):
            self.mesh.run()
        for name in self.flows:
            self._hear(name)
        self.check()

    def _hear(self, name: str) -> None:
        """The answers that a publisher got."""
        flow, sender = self.flows[name], self.senders[name]
        for ack in sender.take(Ack):
            if ack.type not in (PUBACK, PUBREC) or ack.packet_id not in flow.under_way:
                continue
            qos, number, _ = flow.under_way.pop(ack.packet_id)
            if ack.reason >= 0x80:
                insist(ack.reason == 0x97, f"{name}: message {qos}:{number} got {ack.reason:#x}")
                insist((qos, number) not in flow.seen, f"{name}: message {qos}:{number} came and was refused")
                flow.refused.add((qos, number))
            else:
                flow.acked.add((qos, number))

    def check(self) -> None:
        """What always holds."""
        edge, link = self.mesh.edges[EDGE], self._link
        settings = edge.settings
        cores = 1 if self.calm else 2
        most = settings.max_queue_messages + cores * settings.receive_maximum + 2 * settings.in_flight
        for session in edge.broker.sessions.all():
            if session.kind == VEHICLE:
                waiting = len(session.outbound.waiting)
                insist(waiting <= most, f"{session.key}: {waiting} messages wait, at most {most} are allowed")
        for name, flow in self.flows.items():
            if flow.waiting is not None and self._known_full(name) == flow.waiting[0]:
                early = flow.waiting[1] & flow.acked
                insist(not early, f"{name} is full, and the publishers of {sorted(early)} do not wait")
            flow.waiting = None
        status = link.status("")
        insist(not self.calm or status.rejected == 0, f"{status.rejected} acknowledged messages were refused")
        pipe = self.mesh.pipes[EDGE]
        assert isinstance(pipe, SpyPipe)
        if not link.up or pipe.mute:
            return
        for name, since in pipe.full.items():
            full_for = self.mesh.clock.now - since
            waiting = len(self.flows[name].under_way)
            if full_for > PATIENCE + 1.0:  # the link looks once a second
                insist(not waiting, f"{name} is full for {full_for} s, and {waiting} messages wait for it")

    def finish(self) -> None:
        """All that was disturbed ends; the vehicles get the rest of their messages."""
        mesh = self.mesh
        pipe = mesh.pipes[EDGE]
        if pipe.mute and pipe.open:
            pipe.cut()
        if not mesh.pipes[EDGE].open:
            mesh.connect(EDGE)
        for name, vehicle in self.vehicles.items():
            if vehicle.connection.session is None:
                self._join(name)
        for _ in range(400):
            for name in self.flows:
                self._answer(name, 100)
            self.settle()
            if not self._busy():
                break
        self._note_link()
        insist(not self._busy(), "messages are left")
        lost = sum(len(flow.acked - flow.seen) for flow in self.flows.values())
        insist(lost <= self.rejected, f"{lost} messages were acknowledged and lost, {self.rejected} rejected")
        insist(not self._link.status("").held, "messages are held for no reason")

    def _busy(self) -> bool:
        left = any(flow.under_way or flow.due for flow in self.flows.values())
        depth = self.mesh.edges[EDGE].broker.persistence.depth.messages
        return bool(left or depth or self._link.spool.messages or self._link.status("").waiting)


def run_link(seed: str, steps: int, calm: bool | None = None, hurried: bool = False) -> LinkWorld:
    """Run one world of ``steps`` events from its start to its end."""
    world = LinkWorld(seed, calm, hurried)
    for _ in range(steps):
        world.step()
    world.finish()
    return world
