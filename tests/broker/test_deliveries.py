"""From a publisher to its subscribers: who gets a message, once or again, in which order, also after a crash."""

from __future__ import annotations

import pytest

from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import DROP_OLDEST, Settings
from mesh.session.outbound import packet_id_of
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish, SubAck, Unsubscribe
from mesh.wire.properties import Properties
from tests.support.bench import Bench, subscribe


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


def test_overlapping_filters_deliver_once_with_all_identifiers_and_the_highest_qos() -> None:
    bench = Bench()
    receiver, sender = bench.client("r"), bench.client("s")
    subscribe(receiver, "a/#", qos=0, identifier=3)
    subscribe(receiver, "a/b", qos=1, identifier=4)
    sender.publish("a/b", qos=2)
    (message,) = receiver.take(Publish)
    assert message.qos == 1
    assert sorted(message.properties.subscription_ids) == [3, 4]


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


def test_packet_identifiers_run_from_1_to_65535_and_wrap_around() -> None:
    assert packet_id_of(0) == 1
    assert packet_id_of(65_534) == 65_535
    assert packet_id_of(65_535) == 1


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
