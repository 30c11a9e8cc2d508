"""Brokers whose dead letters are tested: an edge, a core, and clients that cause and read letters."""

from __future__ import annotations

from mesh.broker.letter import ALL, COST
from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.wire.packets import PUBACK, PUBREC, Ack, Publish
from tests.fakes.store import MemoryStore
from tests.support.bench import Bench, Client, inbox_rules, subscribe
from tests.support.items import owned_items


def edge(settings: Settings | None = None, **fields: int) -> Bench:
    """An edge's broker with a durable core that is away and queues ``tier_queue_messages`` messages."""
    settings = settings or Settings()
    settings.keep_all = True
    for name, value in fields.items():
        setattr(settings, name, value)
    return Bench(settings, MemoryStore(), inbox=inbox_rules())


def core(**fields: object) -> Bench:
    """A core's broker."""
    settings = Settings()
    for name, value in fields.items():
        setattr(settings, name, value)
    return Bench(settings, MemoryStore())


def away(bench: Bench, name: str, *filters: str, kind: int = BACKEND, identity: str = "app") -> None:
    """A durable session whose client has left."""
    client = bench.client(name, identity, kind, expiry=1000)
    assert subscribe(client, *filters) == [1] * len(filters)
    client.lose()


def reader(bench: Bench, *filters: str, name: str = "reader", expiry: int = 1000, **fields: object) -> Client:
    """A reader of dead letters."""
    client = bench.client(name, "app", BACKEND, expiry=expiry, clean=False, **fields)  # type: ignore[arg-type]
    subscribe(client, *(filters or (ALL,)))
    return client


def answers(client: Client) -> list[int]:
    """The reason codes of the answers that the client's publishes got."""
    return [ack.reason for ack in client.take(Ack) if ack.type in (PUBACK, PUBREC)]


def kept(bench: Bench) -> list[tuple[str, int, str, bytes]]:
    """Share, reason, topic and payload of each letter."""
    letters = bench.broker.letters
    return [(one.share, one.reason, one.topic, letters.load(one).payload) for one in letters.queue.after(0, 1_000_000)]


def user_of(packet: Publish) -> dict[str, str]:
    """The user properties of a packet."""
    assert packet.properties is not None
    return dict(packet.properties.user)


def check_items(bench: Bench) -> None:
    """The journal has what memory refers to, and no more."""
    assert owned_items(bench.broker) == set(bench.store.items)


def letters_of(bench: Bench, vehicle: str, count: int, size: int = 1000) -> Client:
    """Publish reports that no queue takes."""
    client = bench.client(vehicle, vehicle, VEHICLE, protocol=4)
    for number in range(count):
        client.publish(f"vehicles/{vehicle}/status", b"%d" % number + b"." * size)
    return client


def full_edge(**fields: int) -> Bench:
    """An edge on which the queue of the core, which is away, takes nothing more."""
    bench = edge(tier_queue_messages=1, **fields)
    away(bench, "core", "vehicles/#", kind=TIER, identity="core")
    bench.client("first", "first", VEHICLE).publish("vehicles/first/status")
    return bench


# Bytes of the first letter of ``letters_of``.
SIZE = 1000 + len("0vehicles/V1/status" + "vehicle/V1") + COST
