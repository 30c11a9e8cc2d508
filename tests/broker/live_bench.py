"""A broker whose settings change while clients are connected."""

from __future__ import annotations

from typing import Any

from mesh.broker.inbox import InboxRules
from mesh.broker.principal import VEHICLE
from mesh.broker.settings import Settings
from mesh.wire import reasons
from mesh.wire.packets import Ack
from tests.support.bench import Bench, Client, subscribe

FULL = reasons.QUOTA_EXCEEDED
UNREAD = reasons.NO_MATCHING_SUBSCRIBERS


def change(bench: Bench, inbox: InboxRules | None = None, **values: Any) -> None:
    """Change settings of a running broker."""
    settings = Settings()
    settings.take(bench.settings)
    for name, value in values.items():
        setattr(settings, name, value)
    bench.broker.take(settings, inbox or bench.inbox)
    bench.turn()


def waiting(bench: Bench, client_id: str = "v", name: str = "V1", kind: int = VEHICLE, *filters: str) -> Client:
    """A client with a durable session that has left."""
    client = bench.client(client_id, name, kind, expiry=10_000)
    subscribe(client, *(filters or ("vehicles/V1/#",)))
    client.lose()
    return client


def answers(publisher: Client, topic: str, payload: bytes = b"x", **fields: Any) -> int:
    """The reason code for a publish."""
    publisher.take(Ack)
    publisher.publish(topic, payload, **fields)
    return int(publisher.take(Ack)[0].reason)


def sized(size: int) -> bytes:
    return b"x" * size


def tick(bench: Bench, seconds: float) -> None:
    """Seconds pass."""
    bench.clock.now += seconds
    bench.broker.tick()
    bench.turn()


def kept(bench: Bench) -> dict[str, list[str]]:
    """The filters of the sessions that have any, by client identifier."""
    return {session.key[2]: list(session.interests) for session in bench.broker.sessions.all() if session.interests}
