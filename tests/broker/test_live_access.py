"""Permissions that change while clients are connected, and clients that are not admitted any longer."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.broker.claim import Claim
from mesh.broker.grant import Grant
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions, Principal
from mesh.broker.session import Key
from mesh.broker.settings import DISCONNECT, IGNORE, Settings
from mesh.wire import reasons
from mesh.wire.packets import Disconnect, Publish, Subscribe, Subscription, Will
from tests.broker.live_bench import UNREAD, answers, change, kept
from tests.support.bench import Bench, Client, subscribe
from tests.support.effects import effect_of


class Guarded(Bench):
    """A broker whose clients have the grants of their kinds."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        self.vehicles = Grant((), (), fleet=("fleet/#",))
        self.backends = Grant(("#",), ("#",))
        super().__init__(*args, permissions_of=self.permissions, **fields)

    def permissions(self, key: Key, roles: tuple[str, ...] = (), provider: str = "") -> Permissions:
        kind, name, _ = key
        return Permissions(f"vehicles/{name}/", self.vehicles) if kind == VEHICLE else Permissions("", self.backends)

    def guarded(self, client_id: str, name: str, kind: int, **fields: Any) -> Client:
        client = Client(self, client_id, name, kind)
        client.principal = Principal(name, kind, self.permissions((kind, name, client_id)), "")
        client.connect(**fields)
        return client

    def allow(self, vehicles: Grant | None = None, backends: Grant | None = None, **values: Any) -> None:
        self.vehicles.take(vehicles or self.vehicles)
        self.backends.take(backends or self.backends)
        change(self, **values)


@effect_of("access.vehicles.publish", "access.backends.publish")
@pytest.mark.parametrize(("kind", "name"), [(VEHICLE, "V1"), (BACKEND, "app")])
def test_what_clients_may_publish(kind: int, name: str) -> None:
    bench = Guarded()
    bench.backends.take(Grant((), ()))
    clients = [bench.guarded("a", name, kind)]
    assert answers(clients[0], "common/x") == reasons.NOT_AUTHORIZED
    allowed = Grant(("common/#",), ())
    bench.allow(allowed, allowed)
    clients.append(bench.guarded("b", name, kind))
    assert [answers(client, "common/x") for client in clients] == [UNREAD] * 2
    bench.allow(Grant((), ()), Grant((), ()))
    assert [answers(client, "common/x") for client in clients] == [reasons.NOT_AUTHORIZED] * 2


@effect_of("access.vehicles.subscribe", "access.backends.subscribe")
@pytest.mark.parametrize(("kind", "name"), [(VEHICLE, "V1"), (BACKEND, "app")])
def test_subscriptions_that_are_no_longer_allowed_end(
    kind: int, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Guarded()
    allowed = Grant(("#",), ("common/#", "other"))
    bench.allow(allowed, allowed)
    here = bench.guarded("here", name, kind, expiry=1000)
    away = bench.guarded("away", name, kind, expiry=1000)
    for client in (here, away):
        assert subscribe(client, "common/1", "$share/g/common/#", "other") == [1, 1, 1]
    away.lose()
    fewer = Grant(("#",), ("other",))
    bench.allow(fewer, fewer)
    assert kept(bench) == {"here": ["other"], "away": ["other"]}
    assert bench.broker.status().revoked_subscriptions == 4
    assert subscribe(here, "common/1") == [reasons.NOT_AUTHORIZED]
    publisher = bench.client("p")
    publisher.publish("common/1")
    publisher.publish("other")
    assert [packet.topic for packet in here.take(Publish)] == ["other"]
    assert "(client 'away') is no longer allowed to subscribe to 'common/1'" in caplog.text
    assert not here.closed
    assert kept(bench.restart()) == {"away": ["other"], "here": ["other"]}
    again = bench.guarded("away", name, kind, clean=False, expiry=1000)
    assert [packet.topic for packet in again.take(Publish)] == ["other"]


def test_stored_subscriptions_that_are_not_allowed_after_a_restart_end(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    client = bench.client("a", "V1", VEHICLE, expiry=1000)
    client.principal = Principal("V1", VEHICLE, Permissions("", Grant(("#",), ("#",))), "V1")
    client.connect(clean=False, expiry=1000)
    subscribe(client, "vehicles/V1/x", "news", "$share/g/news")
    bench = bench.restart(lambda key, *_: Permissions(f"vehicles/{key[1]}/"))
    assert kept(bench) == {"a": ["vehicles/V1/x"]}
    assert "no longer allowed to subscribe to 'news'" in caplog.text
    bench.turn()
    bench = bench.restart()
    assert kept(bench) == {"a": ["vehicles/V1/x"]}
    assert len(bench.broker.subscriptions) == 1


def test_the_rest_of_a_group_gets_the_messages_of_a_member_whose_subscription_ends() -> None:
    bench = Guarded()
    bench.allow(Grant((), ("news",)))
    vehicle = bench.guarded("v", "V1", VEHICLE, expiry=1000)
    vehicle.auto_ack = False
    other = bench.guarded("o", "app", BACKEND)
    for client in (vehicle, other):
        subscribe(client, "$share/g/news")
    publisher = bench.client("p")
    for _ in range(4):
        publisher.publish("news")
    assert len(other.messages()) == 2
    bench.allow(Grant((), ()))
    assert len(other.messages()) == 2


@effect_of("access.vehicles.refuse", "access.backends.refuse")
@pytest.mark.parametrize(("kind", "name"), [(VEHICLE, "V1"), (BACKEND, "app")])
def test_refused_filters(kind: int, name: str) -> None:
    bench = Guarded()
    wide = Grant(("#",), ("#",))
    bench.allow(wide, wide)
    client = bench.guarded("a", name, kind, expiry=1000)
    assert subscribe(client, "#", "secret/x") == [1, 1]
    publisher = bench.client("core", "core", TIER)
    publisher.publish("secret/x")  # its route is remembered
    assert len(client.messages()) == 1
    less = Grant(("#",), ("#",), ("secret/#",))
    bench.allow(less, less, refused=("secret/#",))
    publisher.publish("secret/x")
    assert client.messages() == []
    assert kept(bench) == {"a": ["#"]}
    assert answers(client, "secret/x") == reasons.NOT_AUTHORIZED
    bench.allow(wide, wide, refused=())
    publisher.publish("secret/x")
    assert len(client.messages()) == 1


@effect_of("fleet")
def test_fleet_filters() -> None:
    bench = Guarded()
    vehicle = bench.guarded("v", "V1", VEHICLE, expiry=1000)
    assert subscribe(vehicle, "fleet/#", "site/#") == [1, reasons.NOT_AUTHORIZED]
    bench.allow(Grant((), (), fleet=("site/#",)))
    assert kept(bench) == {}
    assert subscribe(vehicle, "fleet/#", "site/#") == [reasons.NOT_AUTHORIZED, 1]


@effect_of("access.refusal")
def test_reason_code_of_a_refusal() -> None:
    bench = Guarded()
    vehicle = bench.guarded("v", "V1", VEHICLE)
    assert answers(vehicle, "other") == reasons.NOT_AUTHORIZED
    bench.allow(Grant((), (), reason=reasons.IMPLEMENTATION_SPECIFIC_ERROR))
    assert answers(vehicle, "other") == reasons.IMPLEMENTATION_SPECIFIC_ERROR
    assert subscribe(vehicle, "other") == [reasons.IMPLEMENTATION_SPECIFIC_ERROR]


@effect_of("access.on_refusal")
def test_refusal_of_a_client_that_cannot_be_told() -> None:
    bench = Guarded()
    first, second = (bench.guarded(name, "V1", VEHICLE, protocol=4) for name in ("a", "b"))
    assert answers(first, "other") == 0
    change(bench, on_refusal=DISCONNECT)
    first.publish("other")
    assert first.closed
    change(bench, on_refusal=IGNORE)
    assert answers(second, "other") == 0


def test_a_will_that_is_not_allowed_at_its_publication_is_dropped() -> None:
    bench = Guarded()
    watcher = bench.client("w")
    subscribe(watcher, "#")
    bench.allow(Grant(("wills/#",), ()))
    clients = [bench.guarded(name, name, VEHICLE, will=Will(f"wills/{name}", b"", 1)) for name in ("V1", "V2")]
    clients[0].lose()
    bench.allow(Grant((), ()))
    clients[1].lose()
    assert [packet.topic for packet in watcher.take(Publish)] == ["wills/V1"]
    assert bench.broker.counters.forbidden_wills == 1


def test_a_client_that_subscribes_while_the_rules_change_keeps_nothing_that_they_forbid() -> None:
    bench = Guarded()
    bench.allow(Grant((), ("common/#",)))
    vehicle = bench.guarded("v", "V1", VEHICLE, expiry=1000)
    bench.broker.work.left = 0
    filters = [Subscription(f"common/{number}", 1) for number in range(100)]
    bench.broker.receive(vehicle.connection, Subscribe(9, filters))
    bench.turns = 1
    bench.vehicles.take(Grant((), ()))
    settings = Settings()
    settings.take(bench.settings)
    bench.broker.take(settings)
    bench.turns = 1 << 30
    bench.turn()
    assert kept(bench) == {}


def test_many_subscriptions_end_in_slices() -> None:
    bench = Guarded()
    bench.allow(Grant((), ("common/#",)))
    for number in range(300):
        vehicle = bench.guarded("v", f"V{number}", VEHICLE, expiry=1000)
        subscribe(vehicle, *(f"common/{one}" for one in range(5)))
        vehicle.lose()
    bench.turns = 1
    bench.allow(Grant((), ()))
    left = len(bench.broker.subscriptions)
    assert 0 < left < 1500
    bench.vehicles.take(Grant((), ("common/1",)))  # a later change ends what is going on
    change(bench)
    bench.turns = 1 << 30
    bench.turn()
    assert len(bench.broker.work) == 0
    assert {filter for filters in kept(bench).values() for filter in filters} == {"common/1"}


# Back ends that are not admitted


@pytest.mark.parametrize("protocol", [4, 5])
def test_connections_of_a_removed_user_are_closed_and_its_sessions_stay(protocol: int) -> None:
    bench = Bench()
    watcher = bench.client("w", "other")
    subscribe(watcher, "wills")
    gone = bench.client("a", "gone", protocol=protocol, clean=False, expiry=100, will=Will("wills", b"gone"))
    subscribe(gone, "news")
    vehicle = bench.client("v", "gone", VEHICLE)
    told: list[int] = []
    gone.connection.principal.claim = Claim("gone", "file")
    bench.broker.expel(lambda claim, peer, client: 0x87 if claim is not None and client == "a" else 0, told.append)
    bench.turn()
    assert told == [1]
    assert gone.closed
    assert [packet.reason for packet in gone.take(Disconnect)] == ([0x87] if protocol == 5 else [])
    assert not watcher.closed
    assert not vehicle.closed
    assert watcher.messages() == [b"gone"]
    assert kept(bench)["a"] == ["news"]
