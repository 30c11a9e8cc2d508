"""The broker: the effect of each packet, and the state after a crash."""

from __future__ import annotations

import pytest

from mesh.broker.inbox import InboxRules
from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import DROP_OLDEST, REJECT, Settings
from mesh.session.message import Message
from mesh.session.outbound import packet_id_of
from mesh.wire import reasons
from mesh.wire.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Disconnect,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)  # fmt: skip
from mesh.wire.properties import Properties
from tests.support.bench import Bench, Client, subscribe


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_reaches_its_subscriber_and_is_acknowledged(protocol: int, qos: int) -> None:
    bench = Bench()
    receiver = bench.client("r", protocol=protocol)
    sender = bench.client("s", protocol=protocol)
    assert subscribe(receiver, "a/+", qos=2) == [2]
    sender.publish("a/b", b"hello", qos)
    (message,) = receiver.take(Publish)
    assert (message.topic, message.payload, message.qos, message.dup) == ("a/b", b"hello", qos, False)
    acks = [(ack.type, ack.reason) for ack in sender.take(Ack)]
    assert acks == {0: [], 1: [(PUBACK, 0)], 2: [(PUBREC, 0), (PUBCOMP, 0)]}[qos]


def test_a_publish_without_subscribers_is_answered_with_0x10() -> None:
    sender = Bench().client("s")
    sender.publish("a", b"", 1)
    assert sender.take(Ack)[0].reason == reasons.NO_MATCHING_SUBSCRIBERS


def test_overlapping_filters_deliver_once_with_all_identifiers_and_the_highest_qos() -> None:
    bench = Bench()
    receiver, sender = bench.client("r"), bench.client("s")
    subscribe(receiver, "a/#", qos=0, identifier=3)
    subscribe(receiver, "a/b", qos=1, identifier=4)
    sender.publish("a/b", qos=2)
    (message,) = receiver.take(Publish)
    assert message.qos == 1
    assert sorted(message.properties.subscription_ids) == [3, 4]


def test_a_durable_session_keeps_messages_in_order_through_a_crash() -> None:
    bench = Bench()
    receiver, sender = bench.client("r", expiry=100), bench.client("s")
    subscribe(receiver, "a/#")
    receiver.lose()
    for number in range(200):
        sender.publish(f"a/{number % 3}", b"%d" % number)
    bench = bench.restart()
    receiver = bench.client("r", clean=False, expiry=100)
    assert receiver.connack().session_present
    assert receiver.messages() == [b"%d" % number for number in range(200)]
    assert not [item for item in bench.store.items.values() if item.body]


def test_a_publish_is_not_acknowledged_before_the_journal_has_it() -> None:
    bench = Bench()
    receiver = bench.client("r", expiry=100)
    subscribe(receiver, "a")
    sender = bench.client("s")
    bench.auto = False
    sender.publish("a", b"1")
    assert sender.take(Ack) == []
    assert receiver.messages() == []
    bench.turn(commit=True)
    bench.turn()
    assert [ack.type for ack in sender.take(Ack)] == [PUBACK]
    assert receiver.messages() == [b"1"]


def test_acknowledgements_leave_in_the_order_of_the_publishes() -> None:
    bench = Bench()
    subscribe(bench.client("r", expiry=100), "durable")
    sender = bench.client("s")
    bench.auto = False
    sender.publish("durable", packet_id=11)
    sender.publish("nobody", packet_id=12)
    assert sender.take(Ack) == []
    bench.turn(commit=True)
    assert [ack.packet_id for ack in sender.take(Ack)] == [11, 12]


def test_a_repeat_after_reconnecting_keeps_its_identifier_and_carries_dup() -> None:
    bench = Bench()
    receiver, sender = bench.client("r", expiry=100), bench.client("s")
    subscribe(receiver, "a")
    receiver.auto_ack = False
    sender.publish("a", b"1")
    (first,) = receiver.take(Publish)
    receiver.lose()
    receiver = bench.restart().client("r", clean=False, expiry=100)
    (again,) = receiver.take(Publish)
    assert (again.packet_id, again.dup, again.payload) == (first.packet_id, True, b"1")


def test_deliveries_in_flight_stop_at_the_receive_maximum_of_the_client() -> None:
    bench = Bench()
    properties = Properties()
    properties.receive_maximum = 3
    receiver, sender = bench.client("r", properties=properties), bench.client("s")
    subscribe(receiver, "a")
    receiver.auto_ack = False
    for _ in range(5):
        sender.publish("a")
    first = receiver.take(Publish)
    assert len(first) == 3
    receiver.send(Ack(PUBACK, first[0].packet_id))
    assert len(receiver.take(Publish)) == 1


@pytest.mark.parametrize("crash_after", ["publish", "pubrec", "pubrel"])
def test_qos_2_towards_a_subscriber_is_exactly_once_through_a_crash(crash_after: str) -> None:
    bench = Bench()
    receiver, sender = bench.client("r", expiry=100), bench.client("s")
    subscribe(receiver, "a", qos=2)
    receiver.auto_ack = False
    sender.publish("a", b"1", 2)
    (message,) = receiver.take(Publish)
    if crash_after != "publish":
        receiver.send(Ack(PUBREC, message.packet_id))
        assert [ack.type for ack in receiver.take(Ack)] == [PUBREL]
    receiver = bench.restart().client("r", clean=False, expiry=100)
    receiver.auto_ack = False
    published, acks = receiver.take(Publish), receiver.take(Ack)
    if crash_after == "publish":
        assert [(packet.packet_id, packet.dup) for packet in published] == [(message.packet_id, True)]
    else:
        assert published == []
        assert [(ack.type, ack.packet_id) for ack in acks] == [(PUBREL, message.packet_id)]
        receiver.send(Ack(PUBCOMP, message.packet_id))
        assert not [item for item in receiver.bench.store.items.values() if item.kind in (3, 5)]


def test_qos_2_from_a_publisher_is_exactly_once_through_a_crash() -> None:
    bench = Bench()
    receiver = bench.client("r", expiry=100)
    subscribe(receiver, "a", qos=1)
    receiver.lose()
    sender = bench.client("s", expiry=100)
    sender.auto_ack = False
    sender.publish("a", b"1", 2, packet_id=9)
    assert [ack.type for ack in sender.take(Ack)] == [PUBREC]
    bench = bench.restart()
    sender = bench.client("s", clean=False, expiry=100)
    sender.auto_ack = False
    sender.publish("a", b"1", 2, packet_id=9, dup=True)
    sender.send(Ack(PUBREL, 9))
    sender.send(Ack(PUBREL, 9))
    assert [(ack.type, ack.reason) for ack in sender.take(Ack)] == [(PUBREC, 0), (PUBCOMP, 0), (PUBCOMP, 0x92)]
    assert bench.client("r", clean=False, expiry=100).messages() == [b"1"]


def test_attach_after_a_crash_repeats_no_message_that_the_client_has() -> None:
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings)
    vehicle = bench.client("v", "V1", VEHICLE)
    subscribe(vehicle, "vehicles/V1/#")
    vehicle.auto_ack = False
    sender = bench.client("s", "core", TIER)
    for number in range(4):
        sender.publish("vehicles/V1/cmd", b"%d" % number)
    sent = vehicle.take(Publish)
    assert [packet.payload for packet in sent] == [b"0", b"1", b"2", b"3"]
    bench.auto = False
    vehicle.send(Ack(PUBACK, sent[0].packet_id))  # its drop does not reach the disk
    bench = bench.restart()
    bench.auto = True
    # The vehicle has 1 and 2. The acknowledgement of 0 is replayed; 3 was lost on the device link.
    vehicle = Client(bench, "v", "V1", VEHICLE)
    vehicle.auto_ack = False
    vehicle.attach([sent[1].packet_id, sent[2].packet_id])
    vehicle.send(Ack(PUBACK, sent[0].packet_id))
    assert vehicle.take(Publish) == []
    vehicle.live()
    assert [(packet.payload, packet.packet_id, packet.dup) for packet in vehicle.take(Publish)] == [
        (b"3", sent[3].packet_id, False)
    ]
    vehicle.send(Ack(PUBACK, sent[1].packet_id))
    vehicle.send(Ack(PUBACK, sent[2].packet_id))
    vehicle.send(Ack(PUBACK, sent[3].packet_id))
    assert [item for item in bench.store.items.values() if item.kind == 3] == []


def test_a_replayed_pubrel_is_answered_without_an_error() -> None:
    """The edge had dropped the identifier on disk, and its PUBCOMP was lost in the crash; the client saw no break."""
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings)
    car = bench.client("c", "car", VEHICLE)
    car.auto_ack = False
    car.publish("vehicles/car/status", qos=2, packet_id=7)
    car.send(Ack(PUBREL, 7))
    bench = bench.restart()
    car.bench = bench
    car.take(Ack)
    car.attach([])
    car.send(Ack(PUBREL, 7))
    car.live()
    car.send(Ack(PUBREL, 8))
    answers = [(packet.type, packet.packet_id, packet.reason) for packet in car.take(Ack)]
    assert answers == [(PUBCOMP, 7, reasons.SUCCESS), (PUBCOMP, 8, reasons.PACKET_IDENTIFIER_NOT_FOUND)]


def test_attach_to_an_ended_session_closes_the_connection() -> None:
    vehicle = Client(Bench(), "v", "V1", VEHICLE)
    vehicle.attach([])
    assert vehicle.closed


def test_a_second_connect_takes_over_the_session_with_reason_0x8e() -> None:
    bench = Bench()
    first = bench.client("c", expiry=10)
    second = bench.client("c", clean=False, expiry=10)
    assert first.closed
    assert first.take(Disconnect)[0].reason == reasons.SESSION_TAKEN_OVER
    assert second.connack().session_present


def test_another_identity_cannot_take_over_a_session() -> None:
    bench = Bench()
    first = bench.client("c", "alice", expiry=10)
    second = bench.client("c", "mallory", clean=False, expiry=10)
    assert not first.closed
    assert not second.connack().session_present


def test_a_vehicle_can_use_only_its_own_subtree() -> None:
    bench = Bench()
    vehicle = bench.client("v", "V1", VEHICLE)
    own, shared = "vehicles/V1/cmd", "$share/g/vehicles/V1/x"
    assert subscribe(vehicle, own, "vehicles/+/cmd", "#", "vehicles/V2/cmd", shared) == [1, 0x87, 0x87, 0x87, 1]
    vehicle.publish("vehicles/V2/cmd")
    assert vehicle.take(Ack)[0].reason == reasons.NOT_AUTHORIZED
    old = bench.client("o", "V3", VEHICLE, protocol=4)
    old.publish("vehicles/V2/cmd")
    assert [ack.type for ack in old.take(Ack)] == [PUBACK]  # before 5.0 no code says that it was refused
    assert old.take(Ack) == []


def test_retained_messages_survive_a_crash_and_follow_retain_handling() -> None:
    bench = Bench()
    bench.client("s").publish("a/b", b"kept", retain=True)
    bench = bench.restart()
    receiver = bench.client("r")
    subscribe(receiver, "a/#")
    (message,) = receiver.take(Publish)
    assert (message.payload, message.retain) == (b"kept", True)
    subscribe(receiver, "a/#", retain_handling=1)
    assert receiver.messages() == []
    bench.client("s").publish("a/b", b"", retain=True)
    subscribe(receiver, "a/+")
    assert receiver.messages() == [b""]  # the live message that removed the retained one


def test_a_client_with_no_local_does_not_get_its_own_messages() -> None:
    client = Bench().client("c")
    subscribe(client, "a", no_local=True)
    client.publish("a")
    assert client.messages() == []


def test_a_shared_group_gets_each_message_once() -> None:
    bench = Bench()
    members = [bench.client(f"m{number}") for number in range(3)]
    for member in members:
        subscribe(member, "$share/g/a/#")
    sender = bench.client("s")
    for number in range(9):
        sender.publish("a/b", b"%d" % number)
    shares = [member.messages() for member in members]
    assert sorted(payload for share in shares for payload in share) == [b"%d" % number for number in range(9)]
    assert [len(share) for share in shares] == [3, 3, 3]


def test_a_will_is_published_on_a_lost_connection_and_not_after_disconnect() -> None:
    bench = Bench()
    watcher = bench.client("w")
    subscribe(watcher, "gone")
    bench.client("a", will=Will("gone", b"a")).lose()
    assert watcher.messages() == [b"a"]
    bench.client("b", will=Will("gone", b"b")).send(Disconnect())
    assert watcher.messages() == []
    bench.client("c", will=Will("gone", b"c")).send(Disconnect(4))
    assert watcher.messages() == [b"c"]


def test_a_shared_body_is_kept_until_all_its_deliveries_are_made() -> None:
    """A client gets a message twice, by a plain and a shared filter; the first one fills its queue and expires."""
    settings = Settings()
    settings.max_queue_messages = settings.backend_queue_messages = settings.in_flight = 1
    bench = Bench(settings)
    receiver = bench.client("r", auto_ack=False, expiry=100)
    subscribe(receiver, "t", "$share/g/t", "first")
    sender = bench.client("s")
    sender.publish("first", b"1")
    properties = Properties()
    properties.message_expiry = 0
    sender.publish("t", b"2", properties=properties)
    assert [message.payload for message in receiver.take(Publish)] == [b"1"]
    assert sender.take(Ack)[-1].reason == reasons.SUCCESS
    receiver.send(Ack(PUBACK, 1))
    assert receiver.messages() == []
    assert {item.kind for item in bench.store.live()} == {1, 2}  # the session and its subscriptions


def test_a_client_with_too_many_answers_waiting_for_the_disk_is_not_read() -> None:
    bench = Bench(auto=False)
    client = bench.client("c", expiry=100)
    bench.turn(True)
    for number in range(1024):
        assert not client.connection.congested
        client.send(Subscribe(1 + number, [Subscription("a")]))
    assert client.connection.congested
    bench.turn(True)
    assert not client.connection.congested
    assert len(client.take(SubAck)) == 1024


@pytest.mark.parametrize("maximum", [1, 2, 3])
@pytest.mark.parametrize("protocol", [3, 5])
def test_a_client_is_read_again_when_its_publishes_are_answered(maximum: int, protocol: int) -> None:
    settings = Settings()
    settings.receive_maximum = maximum
    bench = Bench(settings, auto=False)
    client = bench.client("c", protocol=protocol, clean=False, expiry=100 if protocol == 5 else None)
    bench.turn(True)
    client.send(Subscribe(1, [Subscription("a", 1)]))
    bench.turn(True)
    for _ in range(maximum):
        assert not client.connection.congested
        client.publish("a")
    assert client.connection.congested
    bench.turn(True)
    assert not client.connection.congested


@pytest.mark.parametrize("expiry", [None, 0])
def test_a_disconnect_closes_when_the_end_is_durable(expiry: int | None) -> None:
    bench = Bench(auto=False)
    watcher = bench.client("w")
    subscribe(watcher, "gone")
    client = bench.client("c", expiry=100, will=Will("gone", b"", 0, False))
    bench.turn(True)
    properties = Properties()
    properties.session_expiry = expiry
    client.send(Disconnect(0, properties))
    assert not client.closed
    client.send(Disconnect(4, Properties()))  # packets after the first DISCONNECT are ignored
    bench.broker.fail(client.connection, reasons.KEEP_ALIVE_TIMEOUT)
    bench.turn(True)
    assert client.closed
    assert client.take(Disconnect) == []
    bench = bench.restart()
    client.bench = bench
    client.connect(clean=False, expiry=100)
    bench.turn(True)
    assert client.connack().session_present == (expiry is None)
    assert watcher.messages() == []


def test_a_delayed_will_survives_a_crash_and_a_reconnect_cancels_it() -> None:
    bench = Bench()
    properties = Properties()
    properties.will_delay = 10
    watcher = bench.client("w", expiry=100)
    subscribe(watcher, "gone")
    for name in ("back", "away"):
        bench.client(name, expiry=60, will=Will("gone", name.encode(), 1, False, properties)).lose()
    bench = bench.restart()
    bench.client("back", clean=False, expiry=60)
    bench.clock.now += 11
    bench.broker.tick()
    bench.turn()
    assert bench.client("w", clean=False, expiry=100).messages() == [b"away"]


def test_a_session_ends_when_its_expiry_has_passed() -> None:
    bench = Bench()
    client = bench.client("c", expiry=10)
    subscribe(client, "a")
    client.lose()
    bench.clock.now += 11
    bench.broker.tick()
    bench.turn()
    assert len(bench.broker.sessions) == 0
    assert bench.store.items == {}
    assert not bench.client("c", clean=False).connack().session_present


def test_a_message_is_sent_with_its_remaining_lifetime_until_it_expires() -> None:
    bench = Bench()
    receiver = bench.client("r", expiry=100)
    subscribe(receiver, "a")
    receiver.lose()
    sender = bench.client("s")
    for seconds in (5, 50):
        properties = Properties()
        properties.message_expiry = seconds
        sender.publish("a", b"%d" % seconds, properties=properties)
    bench.clock.now += 20
    receiver = bench.client("r", clean=False, expiry=100)
    (message,) = receiver.take(Publish)
    assert (message.payload, message.properties.message_expiry) == (b"50", 30)
    assert [item for item in bench.store.items.values() if item.kind == 3] == []


def test_a_full_queue_refuses_with_either_inbox_setting() -> None:
    settings = Settings()
    settings.max_queue_messages = 3
    settings.inbox_messages = 1
    settings.inbox_when_full = DROP_OLDEST
    bench = Bench(settings)
    receiver = bench.client("r", "V1", VEHICLE, expiry=100)
    subscribe(receiver, "vehicles/V1/a")
    receiver.lose()
    sender = bench.client("s")
    for number in range(5):
        sender.publish("vehicles/V1/a", b"%d" % number)
    assert [ack.reason for ack in sender.take(Ack)] == [0, 0, 0, 0x97, 0x97]
    assert bench.client("r", "V1", VEHICLE, clean=False, expiry=100).messages() == [b"0", b"1", b"2"]


def test_a_message_for_several_durable_sessions_has_one_body() -> None:
    bench = Bench()
    for number in range(5):
        receiver = bench.client(f"r{number}", expiry=100)
        subscribe(receiver, "a")
        receiver.lose()
    bench.client("s").publish("a", b"p" * 1000)
    assert len([item for item in bench.store.items.values() if len(item.body) > 1000]) == 1
    bench = bench.restart()
    for number in range(5):
        assert bench.client(f"r{number}", clean=False, expiry=100).messages() == [b"p" * 1000]
    assert not [item for item in bench.store.items.values() if item.body]


def inbox_rules() -> InboxRules:
    def vehicle_of(topic: str) -> str | None:
        parts = topic.split("/")
        return parts[1] if parts[0] == "vehicles" else None

    return InboxRules(vehicle_of, lambda vehicle: [Subscription(f"vehicles/{vehicle}/cmd/#", 1)], 1000)


@pytest.mark.parametrize("clean", [False, True])
def test_an_inbox_keeps_commands_for_a_vehicle_without_a_session(clean: bool) -> None:
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings, inbox=inbox_rules())
    core = bench.client("core", "core", TIER)
    for number in range(3):
        core.publish("vehicles/V1/cmd/x", b"%d" % number)
    core.publish("vehicles/V1/other")
    assert [ack.reason for ack in core.take(Ack)] == [0, 0, 0, 0x10]
    bench = bench.restart()
    vehicle = bench.client("v", "V1", VEHICLE, clean=clean, expiry=10)
    if clean:
        assert vehicle.messages() == []
        subscribe(vehicle, "vehicles/V1/#")
    assert vehicle.messages() == [b"0", b"1", b"2"]


@pytest.mark.parametrize("bound", ["messages", "bytes"])
@pytest.mark.parametrize("when_full", [REJECT, DROP_OLDEST])
def test_a_full_inbox_refuses_or_drops_the_oldest(when_full: int, bound: str) -> None:
    settings = Settings()
    settings.keep_all = True
    settings.inbox_when_full = when_full
    if bound == "messages":
        settings.inbox_messages = 3
    else:
        settings.inbox_bytes = 3 * Message("vehicles/V1/cmd/x", b"0" * 100, 1, False, b"", 0.0).size()
    bench = Bench(settings, inbox=inbox_rules())
    core = bench.client("core", "core", TIER)
    for number in range(5):
        core.publish("vehicles/V1/cmd/x", b"%d" % number * 100)
    codes = [ack.reason for ack in core.take(Ack)]
    assert codes == ([0, 0, 0, 0x97, 0x97] if when_full == REJECT else [0] * 5)
    bench = bench.restart()
    vehicle = bench.client("v", "V1", VEHICLE)
    subscribe(vehicle, "vehicles/V1/#")
    first = 0 if when_full == REJECT else 2
    assert vehicle.messages() == [b"%d" % number * 100 for number in range(first, first + 3)]


def test_a_recovered_session_has_the_limits_of_its_kind() -> None:
    """The inbox drops its oldest message; a client's own session never does, also after a crash."""
    settings = Settings()
    settings.max_queue_messages = 3
    settings.inbox_messages = 2
    settings.inbox_when_full = DROP_OLDEST
    bench = Bench(settings)
    car = bench.client("c", "car", VEHICLE, clean=False, expiry=1000)
    subscribe(car, "vehicles/car/cmd/#")
    car.lose()
    bench = bench.restart()
    sender = bench.client("s", "backend")
    sender.auto_ack = False
    for payload in (b"1", b"2", b"3", b"4"):
        sender.publish("vehicles/car/cmd/x", payload)
    assert [packet.reason for packet in sender.take(Ack)] == [0, 0, 0, reasons.QUOTA_EXCEEDED]
    car.bench = bench
    car.connect(clean=False, expiry=1000)
    assert car.messages() == [b"1", b"2", b"3"]


def test_a_message_from_a_tier_link_does_not_leave_over_a_tier_link() -> None:
    bench = Bench()
    one, two = bench.client("one", "one", TIER), bench.client("two", "two", TIER)
    for core in (one, two):
        subscribe(core, "#", qos=1)
    one.publish("vehicles/V1/cmd")
    assert one.messages() == two.messages() == []
    bench.client("v", "V1", VEHICLE).publish("vehicles/V1/status")
    assert one.messages() == two.messages() == [b"x"]


def test_an_unsubscribe_ends_deliveries_also_after_a_crash() -> None:
    bench = Bench()
    receiver = bench.client("r", expiry=100)
    subscribe(receiver, "a", "b")
    receiver.send(Unsubscribe(3, ["a", "c"]))
    assert receiver.take(SubAck)[0].reasons == [0, reasons.NO_SUBSCRIPTION_EXISTED]
    bench = bench.restart()
    receiver = bench.client("r", clean=False, expiry=100)
    sender = bench.client("s")
    sender.publish("a", b"a")
    sender.publish("b", b"b")
    assert receiver.messages() == [b"b"]


def test_a_receiver_that_does_not_read_gets_nothing_until_it_reads() -> None:
    bench = Bench()
    receiver, sender = bench.client("r", expiry=100), bench.client("s")
    subscribe(receiver, "a")
    bench.broker.pause(receiver.connection)
    for number in range(10):
        sender.publish("a", b"%d" % number)
    assert receiver.messages() == []
    assert len(sender.take(Ack)) == 10
    bench.broker.resume(receiver.connection)
    bench.turn()
    assert receiver.messages() == [b"%d" % number for number in range(10)]


def test_a_publisher_beyond_the_receive_maximum_is_disconnected() -> None:
    settings = Settings()
    settings.receive_maximum = 2
    bench = Bench(settings, auto=True)
    subscribe(bench.client("r", expiry=100), "a")
    sender = bench.client("s")
    bench.auto = False
    for number in range(1, 4):
        bench.broker.receive(sender.connection, Publish("a", b"", 1, packet_id=number))
    bench.turn()
    assert sender.take(Disconnect)[0].reason == reasons.RECEIVE_MAXIMUM_EXCEEDED


def test_topic_aliases_are_resolved_and_bounded() -> None:
    bench = Bench()
    receiver, sender = bench.client("r"), bench.client("s")
    subscribe(receiver, "a")
    for topic in ("a", ""):
        properties = Properties()
        properties.topic_alias = 2
        sender.publish(topic, properties=properties)
    assert [message.topic for message in receiver.take(Publish)] == ["a", "a"]
    properties = Properties()
    properties.topic_alias = 17
    sender.publish("a", properties=properties)
    assert sender.take(Disconnect)[0].reason == reasons.TOPIC_ALIAS_INVALID


def test_packet_identifiers_run_from_1_to_65535_and_wrap_around() -> None:
    assert packet_id_of(0) == 1
    assert packet_id_of(65_534) == 65_535
    assert packet_id_of(65_535) == 1


def test_a_will_of_a_session_without_expiry_survives_a_crash() -> None:
    bench = Bench()
    watcher = bench.client("w", expiry=1000)
    subscribe(watcher, "wills")
    bench.client("c", will=Will("wills", b"gone"))
    bench = bench.restart()
    watcher = bench.client("w", clean=False, expiry=1000)
    bench.clock.now += bench.settings.attach_grace + 1
    bench.broker.tick()
    bench.turn()
    assert watcher.messages() == [b"gone"]
    assert [session.key[2] for session in bench.broker.sessions.all()] == ["w"]
    assert bench.restart().broker.sessions.all()[0].key[2] == "w"


def test_a_session_without_expiry_is_not_present_after_a_crash() -> None:
    settings = Settings()
    settings.keep_all = True  # as on an edge
    bench = Bench(settings)
    subscribe(bench.client("w"), "wills")
    bench.client("c", will=Will("wills", b"gone"))
    bench = bench.restart()
    watcher = bench.client("w", clean=False)
    assert not watcher.connack().session_present
    subscribe(watcher, "wills")
    again = bench.client("c", clean=False)
    assert not again.connack().session_present
    assert watcher.messages() == [b"gone"]
