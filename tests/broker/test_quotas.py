"""The limits of vehicles: what is refused, with which code, and that nothing kept is lost."""

from __future__ import annotations

import pytest

from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.wire import reasons
from mesh.wire.packets import Publish, Unsubscribe, Will
from tests.broker.quota_bench import BIG, answers, core, edge, vehicle
from tests.support.bench import Bench, inbox_rules, subscribe

# Sessions of a vehicle


@pytest.mark.parametrize(("protocol", "code"), [(5, reasons.QUOTA_EXCEEDED), (4, reasons.REFUSED_UNAVAILABLE)])
def test_a_vehicle_has_at_most_16_sessions(protocol: int, code: int) -> None:
    bench = edge()
    clients = [vehicle(bench, client_id=f"c{number}", clean=False) for number in range(16)]
    assert all(client.connack().reason == 0 for client in clients)
    refused = vehicle(bench, client_id="one more", protocol=protocol, clean=False)
    assert (refused.connack().reason, refused.closed) == (code, True)
    assert bench.broker.quotas.refused_sessions == 1
    assert any("V1" in line and "vehicle_sessions" in line for line in bench.broker.quotas.take_lines())
    assert vehicle(bench, "V2").connack().reason == 0  # another vehicle is not concerned
    for clean in (False, True):  # and those that it has connect again
        assert vehicle(bench, client_id="c3", clean=clean).connack().reason == 0


def test_a_session_that_ends_makes_room_for_another() -> None:
    bench = edge()
    for number in range(16):
        vehicle(bench, client_id=f"c{number}", expiry=0)
    assert vehicle(bench, client_id="more").connack().reason == reasons.QUOTA_EXCEEDED
    bench.broker.lost(bench.broker.sessions.get((VEHICLE, "V1", "c0")).connection)  # type: ignore[union-attr,arg-type]
    assert vehicle(bench, client_id="more").connack().reason == 0


def test_a_restart_with_a_lower_limit_keeps_the_sessions() -> None:
    bench = edge()
    for number in range(10):
        vehicle(bench, client_id=f"c{number}")
    bench.settings.vehicle_sessions = 3
    bench = bench.restart()
    assert len(bench.broker.sessions) == 10
    assert vehicle(bench, client_id="c9", clean=False).connack().session_present
    assert vehicle(bench, client_id="more").connack().reason == reasons.QUOTA_EXCEEDED


def test_the_sessions_of_back_ends_have_no_such_limit() -> None:
    bench = Bench()
    assert all(bench.client(f"c{number}").connack().reason == 0 for number in range(50))


# Subscriptions of a vehicle


def test_the_subscriptions_of_a_vehicle_are_bounded_in_bytes_over_all_its_sessions() -> None:
    bench = edge()
    bench.settings.vehicle_subscription_bytes = 6000
    first, second = vehicle(bench, client_id="1"), vehicle(bench, client_id="2")
    long = "vehicles/V1/" + "x" * 500
    assert subscribe(first, long + "1") == [1]
    assert subscribe(second, long + "2", "vehicles/V1/a") == [1, reasons.QUOTA_EXCEEDED]
    assert subscribe(second, long + "2") == [1]  # it replaces its own
    assert subscribe(vehicle(bench, "V2"), "vehicles/V2/" + "x" * 500) == [1]
    first.send(Unsubscribe(9, [long + "1"]))
    assert subscribe(second, "vehicles/V1/a") == [1]
    assert bench.broker.quotas.refused_subscriptions == 1
    assert any("'V1'" in line and "vehicles/V1/a" in line for line in bench.broker.quotas.take_lines())


def test_at_the_defaults_1000_subscriptions_of_128_levels_fit_and_filters_of_60_kb_do_not() -> None:
    bench = edge()
    client = vehicle(bench)
    filters = [f"vehicles/V1/{number}/" + "/".join(["level"] * 125) for number in range(1000)]
    assert filters[0].count("/") == 127
    assert set(subscribe(client, *filters)) == {1}
    greedy = vehicle(bench, "V2")
    codes = [subscribe(greedy, f"vehicles/V2/{number}" + "x" * 60_000)[0] for number in range(1000)]
    assert codes.count(1) < 600
    assert codes[-1] == reasons.QUOTA_EXCEEDED


def test_recovery_restores_subscriptions_above_the_limit() -> None:
    bench = edge()
    subscribe(vehicle(bench), *[f"vehicles/V1/{number}" for number in range(20)])
    bench.settings.vehicle_subscription_bytes = 1024
    bench = bench.restart()
    assert len(bench.broker.subscriptions) == 20
    assert subscribe(vehicle(bench, clean=False), "vehicles/V1/more") == [reasons.QUOTA_EXCEEDED]


# Retained messages of a vehicle


def test_the_retained_messages_of_a_vehicle_are_bounded_in_bytes() -> None:
    bench = edge()
    bench.settings.vehicle_retained_bytes = 250_000
    client = vehicle(bench)
    for number in range(3):
        client.publish(f"vehicles/V1/{number}", BIG, retain=True)
    assert answers(client) == [0x10, 0x10, reasons.QUOTA_EXCEEDED]
    client.publish("vehicles/V1/1", BIG, retain=True)  # a replacement of the same size
    client.publish("vehicles/V1/0", b"", retain=True)  # a removal
    client.publish("vehicles/V1/2", BIG, retain=True)
    assert answers(client) == [0x10, 0x10, 0x10]
    other = vehicle(bench, "V2")
    other.publish("vehicles/V2/0", BIG, retain=True)
    assert answers(other) == [0x10]
    assert len(bench.broker.retained) == 3
    assert any("'V1'" in line and "vehicles/V1/2" in line for line in bench.broker.quotas.take_lines())


def test_at_the_defaults_10000_retained_topics_of_eight_levels_fit_and_of_125_levels_do_not() -> None:
    bench = edge()
    client = vehicle(bench)
    for number in range(10_000):
        client.send(Publish(f"vehicles/V1/a/b/c/d/e/{number}", b"x" * 1000, 0, True, False, 0))
    assert len(bench.broker.retained) == 10_000
    deep = vehicle(bench, "V2")
    tail = "/".join(["x"] * 122)
    for number in range(3000):
        deep.send(Publish(f"vehicles/V2/{number}/{tail}", b"x", 0, True, False, 0))
    assert len(bench.broker.retained) < 12_000


def test_recovery_counts_retained_messages_with_their_bytes_and_keeps_those_above_the_limit() -> None:
    bench = edge()
    client = vehicle(bench)
    for number in range(5):
        client.publish(f"vehicles/V1/{number}", BIG, retain=True)
    before = bench.broker.quotas.share_of(VEHICLE, "V1").retained
    bench.settings.vehicle_retained_bytes = 1024
    bench = bench.restart()
    assert bench.broker.quotas.share_of(VEHICLE, "V1").retained == before > 500_000
    assert len(bench.broker.retained) == 5
    client = vehicle(bench, clean=False)
    client.publish("vehicles/V1/new", b"x", retain=True)
    assert answers(client) == [reasons.QUOTA_EXCEEDED]


def test_a_core_delivers_a_retained_message_that_it_cannot_keep_for_later_subscribers() -> None:
    """The vehicle was acknowledged by its edge already."""
    settings = Settings()
    settings.max_retained = 0
    bench = Bench(settings)
    receiver = bench.client("r", expiry=1000)
    subscribe(receiver, "vehicles/#")
    message = bench.broker.dispatcher.will_message(Will("vehicles/V1/state", b"1", 1, True))
    message.from_tier = True
    assert bench.broker.dispatcher.deliver_upstream(message, None, True, []) == reasons.SUCCESS
    bench.turn()
    assert receiver.messages() == [b"1"]
    assert bench.broker.quotas.refused_retained == 1


# Queues of a vehicle


def test_the_queues_of_a_vehicle_are_bounded_in_bytes_together() -> None:
    bench = edge()
    bench.settings.vehicle_queue_bytes = 450_000
    for client_id in ("1", "2"):
        client = vehicle(bench, client_id=client_id)
        subscribe(client, f"vehicles/V1/{client_id}")
        client.lose()
    other = vehicle(bench, "V2")
    subscribe(other, "vehicles/V2/1")
    other.lose()
    sender = core(bench)
    for number in range(6):
        sender.publish(f"vehicles/V1/{1 + number % 2}", BIG)
    sender.publish("vehicles/V2/1", BIG)
    assert answers(sender) == [0, 0, 0, 0, reasons.QUOTA_EXCEEDED, reasons.QUOTA_EXCEEDED, 0]
    bench.settings.vehicle_queue_bytes = 1000
    bench = bench.restart()  # what was acknowledged is kept, above the limit too
    assert len(vehicle(bench, client_id="1", clean=False).messages()) == 2
    assert len(vehicle(bench, client_id="2", clean=False).messages()) == 2
    assert bench.broker.quotas.share_of(VEHICLE, "V1").bytes == 0


def test_a_message_larger_than_the_limit_reaches_a_vehicle_for_which_nothing_waits() -> None:
    bench = edge()
    bench.settings.vehicle_queue_bytes = 1024
    client = vehicle(bench)
    subscribe(client, "vehicles/V1/cmd")
    core(bench).publish("vehicles/V1/cmd", BIG)
    assert client.messages() == [BIG]


def test_an_inbox_above_the_limit_is_handed_over() -> None:
    bench = edge(inbox=inbox_rules())
    sender = core(bench)
    for _ in range(5):
        sender.publish("vehicles/V1/cmd", BIG)
    assert answers(sender) == [0] * 5
    bench.settings.vehicle_queue_bytes = 1024
    bench = bench.restart()
    assert vehicle(bench, clean=False).messages() == [BIG] * 5


def test_an_inbox_does_not_count_as_a_session_of_the_vehicle() -> None:
    bench = edge(inbox=inbox_rules())
    bench.settings.vehicle_sessions = 1
    core(bench).publish("vehicles/V1/cmd", b"1")
    assert vehicle(bench, clean=False).messages() == [b"1"]


def test_an_inbox_that_cannot_be_made_refuses_the_message() -> None:
    bench = edge(inbox=inbox_rules())
    sender = core(bench)
    bench.settings.max_sessions = 1
    sender.publish("vehicles/V1/cmd", b"1")
    assert answers(sender) == [reasons.QUOTA_EXCEEDED]


def test_messages_of_qos_0_for_a_slow_client_are_bounded_in_bytes() -> None:
    bench = edge()
    bench.settings.max_queue_bytes = 450_000
    client = vehicle(bench)
    subscribe(client, "vehicles/V1/#", qos=0)
    client.connection.writable = False
    sender = core(bench)
    for _ in range(100):
        sender.publish("vehicles/V1/cmd", BIG, 0)
    outbound = bench.broker.sessions.get((VEHICLE, "V1", "c")).outbound  # type: ignore[union-attr]
    assert 0 < outbound.bytes <= 450_000
    assert bench.broker.counters.dropped_full == 96


def test_every_count_returns_to_zero() -> None:
    bench = edge()
    client = vehicle(bench, expiry=0, will=Will("vehicles/V1/gone", b"x", 1, False))
    subscribe(client, "vehicles/V1/#", "vehicles/V1/a", qos=2)
    subscribe(client, "vehicles/V1/a", qos=1)
    client.auto_ack = False
    sender = core(bench)
    for qos in (0, 1, 2, 1):
        sender.publish("vehicles/V1/cmd", BIG, qos)
    client.publish("vehicles/V1/state", b"1", retain=True)
    client.publish("vehicles/V1/state", b"", retain=True)
    quotas = bench.broker.quotas
    assert quotas.holds(VEHICLE, "V1")
    client.lose()
    sender.lose()
    bench.broker.sessions.end(bench.broker.sessions.get((TIER, "core", "core")))  # type: ignore[arg-type]
    assert (quotas.memory(), quotas.identities()) == (0, [])


def test_a_refusal_is_logged_at_a_bounded_rate() -> None:
    bench = edge()
    bench.settings.vehicle_subscription_bytes = 1024
    client = vehicle(bench)
    for number in range(100):
        subscribe(client, f"vehicles/V1/{number}\n" + "x" * 1000)
    lines = bench.broker.quotas.take_lines()
    assert len(lines) == 6
    assert lines[-1] == "95 more refusals at a limit"
    assert all(len(line) < 500 and "\n" not in line for line in lines)
    assert bench.broker.quotas.take_lines() == []
