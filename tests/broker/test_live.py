"""Settings that change while clients are connected: what holds for those before the change, and for those after it."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.broker.inbox import InboxRules
from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.broker.settings import (
    DEAD_LETTER,
    DROP_OLDEST,
    FOREVER,
    HOLD,
    NAMES,
    REJECT,
    Settings,
)
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, Ack, Connack, Publish, SubAck, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.broker.live_bench import FULL, UNREAD, answers, change, kept, sized, tick, waiting
from tests.support.bench import Bench, Client, subscribe, vehicle_of
from tests.support.effects import effect_of

# Settings


def test_settings_take_every_value() -> None:
    before, after = Settings(), Settings()
    for number, name in enumerate(NAMES):
        value = getattr(after, name)
        setattr(after, name, (f"{number}",) if isinstance(value, tuple) else type(value)(number))
    before.take(after)
    assert {name: getattr(before, name) for name in NAMES} == {name: getattr(after, name) for name in NAMES}


# Queues


@effect_of("limits.queue_messages")
def test_queue_messages() -> None:
    bench = Bench()
    waiting(bench)
    core = bench.client("core", "core", TIER)
    assert [answers(core, "vehicles/V1/a") for _ in range(3)] == [0, 0, 0]
    change(bench, max_queue_messages=4)
    assert [answers(core, "vehicles/V1/a") for _ in range(2)] == [0, FULL]
    waiting(bench, "w", "V2", VEHICLE, "vehicles/V2/#")
    assert [answers(core, "vehicles/V2/a") for _ in range(5)] == [0, 0, 0, 0, FULL]
    change(bench, max_queue_messages=6)
    assert [answers(core, "vehicles/V1/a") for _ in range(3)] == [0, 0, FULL]


@effect_of("limits.queue_bytes")
def test_queue_bytes() -> None:
    bench = Bench()
    waiting(bench)
    core = bench.client("core", "core", TIER)
    assert answers(core, "vehicles/V1/a", sized(3000)) == 0
    change(bench, max_queue_bytes=5000)
    assert answers(core, "vehicles/V1/a", sized(3000)) == FULL
    waiting(bench, "w", "V2", VEHICLE, "vehicles/V2/#")
    assert [answers(core, "vehicles/V2/a", sized(3000)) for _ in range(2)] == [0, FULL]
    change(bench, max_queue_bytes=7000)
    assert answers(core, "vehicles/V1/a", sized(3000)) == 0


@effect_of("limits.tier_queue_messages", "limits.tier_queue_bytes")
@pytest.mark.parametrize("bound", [{"tier_queue_messages": 2}, {"tier_queue_bytes": 7000}])
def test_queue_of_a_core(bound: dict[str, int]) -> None:
    bench = Bench()
    waiting(bench, "core", "core", TIER, "vehicles/#")
    vehicle = bench.client("v", "V1", VEHICLE)
    assert [answers(vehicle, "vehicles/V1/a", sized(3000)) for _ in range(2)] == [0, 0]
    change(bench, **bound)
    assert answers(vehicle, "vehicles/V1/a", sized(3000)) == FULL
    change(bench, tier_queue_messages=100, tier_queue_bytes=1 << 20)
    assert answers(vehicle, "vehicles/V1/a", sized(3000)) == 0


@effect_of("limits.backend_queue_messages", "limits.backend_queue_bytes")
@pytest.mark.parametrize("bound", [{"backend_queue_messages": 2}, {"backend_queue_bytes": 7000}])
def test_queue_of_a_back_end(bound: dict[str, int]) -> None:
    bench = Bench()
    waiting(bench, "app", "app", BACKEND, "vehicles/#")
    vehicle = bench.client("v", "V1", VEHICLE)
    assert [answers(vehicle, "vehicles/V1/a", sized(3000)) for _ in range(2)] == [0, 0]
    assert len(bench.broker.letters) == 0
    change(bench, **bound)
    assert answers(vehicle, "vehicles/V1/a", sized(3000)) == 0
    assert len(bench.broker.letters) == 1
    change(bench, backend_queue_messages=100, backend_queue_bytes=1 << 20)
    assert answers(vehicle, "vehicles/V1/a", sized(3000)) == 0
    assert len(bench.broker.letters) == 1


@effect_of("limits.vehicle_queue_bytes")
def test_queues_of_one_vehicle() -> None:
    bench = Bench()
    waiting(bench)
    core = bench.client("core", "core", TIER)
    assert answers(core, "vehicles/V1/a", sized(3000)) == 0
    change(bench, vehicle_queue_bytes=5000)
    assert answers(core, "vehicles/V1/a", sized(3000)) == FULL
    waiting(bench, "w", "V2", VEHICLE, "vehicles/V2/#")
    assert [answers(core, "vehicles/V2/a", sized(3000)) for _ in range(2)] == [0, FULL]
    change(bench, vehicle_queue_bytes=7000)
    assert answers(core, "vehicles/V1/a", sized(3000)) == 0
    assert answers(core, "vehicles/V2/a", sized(3000)) == 0


@pytest.mark.parametrize(
    "lower",
    [
        {"max_queue_messages": 1}, {"max_queue_bytes": 4096}, {"vehicle_queue_bytes": 4096}, {"memory": 1, "disk": 1},
        {"max_sessions": 1, "vehicle_sessions": 1, "max_subscriptions": 1, "vehicle_subscription_bytes": 1},
    ],
)  # fmt: skip
def test_what_is_queued_beyond_a_lower_limit_stays(lower: dict[str, int]) -> None:
    bench = Bench()
    vehicle = waiting(bench, "v", "V1", VEHICLE, "vehicles/V1/#", "other")
    core = bench.client("core", "core", TIER)
    sent = [sized(3000 + number) for number in range(5)]
    assert [answers(core, "vehicles/V1/a", payload) for payload in sent] == [0] * 5
    change(bench, **lower)
    for _ in range(5):
        tick(bench, 10)
    bench = bench.restart()
    vehicle = Client(bench, "v", "V1", VEHICLE)
    vehicle.connect(clean=False, expiry=10_000)
    assert vehicle.messages() == sent


@pytest.mark.parametrize("lower", [{"inbox_messages": 1}, {"inbox_bytes": 1024}, {"max_queue_messages": 1}])
def test_what_waits_in_an_inbox_beyond_a_lower_limit_stays(lower: dict[str, int]) -> None:
    bench, core = with_core()
    change(bench, rules("cmd"))
    sent = [sized(3000 + number) for number in range(5)]
    assert [answers(core, "vehicles/V1/cmd", payload) for payload in sent] == [0] * 5
    change(bench, rules("cmd"), **lower)
    vehicle = bench.client("v", "V1", VEHICLE, clean=False, expiry=100)
    assert vehicle.messages() == sent


@pytest.mark.parametrize("lower", [{"max_retained": 1}, {"vehicle_retained_bytes": 1}, {"memory": 1}])
def test_what_is_retained_beyond_a_lower_limit_stays(lower: dict[str, int]) -> None:
    bench = Bench(vehicle_of=vehicle_of)
    vehicle = bench.client("a", "V1", VEHICLE)
    for number in range(5):
        answers(vehicle, f"vehicles/V1/{number}", retain=True)
    change(bench, **lower)
    bench = bench.restart()
    assert len(bench.broker.retained.items("#")) == 5


def test_a_core_that_was_told_a_higher_receive_maximum_may_use_it_at_a_full_queue() -> None:
    bench = Bench()
    settings = bench.settings
    settings.max_queue_messages, settings.receive_maximum = 1, 10
    vehicle = bench.client("v", "V1", VEHICLE, auto_ack=False, properties=receive_maximum(1))
    subscribe(vehicle, "vehicles/V1/#")
    core = bench.client("core", "core", TIER)
    change(bench, receive_maximum=1)
    assert [answers(core, "vehicles/V1/a") for _ in range(10)] == [0] * 10


def receive_maximum(most: int) -> Properties:
    properties = Properties()
    properties.receive_maximum = most
    return properties


# Tables


@effect_of("limits.sessions")
def test_sessions() -> None:
    bench = Bench()
    bench.client("a", expiry=100)
    change(bench, max_sessions=1)
    assert refused(bench, "b") == FULL
    bench.client("a", clean=False, expiry=100)  # one that exists stays
    change(bench, max_sessions=2)
    assert refused(bench, "b") == 0


@effect_of("limits.vehicle_sessions")
def test_sessions_of_a_vehicle() -> None:
    bench = Bench()
    bench.client("a", "V1", VEHICLE, expiry=100)
    change(bench, vehicle_sessions=1)
    assert refused(bench, "b", "V1", VEHICLE) == FULL
    assert refused(bench, "a", "V2", VEHICLE) == 0
    change(bench, vehicle_sessions=2)
    assert refused(bench, "b", "V1", VEHICLE) == 0


def refused(bench: Bench, client_id: str, name: str = "app", kind: int = BACKEND, **fields: Any) -> int:
    client = Client(bench, client_id, name, kind)
    client.connect(**fields)
    return client.connack().reason


@effect_of("limits.subscriptions")
def test_subscriptions_of_a_session() -> None:
    bench = Bench()
    client = bench.client("a")
    assert subscribe(client, "1", "2") == [1, 1]
    change(bench, max_subscriptions=2)
    assert subscribe(client, "2", "3") == [1, FULL]
    assert subscribe(bench.client("b"), "1", "2", "3") == [1, 1, FULL]
    change(bench, max_subscriptions=3)
    assert subscribe(client, "3") == [1]


@effect_of("limits.vehicle_subscription_bytes")
def test_subscriptions_of_a_vehicle() -> None:
    bench = Bench()
    client = bench.client("a", "V1", VEHICLE)
    assert subscribe(client, "vehicles/V1/1") == [1]
    change(bench, vehicle_subscription_bytes=2000)
    assert subscribe(client, "vehicles/V1/2") == [FULL]
    assert subscribe(bench.client("b", "V2", VEHICLE), "vehicles/V2/1", "vehicles/V2/2") == [1, FULL]
    change(bench, vehicle_subscription_bytes=1 << 20)
    assert subscribe(client, "vehicles/V1/2") == [1]


@effect_of("limits.match_nodes")
def test_match_nodes() -> None:
    bench = Bench()
    client, deep = bench.client("a"), "/".join("a" * 10)
    assert subscribe(client, f"+/+/{deep}", f"a/+/{deep}", f"+/b/{deep}") == [1, 1, 1]
    change(bench, match_nodes=1)
    assert subscribe(client, f"a/b/{deep}/+") == [FULL]
    assert subscribe(bench.client("b"), f"a/+/+/{deep}") == [FULL]
    change(bench, match_nodes=8192)
    assert subscribe(client, f"a/b/{deep}/+") == [1]


@effect_of("limits.retained")
def test_retained_messages() -> None:
    bench = Bench()
    client = bench.client("a")
    assert answers(client, "one", retain=True) == UNREAD
    change(bench, max_retained=1)
    assert answers(client, "two", retain=True) == FULL
    assert answers(bench.client("b"), "two", retain=True) == FULL
    assert answers(client, "one", retain=True) == UNREAD
    change(bench, max_retained=2)
    assert answers(client, "two", retain=True) == UNREAD


@effect_of("limits.vehicle_retained_bytes")
def test_retained_messages_of_a_vehicle() -> None:
    bench = Bench(vehicle_of=vehicle_of)
    vehicle = bench.client("a", "V1", VEHICLE)
    assert answers(vehicle, "vehicles/V1/1", retain=True) == UNREAD
    change(bench, vehicle_retained_bytes=3000)
    assert answers(vehicle, "vehicles/V1/2", sized(2000), retain=True) == FULL
    change(bench, vehicle_retained_bytes=1 << 20)
    assert answers(vehicle, "vehicles/V1/2", sized(2000), retain=True) == UNREAD


@effect_of("limits.memory", "limits.disk")
def test_budgets() -> None:
    bench = Bench()
    for number in range(20):
        bench.client(f"c{number}", expiry=100)
    change(bench, memory=20_000)
    assert refused(bench, "new") == reasons.SERVER_BUSY
    change(bench, memory=1 << 30)
    assert refused(bench, "new") == 0
    bench.broker.quotas.disk = 1 << 20
    change(bench, disk=1 << 20)
    assert refused(bench, "newer") == reasons.SERVER_BUSY
    change(bench, memory=0, disk=0)  # without a budget there is no strain
    assert refused(bench, "newer") == 0


# What CONNACK says


@effect_of(
    "limits.receive_maximum", "limits.backend_receive_maximum", "limits.max_packet_size", "limits.max_keep_alive",
    "limits.topic_aliases", "limits.session_expiry", "limits.backend_session_expiry",
)  # fmt: skip
def test_what_connack_said_binds_the_connection() -> None:
    bench = Bench()
    before = bench.client("a", "V1", VEHICLE, expiry=FOREVER)
    assert said(before) == (1024, 1 << 20, 16, None, None)
    change(
        bench, receive_maximum=2, max_packet=1 << 16, topic_aliases=1, max_keep_alive=30, max_session_expiry=50
    )
    alias(before, 16)
    assert not before.closed
    after = bench.client("b", "V1", VEHICLE, expiry=FOREVER)
    assert said(after) == (2, 1 << 16, 1, 30, 50)
    alias(after, 16)
    assert after.closed
    late = bench.client("c", "V1", VEHICLE)
    for client, closes in ((before, False), (late, True)):
        client.auto_ack = False
        for number in range(1, 4):  # PUBREL does not come, so these stay unanswered
            client.send(Publish("vehicles/V1/x", b"", 2, False, False, 100 + number))
        assert client.closed == closes


def said(client: Client) -> tuple[int | None, ...]:
    properties = client.connack().properties
    assert properties is not None
    return (
        properties.receive_maximum, properties.maximum_packet_size, properties.topic_alias_maximum,
        properties.server_keep_alive, properties.session_expiry,
    )  # fmt: skip


def alias(client: Client, number: int) -> None:
    properties = Properties()
    properties.topic_alias = number
    client.publish("vehicles/V1/x", b"", 0, properties=properties)


@effect_of("limits.in_flight", "limits.backend_in_flight")
def test_unacknowledged_deliveries() -> None:
    bench = Bench()
    before = bench.client("a", auto_ack=False)
    subscribe(before, "news")
    change(bench, in_flight=2)
    after = bench.client("b", auto_ack=False)
    subscribe(after, "news")
    publisher = bench.client("p")
    for _ in range(5):
        publisher.publish("news")
    assert (len(before.messages()), len(after.messages())) == (5, 2)


# Time


@effect_of("limits.shared_patience")
def test_patience_with_a_member_of_a_group() -> None:
    bench = Bench()
    mute = bench.client("mute", auto_ack=False)
    other = bench.client("other")
    for client in (mute, other):
        subscribe(client, "$share/g/news")
    publisher = bench.client("p")
    for _ in range(4):
        publisher.publish("news")
    bench.broker.tick()
    bench.turn()
    assert len(other.messages()) == 2
    change(bench, shared_patience=5.0)
    bench.clock.now += 6
    bench.broker.tick()
    bench.turn()
    assert len(other.messages()) == 2


@effect_of("limits.attach_grace")
def test_grace_after_a_restart() -> None:
    bench = Bench()
    bench.settings.keep_all = True
    bench.client("a", "V1", VEHICLE, expiry=0)
    change(bench, attach_grace=500.0)
    bench = bench.restart()
    bench.clock.now += 400
    bench.broker.tick()
    bench.turn()
    assert len(bench.broker.sessions) == 1
    bench.clock.now += 200
    bench.broker.tick()
    bench.turn()
    assert len(bench.broker.sessions) == 0


# Dead letters


def letters(bench: Bench) -> Client:
    """A vehicle that publishes to a back end whose queue is full."""
    bench.settings.backend_queue_messages = 1
    waiting(bench, "app", "app", BACKEND, "vehicles/#")
    vehicle = bench.client("v", "V1", VEHICLE)
    vehicle.publish("vehicles/V1/a")
    return vehicle


@effect_of("dead_letters.bytes", "dead_letters.share")
@pytest.mark.parametrize("bound", ["dead_letter_bytes", "dead_letter_share"])
def test_bounds_of_the_dead_letters(bound: str) -> None:
    bench = Bench()
    vehicle = letters(bench)
    for _ in range(5):
        vehicle.publish("vehicles/V1/a", sized(3000))
    assert len(bench.broker.letters) == 5
    change(bench, **{bound: 8000})
    vehicle.publish("vehicles/V1/a", sized(3000))
    assert len(bench.broker.letters) == 2
    change(bench, **{bound: 1 << 20})
    vehicle.publish("vehicles/V1/a", sized(3000))
    assert len(bench.broker.letters) == 3


@effect_of("dead_letters.age")
def test_age_of_the_dead_letters() -> None:
    bench = Bench()
    vehicle = letters(bench)
    vehicle.publish("vehicles/V1/a")
    bench.clock.now += 100
    bench.broker.tick()
    assert len(bench.broker.letters) == 1
    change(bench, dead_letter_age=50.0)
    vehicle.publish("vehicles/V1/a")
    bench.broker.tick()
    assert len(bench.broker.letters) == 1


@effect_of("dead_letters.expired")
def test_expired_messages_among_the_dead_letters() -> None:
    bench = Bench()
    app = waiting(bench, "app", "app", BACKEND, "news")
    publisher = bench.client("p")
    properties = Properties()
    properties.message_expiry = 10
    for expired in (False, True):
        change(bench, dead_letter_expired=expired)
        publisher.publish("news", properties=properties)
        bench.clock.now += 20
        app.connect(clean=False, expiry=10_000)
        app.lose()
        assert len(bench.broker.letters) == int(expired)


@effect_of("dead_letters.when_full")
def test_what_becomes_of_letters_without_room() -> None:
    bench = Bench()
    vehicle = letters(bench)
    change(bench, dead_letter_when_full=HOLD, dead_letter_bytes=4000, dead_letter_share=4000)
    vehicle.publish("vehicles/V1/a", sized(3000))
    assert [ack.reason for ack in vehicle.take(Ack)] == [0, 0]
    vehicle.publish("vehicles/V1/a", sized(3000))
    assert vehicle.take(Ack) == []  # it waits
    change(bench, dead_letter_when_full=DROP_OLDEST)
    assert [ack.reason for ack in vehicle.take(Ack)] == [0]
    assert answers(vehicle, "vehicles/V1/a", sized(3000)) == 0
    assert len(bench.broker.letters) == 1


@effect_of("backends.when_full")
def test_what_becomes_of_messages_for_a_full_back_end() -> None:
    bench = Bench()
    vehicle = letters(bench)
    change(bench, backend_when_full=HOLD)
    vehicle.take(Ack)
    vehicle.publish("vehicles/V1/held")
    assert vehicle.take(Ack) == []  # it waits
    assert len(bench.broker.letters) == 0
    change(bench, backend_when_full=DEAD_LETTER)
    assert [ack.reason for ack in vehicle.take(Ack)] == [0]
    assert answers(vehicle, "vehicles/V1/letter") == 0
    assert len(bench.broker.letters) == 1
    app = Client(bench, "app", "app", BACKEND)
    app.connect(clean=False, expiry=10_000)
    assert [packet.topic for packet in app.take(Publish)] == ["vehicles/V1/a", "vehicles/V1/held"]


# $SYS


@effect_of("telemetry.sys_interval")
def test_figures_of_the_server() -> None:
    bench = Bench()
    bench.settings.system_interval = 0.0
    bench.broker.system.update_every(0.0, bench.clock.now)
    before = bench.client("a")
    subscribe(before, "$SYS/broker/uptime")
    tick(bench, 30)
    assert before.messages() == []
    change(bench, system_interval=5.0)
    tick(bench, 1)
    assert len(before.messages()) == 1
    after = bench.client("b")
    subscribe(after, "$SYS/broker/uptime")
    assert len(after.messages()) == 1
    tick(bench, 6)
    assert (len(before.messages()), len(after.messages())) == (1, 1)
    change(bench, system_interval=1000.0)
    tick(bench, 100)
    change(bench, system_interval=10.0)
    tick(bench, 11)
    assert len(before.messages()) == 1
    change(bench, system_interval=0.0)
    tick(bench, 100)
    subscribe(after, "$SYS/broker/version")
    assert (before.messages(), len(after.messages())) == ([], 1)


# Inboxes


def rules(*filters: str, qos: int = 1, expiry: int = 1000) -> InboxRules:
    return InboxRules(
        vehicle_of, lambda vehicle: [Subscription(f"vehicles/{vehicle}/{filter}", qos) for filter in filters], expiry
    )


def with_core() -> tuple[Bench, Client]:
    bench = Bench(vehicle_of=vehicle_of)
    return bench, bench.client("core", "core", TIER)


@effect_of("inbox", "inbox.subscribe")
def test_an_inbox_is_added_changed_and_removed() -> None:
    bench, core = with_core()
    assert answers(core, "vehicles/V1/cmd") == reasons.NO_MATCHING_SUBSCRIBERS
    change(bench, rules("cmd"))
    assert answers(core, "vehicles/V1/cmd", b"1") == 0
    assert answers(core, "vehicles/V1/job") == reasons.NO_MATCHING_SUBSCRIBERS
    change(bench, rules("job"))
    assert answers(core, "vehicles/V1/job", b"2") == 0
    assert answers(core, "vehicles/V1/cmd") == reasons.NO_MATCHING_SUBSCRIBERS
    change(bench)
    assert answers(core, "vehicles/V1/job") == reasons.NO_MATCHING_SUBSCRIBERS
    vehicle = bench.client("v", "V1", VEHICLE, clean=False, expiry=100)
    assert vehicle.messages() == [b"1", b"2"]  # what waits in an inbox stays
    assert kept(bench) == {}


def test_a_session_begins_with_the_subscriptions_of_the_present_rules() -> None:
    bench, _ = with_core()
    change(bench, rules("cmd"))
    bench.client("a", "V1", VEHICLE, clean=False, expiry=100)
    change(bench, rules("job"))
    bench.client("b", "V2", VEHICLE, clean=False, expiry=100)
    assert kept(bench) == {"a": ["vehicles/V1/cmd"], "b": ["vehicles/V2/job"]}


@effect_of("inbox.qos")
def test_qos_of_an_inbox() -> None:
    bench, core = with_core()
    change(bench, rules("cmd", qos=1))
    core.publish("vehicles/V1/cmd", qos=2)
    change(bench, rules("cmd", qos=2))
    core.publish("vehicles/V2/cmd", qos=2)
    got = [bench.client("v", name, VEHICLE, clean=False, expiry=100).take(Publish)[0].qos for name in ("V1", "V2")]
    assert got == [1, 2]


@effect_of("inbox.expiry")
def test_expiry_of_an_inbox() -> None:
    bench, core = with_core()
    change(bench, rules("cmd", expiry=1000))
    core.publish("vehicles/V1/cmd")
    bench.clock.now += 60
    change(bench, rules("cmd", expiry=100))
    core.publish("vehicles/V2/cmd")
    tick(bench, 50)
    assert [session.vehicle for session in bench.broker.sessions.all() if session.inbox] == ["V2"]
    change(bench, rules("cmd", expiry=FOREVER))
    tick(bench, 10_000)
    assert [session.vehicle for session in bench.broker.sessions.all() if session.inbox] == ["V2"]
    change(bench, rules("cmd", expiry=100))
    bench.inbox = rules("cmd", expiry=50)
    bench = bench.restart()
    tick(bench, 60)
    assert len([session for session in bench.broker.sessions.all() if session.inbox]) == 0


@effect_of("inbox.max_messages", "inbox.max_bytes", "inbox.when_full")
@pytest.mark.parametrize("bound", [{"inbox_messages": 2}, {"inbox_bytes": 7000}])
def test_bounds_of_an_inbox(bound: dict[str, int]) -> None:
    bench, core = with_core()
    bench.inbox = rules("cmd")
    change(bench, inbox_when_full=REJECT)
    assert [answers(core, "vehicles/V1/cmd", sized(3000)) for _ in range(2)] == [0, 0]
    change(bench, **bound)
    assert answers(core, "vehicles/V1/cmd", sized(3000)) == FULL
    change(bench, inbox_when_full=DEAD_LETTER)
    assert answers(core, "vehicles/V1/cmd", sized(3000)) == 0
    assert len(bench.broker.letters) == 1
    change(bench, inbox_when_full=DROP_OLDEST)
    assert answers(core, "vehicles/V1/cmd", sized(3001)) == 0
    vehicle = bench.client("v", "V1", VEHICLE, clean=False, expiry=100)
    assert [len(payload) for payload in vehicle.messages()] == [3000, 3001]
    assert len(bench.broker.letters) == 1


def test_a_connection_that_is_not_accepted_yet_keeps_working_through_a_change() -> None:
    bench = Bench(auto=False)
    client = bench.client("a", expiry=100)
    change(bench, in_flight=1)
    bench.turn(True)
    assert client.take(Connack)[0].reason == 0
    client.send(Subscribe(1, [Subscription("x", 1)]))
    bench.turn(True)
    assert client.take(SubAck)[0].reasons == [1]
    assert client.publish("x") == 1
    bench.turn(True)
    assert [ack.type for ack in client.take(Ack)] == [PUBACK]
