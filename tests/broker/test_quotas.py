"""The limits of vehicles and the budgets of a node: what is refused, with which code, and that nothing kept is lost."""

from __future__ import annotations

import pytest

from mesh.broker.inbox import InboxRules
from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.quotas import SMALL, topic_weight
from mesh.broker.settings import Settings
from mesh.broker.subscriptions import Subscriptions
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, Ack, Publish, Subscription, Unsubscribe, Will
from mesh.wire.properties import Properties
from tests.support.bench import Bench, Client, subscribe

BIG = b"x" * 100_000


def vehicle_of(topic: str) -> str | None:
    parts = topic.split("/")
    return parts[1] if parts[0] == "vehicles" and len(parts) > 1 else None


def edge(settings: Settings | None = None, inbox: InboxRules | None = None) -> Bench:
    settings = settings or Settings()
    settings.keep_all = True
    return Bench(settings, inbox=inbox, vehicle_of=vehicle_of)


def vehicle(bench: Bench, name: str = "V1", client_id: str = "c", **fields: object) -> Client:
    fields.setdefault("expiry", 1000)
    return bench.client(client_id, name, VEHICLE, **fields)  # type: ignore[arg-type]


def answers(client: Client) -> list[int]:
    return [ack.reason for ack in client.take(Ack)]


def core(bench: Bench) -> Client:
    """A core, which publishes to vehicles."""
    return bench.client("core", "core", TIER, expiry=1000)


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
    assert bench.broker.quotas.share_of(VEHICLE, "V1").queue.bytes == 0


def test_a_message_larger_than_the_limit_reaches_a_vehicle_for_which_nothing_waits() -> None:
    bench = edge()
    bench.settings.vehicle_queue_bytes = 1024
    client = vehicle(bench)
    subscribe(client, "vehicles/V1/cmd")
    core(bench).publish("vehicles/V1/cmd", BIG)
    assert client.messages() == [BIG]


def test_an_inbox_above_the_limit_is_handed_over() -> None:
    rules = InboxRules(vehicle_of, lambda name: [Subscription(f"vehicles/{name}/cmd", 1)], 1000)
    bench = edge(inbox=rules)
    sender = core(bench)
    for _ in range(5):
        sender.publish("vehicles/V1/cmd", BIG)
    assert answers(sender) == [0] * 5
    bench.settings.vehicle_queue_bytes = 1024
    bench = bench.restart()
    assert vehicle(bench, clean=False).messages() == [BIG] * 5


def test_an_inbox_does_not_count_as_a_session_of_the_vehicle() -> None:
    rules = InboxRules(vehicle_of, lambda name: [Subscription(f"vehicles/{name}/cmd", 1)], 1000)
    bench = edge(inbox=rules)
    bench.settings.vehicle_sessions = 1
    core(bench).publish("vehicles/V1/cmd", b"1")
    assert vehicle(bench, clean=False).messages() == [b"1"]


def test_an_inbox_that_cannot_be_made_refuses_the_message() -> None:
    rules = InboxRules(vehicle_of, lambda name: [Subscription(f"vehicles/{name}/cmd", 1)], 1000)
    bench = edge(inbox=rules)
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


# The budgets of a node


def strained(memory: int = 0, disk: int = 0) -> Bench:
    """An edge that an offender (V9) has brought to nine tenths of a budget. V1 is connected, and subscribed."""
    settings = Settings()
    settings.memory, settings.disk = memory, disk
    bench = edge(settings)
    subscribe(vehicle(bench), "vehicles/V1/#")
    return bench


def fill(bench: Bench, offender: Client, *, memory: int) -> None:
    """Subscribe until the budget is used up to nine tenths."""
    number = 0
    while not bench.broker.quotas.strained:
        number += 1
        assert subscribe(offender, f"vehicles/V9/{number}" + "x" * 5000) == [1]
        assert bench.broker.quotas.memory() < memory


def test_at_nine_tenths_of_the_memory_new_load_is_refused_and_the_offender_is_named() -> None:
    bench = strained(memory=1 << 20)
    offender = vehicle(bench, "V9")
    fill(bench, offender, memory=1 << 20)
    bench.broker.tick()
    client = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(client, Client)
    assert vehicle(bench, "V2").connack().reason == reasons.SERVER_BUSY
    assert vehicle(bench, "V2", protocol=4, clean=False).connack().reason == reasons.REFUSED_UNAVAILABLE
    assert subscribe(client, "vehicles/V1/more", "vehicles/V1/#") == [reasons.QUOTA_EXCEEDED, 1]
    client.publish("vehicles/V1/state", b"1", retain=True)
    assert answers(client) == [reasons.QUOTA_EXCEEDED]
    status = bench.broker.status().quotas
    assert status.strained
    assert "vehicle 'V9' holds the most" in status.strain
    assert any("vehicle 'V9' holds the most" in line for line in bench.broker.quotas.take_lines())
    assert (status.refused_sessions, status.refused_subscriptions, status.refused_retained) == (2, 1, 1)


def test_while_the_node_is_strained_a_vehicle_that_takes_its_messages_notices_nothing() -> None:
    bench = strained(memory=1 << 20)
    fill(bench, vehicle(bench, "V9"), memory=1 << 20)
    client = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(client, Client)
    sender = core(bench)  # a core may connect and subscribe
    assert sender.connack().reason == 0
    assert subscribe(sender, "vehicles/+/state") == [1]
    for payload in (b"1", BIG, b"2"):
        sender.publish("vehicles/V1/cmd", payload)
    client.publish("vehicles/V1/state", b"here")
    assert client.messages() == [b"1", BIG, b"2", b"here"]
    assert sender.messages() == [b"here"]
    assert answers(sender) == [0, 0, 0]
    for clean in (False, True):
        assert vehicle(bench, clean=clean).connack().reason == 0


def test_a_long_queue_grows_no_more_while_the_node_is_strained_and_nothing_kept_is_lost() -> None:
    bench = strained(memory=1 << 20)
    sleeper = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(sleeper, Client)
    sleeper.lose()
    sender = core(bench)
    sender.publish("vehicles/V1/cmd", b"a" * SMALL)
    fill(bench, vehicle(bench, "V9"), memory=1 << 20)
    sender.publish("vehicles/V1/cmd", b"b")
    assert answers(sender) == [0, reasons.QUOTA_EXCEEDED]
    bench = bench.restart()
    assert vehicle(bench, clean=False).messages() == [b"a" * SMALL]


def test_below_eight_tenths_new_load_is_accepted_again() -> None:
    bench = strained(memory=1 << 20)
    offender = vehicle(bench, "V9")
    fill(bench, offender, memory=1 << 20)
    assert vehicle(bench, "V2").connack().reason == reasons.SERVER_BUSY
    filters = list(bench.broker.sessions.get((VEHICLE, "V9", "c")).interests)  # type: ignore[union-attr]
    offender.send(Unsubscribe(9, filters[: len(filters) // 3]))
    assert vehicle(bench, "V2").connack().reason == 0
    assert any("accepted again" in line for line in bench.broker.quotas.take_lines())


def test_recovery_accepts_what_is_above_the_budget() -> None:
    bench = edge()
    for number in range(50):
        client = vehicle(bench, f"V{number}")
        subscribe(client, f"vehicles/V{number}/#")
        client.publish(f"vehicles/V{number}/state", b"1", retain=True)
        client.lose()
    bench.settings.memory = 10_000
    bench = bench.restart()
    bench.turn()
    assert bench.broker.quotas.full
    assert (len(bench.broker.sessions), len(bench.broker.subscriptions), len(bench.broker.retained)) == (50, 50, 50)
    assert vehicle(bench, "V7", clean=False).connack().session_present
    assert vehicle(bench, "V99").connack().reason == reasons.SERVER_BUSY


def test_at_the_whole_disk_budget_no_message_is_queued_and_what_waits_leaves() -> None:
    bench = strained(disk=1 << 20)
    client = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(client, Client)
    sender = core(bench)
    client.lose()
    sender.publish("vehicles/V1/cmd", b"kept")
    bench.broker.quotas.disk = 1 << 20
    bench.turn()
    sender.publish("vehicles/V1/cmd", b"refused")
    assert answers(sender) == [0, reasons.QUOTA_EXCEEDED]
    assert "the disk is at 1048576 bytes of 1048576" in bench.broker.status().quotas.strain
    assert vehicle(bench, clean=False).messages() == [b"kept"]


def test_a_will_counts_in_the_memory_of_its_session() -> None:
    bench = edge()
    before = bench.broker.quotas.memory()
    vehicle(bench, will=Will("vehicles/V1/gone", BIG, 1, False))
    assert bench.broker.quotas.memory() > before + len(BIG)


def test_messages_that_wait_for_sleeping_vehicles_take_no_memory_for_their_bytes() -> None:
    bench = edge()
    client = vehicle(bench)
    subscribe(client, "vehicles/V1/#")
    client.auto_ack = False
    sender = core(bench)
    sender.publish("vehicles/V1/cmd", BIG)
    assert bench.broker.persistence.depth.loaded >= len(BIG)
    client.lose()
    for _ in range(20):
        sender.publish("vehicles/V1/cmd", BIG)
    assert bench.broker.persistence.depth.loaded <= len(BIG) + 100
    assert bench.broker.quotas.share_of(VEHICLE, "V1").queue.bytes > 21 * len(BIG)


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
    assert (VEHICLE, "V1") in quotas._shares
    client.lose()
    sender.lose()
    bench.broker.sessions.end(bench.broker.sessions.get((TIER, "core", "core")))  # type: ignore[arg-type]
    assert (quotas.memory(), quotas._shares) == (0, {})


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


def test_the_weight_of_a_topic_covers_its_text_and_its_levels() -> None:
    assert topic_weight("a/b/c") > topic_weight("a/b") > topic_weight("a")
    assert topic_weight("a" * 60_000) > 120_000


# Tables that a client's long texts fill


def test_the_routes_in_memory_are_bounded_in_bytes() -> None:
    subscriptions = Subscriptions(16_384, (), 1_000_000)
    for number in range(100):
        subscriptions.route(f"{number}" + "x" * 60_000)
    assert 0 < sum(len(topic) for topic in subscriptions._routes) <= 1_000_000


def test_a_route_counts_its_receivers() -> None:
    bench = Bench()
    bench.broker.subscriptions._most_bytes = 10_000
    for number in range(40):
        subscribe(bench.client(f"c{number}"), "fleet/#")
    for number in range(20):
        bench.broker.subscriptions.route(f"fleet/{number}")
    assert len(bench.broker.subscriptions._routes) == 1


def test_a_long_topic_gets_no_alias() -> None:
    bench = Bench()
    properties = Properties()
    properties.topic_alias_maximum = 10
    receiver, sender = bench.client("r", properties=properties), bench.client("s")
    subscribe(receiver, "#")
    for topic in ("a", "a" * 60_000):
        for _ in range(2):
            sender.publish(topic)
    assert receiver.connection.aliases is not None
    assert list(receiver.connection.aliases) == ["a"]
    assert [len(message.topic) for message in receiver.take(Publish)] == [1, 0, 60_000, 60_000]


def test_the_client_id_counts_in_a_session() -> None:
    bench = edge()
    vehicle(bench, client_id="x" * 60_000)
    assert bench.broker.quotas.memory() > 120_000
    before = bench.broker.quotas.memory()
    assert bench.restart().broker.quotas.memory() == before


def test_recovered_messages_of_a_shared_group_share_its_name() -> None:
    bench = edge()
    client = vehicle(bench)
    subscribe(client, "$share/g/vehicles/V1/#")
    client.lose()
    sender = core(bench)
    for _ in range(2):
        sender.publish("vehicles/V1/cmd")
    session = bench.restart().broker.sessions.get((VEHICLE, "V1", "c"))
    assert session is not None
    first, second = session.outbound.waiting
    assert first.group is second.group
    assert first.group == "$share/g/vehicles/V1/#"


def test_messages_of_a_group_move_to_another_member_whatever_the_budgets() -> None:
    bench = strained(disk=1 << 20)
    for name in ("one", "two"):
        member = bench.client(name, "V1", VEHICLE, expiry=100)
        subscribe(member, "$share/g/vehicles/V1/cmd")
        member.lose()
    core(bench).publish("vehicles/V1/cmd", b"kept")
    holders = [name for name in ("one", "two") if len(bench.broker.sessions.get((VEHICLE, "V1", name)).outbound)]  # type: ignore[union-attr]
    assert len(holders) == 1
    bench.broker.quotas.disk = 1 << 20
    bench.turn()
    assert bench.broker.quotas.full
    bench.client(holders[0], "V1", VEHICLE)  # a clean start ends the session
    (other,) = {"one", "two"} - set(holders)
    assert bench.client(other, "V1", VEHICLE, clean=False, expiry=100).messages() == [b"kept"]


def test_a_retained_backlog_goes_on_when_the_node_is_full_no_more() -> None:
    bench = strained(disk=1 << 20)
    sender = core(bench)
    for number in range(200):
        sender.publish(f"vehicles/V2/cmd/{number}", b"r", retain=True)
    few = Properties()
    few.receive_maximum = 4
    client = bench.client("late", "V2", VEHICLE, auto_ack=False, properties=few)
    subscribe(client, "vehicles/V2/cmd/#")
    bench.broker.quotas.disk = 1 << 20
    bench.turn()
    found: list[bytes] = []
    while packets := client.take(Publish):
        for packet in packets:
            found.append(packet.payload)
            client.send(Ack(PUBACK, packet.packet_id))
    assert 0 < len(found) < 200
    bench.broker.quotas.disk = 0
    bench.turn()
    client.auto_ack = True
    bench.broker.tick()
    bench.turn()
    assert len(found + client.messages()) == 200
