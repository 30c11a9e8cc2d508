"""Random load on an edge with small limits and budgets, with crashes: what was acknowledged arrives, and every count is
right."""

from __future__ import annotations

from random import Random

import pytest

from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.wire import reasons
from mesh.wire.packets import Ack, Publish, Unsubscribe, Will
from tests.fuzz import sizes
from tests.fuzz.store import CrashStore
from tests.support.bench import Bench, Client, subscribe

VEHICLES = ("V1", "V2", "V3", "V4")
STEPS = 200
_REFUSED = (reasons.QUOTA_EXCEEDED, reasons.SERVER_BUSY)


def vehicle_of(topic: str) -> str | None:
    parts = topic.split("/")
    return parts[1] if parts[0] == "vehicles" and len(parts) > 1 else None


class World:
    """Each vehicle has a durable session ``keep`` that is subscribed to its commands. ``acknowledged``: the commands
    for it that the core was told are accepted, and that have not arrived."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        settings = Settings()
        settings.keep_all = True
        settings.vehicle_sessions = self.dice.choice((2, 5))
        settings.vehicle_subscription_bytes = self.dice.choice((10_000, 1 << 26))
        settings.vehicle_retained_bytes = self.dice.choice((10_000, 1 << 26))
        settings.vehicle_queue_bytes = self.dice.choice((3_000, 1 << 26))
        settings.memory = self.dice.choice((0, 60_000, 150_000))
        settings.disk = self.dice.choice((0, 20_000))
        self.bench = Bench(settings, CrashStore(), vehicle_of=vehicle_of)
        self.acknowledged: dict[str, list[bytes]] = {name: [] for name in VEHICLES}
        self.number = 0
        self.refused = 0
        for name in VEHICLES:
            keep = self.connect(name, "keep")
            assert subscribe(keep, f"vehicles/{name}/cmd") == [1]
            keep.lose()
        self.core = self.bench.client("core", "core", TIER, expiry=1000)
        self.clients: list[Client] = []

    def connect(self, name: str, client_id: str, **fields: object) -> Client:
        fields.setdefault("expiry", 1000)
        return self.bench.client(client_id, name, VEHICLE, clean=False, **fields)  # type: ignore[arg-type]

    def step(self) -> None:
        dice, name = self.dice, self.dice.choice(VEHICLES)
        kind = dice.randrange(12)
        if kind <= 3:
            self.command(name)
        elif kind == 4:
            self.receive(name)
        elif kind == 5:
            will = Will(f"vehicles/{name}/gone", b"w" * dice.choice((1, 2000)), 1, dice.random() < 0.3)
            expiry = dice.choice((0, 1000))
            client = self.connect(name, f"c{dice.randrange(8)}", expiry=expiry, will=will)
            if client.connack().reason == 0:
                self.clients = [other for other in self.clients if not other.closed] + [client]
            else:
                self.refused += 1
        elif kind == 11 and dice.random() < 0.2:
            self.crash()
        elif self.clients:
            self.act(dice.choice(self.clients), kind)
        self.bench.broker.quotas.disk = sum(len(item.body) for item in self.bench.store.items.values())
        self.bench.broker.tick()
        self.bench.turn()
        sizes.check(self.bench.broker, self.bench.store)  # type: ignore[arg-type]

    def act(self, client: Client, kind: int) -> None:
        dice, name = self.dice, client.principal.name
        if client.closed:
            return
        topic = f"vehicles/{name}/{dice.choice(('state', 'cmd/x', 'y' * 500))}/{dice.randrange(6)}"
        if kind <= 7:
            code = subscribe(client, topic)[0]
            assert code in (1, reasons.QUOTA_EXCEEDED)
            self.refused += code in _REFUSED
        elif kind == 8:
            client.send(Unsubscribe(9, [topic]))
        elif kind == 9:
            client.publish(topic, dice.choice((b"", b"r", b"r" * 3000)), retain=True)
            self.refused += sum(ack.reason in _REFUSED for ack in client.take(Ack))
        else:
            client.lose()
            self.clients.remove(client)

    def command(self, name: str) -> None:
        self.number += 1
        payload = f"{self.number} ".encode() + b"c" * self.dice.choice((1, 500, 2000))
        self.core.publish(f"vehicles/{name}/cmd", payload, packet_id=self.number)
        (answer,) = self.core.take(Ack)
        if answer.reason in _REFUSED:
            self.refused += 1
        else:
            assert answer.reason == 0
            self.acknowledged[name].append(payload)

    def receive(self, name: str) -> None:
        """The vehicle connects, takes what waits for it, and sleeps again."""
        keep = self.connect(name, "keep")
        assert keep.connack().session_present
        arrived = [packet.payload for packet in keep.take(Publish) if packet.topic.endswith("/cmd")]
        assert arrived == self.acknowledged[name]
        self.acknowledged[name] = []
        keep.lose()

    def crash(self) -> None:
        self.bench = self.bench.restart()
        self.core = self.bench.client("core", "core", TIER, clean=False, expiry=1000)
        self.clients = []


@pytest.mark.parametrize("seed", range(24))
def test_what_is_acknowledged_arrives_at_every_limit(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    for name in VEHICLES:
        world.receive(name)
    assert world.refused, "no limit was reached"
