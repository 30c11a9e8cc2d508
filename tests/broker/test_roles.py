"""Roles of clients in the broker: publishes, subscriptions, wills, stored sessions, and changes while clients are
connected or away."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.broker.claim import Claim
from mesh.broker.grant import Grant
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions, Principal
from mesh.broker.session import Key
from mesh.broker.settings import IGNORE, Settings
from mesh.policy.access import Grants
from mesh.policy.template import Template
from mesh.wire import reasons
from mesh.wire.packets import Ack, Publish, SubAck, Subscribe, Subscription, Will
from tests.support.bench import Bench, Client, subscribe
from tests.support.effects import effect_of

TEMPLATE = Template("vehicles/{vehicle}/#")
REFUSED = reasons.NOT_AUTHORIZED
UNREAD = reasons.NO_MATCHING_SUBSCRIBERS


def grants(vehicles: Grant | None = None, backends: Grant | None = None, **roles: Grant) -> Grants:
    return Grants(TEMPLATE, vehicles or Grant((), ()), backends or Grant(("#",), ("#",)), roles)


class Roles(Bench):
    """A broker whose clients have roles."""

    def __init__(self, *args: Any, grants: Grants | None = None) -> None:
        self.grants = grants or Grants(TEMPLATE, Grant((), ()), Grant(("#",), ("#",)))
        super().__init__(*args, permissions_of=self.of)

    def of(self, key: Key, roles: tuple[str, ...], provider: str = "") -> Permissions:
        return self.grants.of(key, roles, provider)

    def car(self, client_id: str, *roles: str, **fields: Any) -> Client:
        client = Client(self, client_id, "V1", VEHICLE)
        client.principal = self.grants.vehicle("V1", roles)
        client.connect(**fields)
        return client

    def app(self, client_id: str, *roles: str, **fields: Any) -> Client:
        client = Client(self, client_id, "app", BACKEND)
        client.principal = Principal("app", BACKEND, self.grants.of((BACKEND, "app", client_id), roles))
        client.connect(**fields)
        return client

    def allow(self, new: Grants) -> None:
        self.grants.take(new)
        settings = Settings()
        settings.take(self.settings)
        self.broker.take(settings)
        self.turn()

    def again(self) -> Roles:
        """As after a crash."""
        return Roles(self.settings, self.store.crash(), self.clock, grants=self.grants)


def answer(client: Client, topic: str, qos: int = 1, **fields: Any) -> int:
    client.take(Ack)
    client.publish(topic, b"x", qos, **fields)
    return int(client.take(Ack)[0].reason)


def kept(bench: Bench) -> dict[str, list[str]]:
    return {session.key[2]: list(session.interests) for session in bench.broker.sessions.all() if session.interests}


@effect_of("access.roles", "access.roles.publish", "access.roles.subscribe")
def test_roles_come_go_and_change_at_open_connections() -> None:
    bench = Roles()
    cars = [bench.car("a", "fleet", expiry=1000), bench.app("b", "fleet", expiry=1000)]
    bench.allow(grants(backends=Grant((), ())))
    for car in cars:
        assert answer(car, "reports/1") == REFUSED
    bench.allow(grants(backends=Grant((), ()), fleet=Grant(("reports/#",), ("news", "alerts"))))
    for car in cars:
        assert answer(car, "reports/1") == UNREAD
        assert subscribe(car, "news", "alerts", "other") == [1, 1, REFUSED]
    cars[1].lose()
    bench.allow(grants(backends=Grant((), ()), fleet=Grant(("reports/2",), ("news",))))
    assert answer(cars[0], "reports/1") == REFUSED
    assert answer(cars[0], "reports/2") == UNREAD
    assert kept(bench) == {"a": ["news"], "b": ["news"]}
    bench.allow(grants(backends=Grant((), ())))
    assert answer(cars[0], "reports/2") == REFUSED
    assert kept(bench) == {}
    assert not cars[0].closed


@effect_of("access.roles.refuse")
def test_a_role_withholds_topics_from_those_that_have_it() -> None:
    bench = Roles(grants=grants(Grant((), ("#",)), guest=Grant((), ())))
    guest, other = bench.car("guest", "guest"), bench.car("other")
    for car in (guest, other):
        assert subscribe(car, "#", "$share/g/#") == [1, 1]
    sender = bench.client("p")
    sender.publish("secret/1")  # its route is remembered
    assert len(guest.messages()) + len(other.messages()) == 3
    bench.allow(grants(Grant((), ("#",)), guest=Grant((), (), ("secret/#",))))
    assert kept(bench) == {"guest": ["#"], "other": ["#", "$share/g/#"]}
    sender.publish("secret/1")
    sender.publish("open")
    assert [packet.topic for packet in guest.take(Publish)] == ["open"]
    assert len(other.messages()) == 4
    assert subscribe(guest, "secret/1", "$share/g/#") == [REFUSED, REFUSED]
    assert answer(guest, "secret/1") == REFUSED
    sender.publish("secret/2", retain=True)
    again = bench.car("again", "guest")
    subscribe(again, "#")
    assert again.messages() == []
    bench.allow(grants(Grant((), ("#",)), guest=Grant((), ())))
    sender.publish("secret/1")
    assert len(again.messages()) == 1


@effect_of(
    "access.vehicles.qos", "access.backends.qos", "access.roles.qos",
    "access.vehicles.retain", "access.backends.retain", "access.roles.retain",
)  # fmt: skip
@pytest.mark.parametrize("who", ["vehicles", "backends", "role"])
def test_limits_of_publishes_and_subscriptions(who: str) -> None:
    wide, narrow = Grant(("t",), ("t", "u")), Grant(("t",), ("t", "u"), qos=1, retain=False)

    def with_limits(grant: Grant) -> Grants:
        if who == "role":
            return grants(backends=Grant((), ()), r=grant)
        return grants(grant if who == "vehicles" else None, grant if who == "backends" else Grant((), ()))

    bench = Roles(grants=with_limits(wide))
    client = bench.app("c", "r", expiry=1000) if who == "backends" else bench.car("c", "r", expiry=1000)
    assert subscribe(client, "t", qos=2) == [2]
    assert answer(client, "t", 1, retain=True) == 0
    bench.allow(with_limits(narrow))
    assert answer(client, "t", 2) == REFUSED
    assert answer(client, "t", 1, retain=True) == REFUSED
    assert answer(client, "t", 1) == 0
    assert subscribe(client, "u", qos=2) == [1]
    session = bench.broker.sessions.all()[0]
    assert {name: one.subscription.qos for name, one in session.interests.items()} == {"t": 1, "u": 1}
    client.take(Publish)
    bench.client("p").publish("t", qos=2)
    assert [packet.qos for packet in client.take(Publish)] == [1]
    again = bench.again()
    (session,) = [one for one in again.broker.sessions.all() if one.key[2] == "c"]
    assert {name: one.subscription.qos for name, one in session.interests.items()} == {"t": 1, "u": 1}


def test_a_retained_backlog_goes_on_when_its_subscription_gets_a_lower_qos() -> None:
    bench = Roles(grants=grants(Grant((), ("t/#",))))
    sender = bench.client("p")
    for number in range(300):
        sender.publish(f"t/{number}", b"%d" % number, 2, retain=True)
    car = bench.car("c")
    bench.turns = 1
    car.send(Subscribe(7, [Subscription("t/#", 2)]))
    bench.turns = 1 << 30
    bench.allow(grants(Grant((), ("t/#",), qos=0)))
    assert len(car.take(SubAck)) == 1
    assert sorted({int(packet.payload) for packet in car.take(Publish)}) == list(range(300))


@effect_of("access.vehicles.will", "access.backends.will", "access.roles.will")
@pytest.mark.parametrize("who", ["vehicles", "backends", "role"])
def test_who_may_have_a_will(who: str) -> None:
    wide, narrow = Grant(("wills/#",), ()), Grant(("wills/#",), (), will=False)

    def with_wills(grant: Grant) -> Grants:
        if who == "role":
            return grants(backends=Grant((), ()), r=grant)
        return grants(grant if who == "vehicles" else None, grant if who == "backends" else Grant((), ()))

    bench = Roles(grants=with_wills(wide))
    watcher = bench.client("w", "watcher")
    watcher.principal = Client(bench, "w", "app", BACKEND).principal
    watcher.connect()
    subscribe(watcher, "#")

    def connect(client_id: str, **fields: Any) -> Client:
        make = bench.app if who == "backends" else bench.car
        return make(client_id, "r", will=Will(f"wills/{client_id}", b"", 1), **fields)

    for client_id in ("a", "b"):
        assert connect(client_id).connack().reason == 0
    first, second = (one.connection for one in bench.broker.sessions.all() if one.key[2] in ("a", "b"))
    assert first is not None
    assert second is not None
    bench.broker.lost(first)
    bench.allow(with_wills(narrow))
    bench.broker.lost(second)
    bench.turn()
    assert connect("c").connack().reason == REFUSED
    bench.settings.on_refusal = IGNORE
    old = connect("d", protocol=4)
    assert old.connack().reason == 0
    old.lose()
    assert [packet.topic for packet in watcher.take(Publish) if packet.topic.startswith("wills")] == ["wills/a"]


def test_a_client_that_gets_other_roles_loses_what_they_do_not_allow() -> None:
    bench = Roles(grants=grants(a=Grant(("a",), ("a/#", "c")), b=Grant(("b",), ("b/#", "c"))))
    car = bench.car("c", "a", "b", expiry=1000)
    assert subscribe(car, "a/1", "b/1", "c", "vehicles/V1/x") == [1, 1, 1, 1]
    bench.broker.entitle(car.connection, ("b",))
    bench.turn()
    assert kept(bench) == {"c": ["b/1", "c", "vehicles/V1/x"]}
    assert (answer(car, "a"), answer(car, "b")) == (REFUSED, UNREAD)
    again = bench.again()
    assert [session.roles for session in again.broker.sessions.all()] == [("b",)]
    bench.broker.entitle(car.connection, ("a",))
    bench.turn()
    assert kept(bench) == {"c": ["c", "vehicles/V1/x"]}


def test_a_client_that_connects_with_fewer_roles_loses_its_stored_subscriptions() -> None:
    bench = Roles(grants=grants(a=Grant((), ("a/#",))))
    car = bench.car("c", "a", clean=False, expiry=1000)
    subscribe(car, "a/1", "vehicles/V1/x")
    car.lose()
    bench.client("p").publish("a/1", b"accepted")
    bench = bench.again()
    assert kept(bench) == {"c": ["a/1", "vehicles/V1/x"]}, "its last roles allow it"
    car = bench.car("c", clean=False, expiry=1000)
    assert kept(bench) == {"c": ["vehicles/V1/x"]}
    assert car.messages() == [b"accepted"], "what was acknowledged for it stays"
    bench.client("p").publish("a/1")
    assert car.messages() == []
    car.lose()
    assert kept(bench.again()) == {"c": ["vehicles/V1/x"]}


def test_an_absent_client_is_judged_by_the_roles_that_it_had() -> None:
    bench = Roles(grants=grants(a=Grant((), ("a/#",)), b=Grant((), ("a/#",))))
    for client_id, role in (("one", "a"), ("two", "b")):
        car = bench.car(client_id, role, expiry=1000)
        subscribe(car, "a/1")
        car.lose()
    bench = bench.again()
    bench.allow(grants(a=Grant((), ("a/#",))))
    assert kept(bench) == {"one": ["a/1"]}
    assert kept(bench.again()) == {"one": ["a/1"]}


def test_a_connection_that_is_attached_has_the_roles_of_its_door() -> None:
    bench = Roles(grants=grants(a=Grant(("a",), ("a/#",))))
    car = bench.car("c", "a", clean=False, expiry=1000)
    subscribe(car, "a/1")
    bench = bench.again()
    car.bench = bench
    car.principal = bench.grants.vehicle("V1")  # it has lost its role meanwhile
    car.attach([])
    assert kept(bench) == {}
    assert answer(car, "a") == REFUSED  # replayed
    assert kept(bench.again()) == {}
    assert [session.roles for session in bench.again().broker.sessions.all()] == [()]


def test_a_stored_will_is_judged_by_the_last_roles() -> None:
    bench = Roles(grants=grants(a=Grant(("wills",), ())))
    watcher = bench.client("w")
    subscribe(watcher, "#")
    stays, goes = (
        bench.car(client_id, "a", expiry=1000, will=Will("wills", client_id.encode(), 1))
        for client_id in ("stays", "goes")
    )
    bench.broker.entitle(goes.connection, ())
    for car in (stays, goes):
        car.lose()
    assert watcher.messages() == [b"stays"]
    taken = bench.car("taken", "a", expiry=1000, will=Will("wills", b"taken", 1))
    bench.car("taken", clean=False, expiry=1000)  # takes over without the role
    assert taken.closed
    assert watcher.messages() == []
    bench.car("late", "a", expiry=1000, will=Will("wills", b"late", 1))
    bench = bench.again()
    bench.allow(grants())
    watcher = bench.client("w")
    subscribe(watcher, "#")
    bench.clock.now += 10_000
    bench.broker.tick()
    bench.turn()
    assert watcher.messages() == []


def test_places_have_the_client_id_that_the_server_assigned() -> None:
    bench = Roles(grants=grants(Grant((), ("to/{client_id}",))))
    car = bench.car("")
    properties = car.connack().properties
    assert properties is not None
    assigned = properties.assigned_client_id
    assert subscribe(car, f"to/{assigned}", "to/other") == [1, REFUSED]


def test_many_subscriptions_of_one_client_end_in_slices() -> None:
    bench = Roles(grants=grants(a=Grant((), ("a/#",))))
    car = bench.car("c", "a", expiry=1000)
    for start in range(0, 1000, 100):
        subscribe(car, *(f"a/{number}" for number in range(start, start + 100)))
    bench.turns = 1
    bench.broker.entitle(car.connection, ())
    assert 0 < len(bench.broker.subscriptions) < 1000
    bench.turns = 1 << 30
    bench.turn()
    assert kept(bench) == {}


# Retained messages


def retained(bench: Bench) -> list[str]:
    return sorted(topic for topic, _ in bench.broker.retained.items("#"))


def test_retained_messages_of_a_sender_that_has_lost_the_right_are_deleted() -> None:
    """CVE-2018-12546."""
    bench = Roles(grants=grants(Grant((), ("#",)), a=Grant(("a/#",), ()), b=Grant(("b/#", "a/2"), ())))
    core = bench.client("core", "core", TIER)
    subscribe(core, "#")
    car, other = bench.car("car", "a", "b", expiry=1000), bench.car("other", "a", expiry=1000)
    for client, topics in ((car, ("a/1", "a/2", "b/1", "vehicles/V1/x")), (other, ("a/3",)), (core, ("a/4",))):
        for topic in topics:
            client.publish(topic, b"1", retain=True)
    core.take(Publish)
    other.lose()
    bench.allow(grants(Grant((), ("#",)), b=Grant(("b/#", "a/2"), ())))
    assert retained(bench) == ["a/2", "a/4", "b/1", "vehicles/V1/x"], "that of a core has no sender here"
    deleted = [(packet.topic, packet.payload, packet.retain) for packet in core.take(Publish)]
    assert sorted(deleted) == [("a/1", b"", False), ("a/3", b"", False)]
    bench.broker.entitle(car.connection, ())
    bench.turn()
    assert retained(bench) == ["a/4", "vehicles/V1/x"]
    reader = bench.car("reader")
    subscribe(reader, "#")
    assert sorted(packet.topic for packet in reader.take(Publish)) == ["a/4", "vehicles/V1/x"]
    assert bench.broker.status().revoked_retained == 4
    assert retained(bench.again()) == ["a/4", "vehicles/V1/x"]


def test_a_sender_that_connects_without_its_role_or_never_again_is_judged_as_well() -> None:
    rights = grants(a=Grant(("a/#",), ()))
    bench = Roles(grants=rights)
    for client_id in ("back", "gone"):
        car = bench.car(client_id, "a")
        car.publish(f"a/{client_id}", retain=True)
        car.lose()  # its session ends with it
    bench = bench.again()
    bench.turn()
    assert retained(bench) == ["a/back", "a/gone"]
    bench.car("back")
    assert retained(bench) == ["a/gone"]
    rights.take(grants())
    bench = bench.again()  # the settings have changed while the node was down
    bench.turn()
    assert retained(bench) == []
    assert bench.broker.retained.senders() == []


def test_a_retained_message_that_another_client_has_replaced_is_that_of_the_other() -> None:
    bench = Roles(grants=grants(a=Grant(("a",), ()), b=Grant(("a",), ())))
    first, second = bench.car("first", "a"), bench.car("second", "b")
    for car in (first, second):
        car.publish("a", car.client_id.encode(), retain=True)
    assert [sender.key[2] for sender in bench.broker.retained.senders()] == ["second"]
    bench.allow(grants(b=Grant(("a",), ())))
    assert retained(bench) == ["a"]
    second.publish("a", b"", retain=True)
    assert bench.broker.retained.senders() == []


def test_a_sender_may_not_retain_now() -> None:
    bench = Roles()
    car = bench.car("c")
    car.publish("vehicles/V1/x", retain=True)
    bench.allow(grants(Grant((), (), retain=False)))
    assert retained(bench) == []


def test_many_retained_messages_are_deleted_in_slices() -> None:
    bench = Roles(grants=grants(a=Grant(("a/#",), ())))
    car = bench.car("c", "a")
    for number in range(500):
        car.publish(f"a/{number}", retain=True)
    bench.turns = 1
    bench.broker.entitle(car.connection, ())
    bench.turn()
    assert 0 < len(bench.broker.retained) < 500
    bench.turns = 1 << 30
    bench.turn()
    assert len(bench.broker.retained) == 0


def test_who_admitted_a_client_is_known_after_a_crash() -> None:
    asked: list[tuple[str, str]] = []
    rights = grants()

    def standing(provider: str, name: str, roles: tuple[str, ...]) -> tuple[str, ...] | None:
        asked.append((provider, name))
        return roles if allowed else None

    rights.standing = standing
    allowed = True
    bench = Roles(grants=rights)
    for client_id, provider in (("one", "file"), ("two", "")):
        client = Client(bench, client_id, "app", BACKEND)
        client.principal = rights.backend(Claim("app", provider), ("a",))
        client.connect(clean=False, expiry=1000)
        assert subscribe(client, "news") == [1]
        client.publish(f"t/{client_id}", retain=True)
        client.lose()
    bench = bench.again().again()
    bench.turn()
    assert set(asked) == {("file", "app")}
    assert kept(bench) == {"one": ["news"], "two": ["news"]}
    assert retained(bench) == ["t/one", "t/two"]
    assert {sender.key[2]: (sender.provider, sender.roles) for sender in bench.broker.retained.senders()} == {
        "one": ("file", ("a",)), "two": ("", ("a",)),
    }  # fmt: skip
    allowed = False
    bench.broker.judge()
    bench.turn()
    assert kept(bench) == {"two": ["news"]}
    assert retained(bench) == ["t/two"]
