"""An edge whose limits are tested, a core, and vehicles."""

from __future__ import annotations

from mesh.broker.inbox import InboxRules
from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.wire.packets import Ack
from tests.support.bench import Bench, Client, subscribe, vehicle_of

BIG = b"x" * 100_000


def edge(settings: Settings | None = None, inbox: InboxRules | None = None) -> Bench:
    settings = settings or Settings()
    settings.keep_all = True
    return Bench(settings, inbox=inbox, vehicle_of=vehicle_of)


def vehicle(bench: Bench, name: str = "V1", client_id: str = "c", **fields: object) -> Client:
    fields.setdefault("expiry", 1000)
    return bench.client(client_id, name, VEHICLE, **fields)  # type: ignore[arg-type]


def answers(client: Client) -> list[int]:
    """The reason codes of the answers that the client got."""
    return [ack.reason for ack in client.take(Ack)]


def core(bench: Bench) -> Client:
    """A core, which publishes to vehicles."""
    return bench.client("core", "core", TIER, expiry=1000)


def strained(memory: int = 0, disk: int = 0) -> Bench:
    """An edge with these budgets in bytes. V1 is connected, and subscribed."""
    settings = Settings()
    settings.memory, settings.disk = memory, disk
    bench = edge(settings)
    subscribe(vehicle(bench), "vehicles/V1/#")
    return bench
