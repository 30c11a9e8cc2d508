"""The readers of dead letters: who gets which letter, and when it ends."""

from __future__ import annotations

import pytest

from mesh.broker.broker import Broker
from mesh.broker.letter import ALL, PREFIX, TOPIC
from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.session.message import Message
from mesh.wire.packets import PUBACK, Ack, Publish, Unsubscribe
from mesh.wire.properties import Properties
from tests.broker.letter_bench import answers, away, check_items, core, full_edge, kept, letters_of, reader, user_of
from tests.support.bench import subscribe


def test_a_durable_reader_gets_the_letters_once_and_they_end() -> None:
    bench = full_edge()
    letters_of(bench, "V1", 3, size=0)
    client = reader(bench)
    packets = client.take(Publish)
    assert [(one.topic, one.payload, one.qos) for one in packets] == [
        (f"{PREFIX}vehicles/V1/status", b"%d" % number, 1) for number in range(3)
    ]
    user = user_of(packets[0])
    assert (user["reason"], user["share"], user["expires"]) == ("queue full", "vehicle/V1", "never")
    assert float(user["time"]) == bench.clock.now
    assert kept(bench) == []
    assert bench.broker.status().letters_read == 3
    letters_of(bench, "V2", 1, size=0)
    assert len(client.take(Publish)) == 1
    check_items(bench.restart())


def test_a_letter_has_the_properties_and_the_expiry_of_its_message() -> None:
    bench = core(backend_queue_messages=1)
    away(bench, "slow", "t")
    sender = bench.client("s")
    sender.publish("t")
    properties = Properties()
    properties.user = [("reason", "mine"), ("a", "b")]
    properties.content_type = "text"
    properties.message_expiry = 60
    sender.publish("t", b"x", properties=properties)
    bench.clock.now += 100
    (packet,) = reader(bench).take(Publish)
    assert packet.properties.content_type == "text"
    assert packet.properties.message_expiry is None
    assert [name for name, _ in packet.properties.user] == ["reason", "time", "share", "expires", "reason", "a"]
    assert packet.properties.user[0] == ("reason", "queue full")
    assert float(packet.properties.user[3][1]) == bench.clock.now - 40


def test_a_topic_too_long_for_the_prefix_is_a_property() -> None:
    topic = "t" * 65_535
    bench = core(backend_queue_messages=1)
    away(bench, "slow", topic)
    sender = bench.client("s")
    sender.publish(topic)
    sender.publish(topic)
    (packet,) = reader(bench).take(Publish)
    assert packet.topic == TOPIC
    assert packet.properties.user[4] == ("topic", topic)


@pytest.mark.parametrize("how", ["crash", "lost", "end", "takeover"])
def test_an_unacknowledged_letter_goes_to_the_next_reader(how: str) -> None:
    bench = full_edge()
    letters_of(bench, "V1", 3, size=0)
    first = reader(bench, auto_ack=False)
    packets = first.take(Publish)
    assert len(packets) == 3
    other = reader(bench, name="other")
    assert other.messages() == []
    first.send(Ack(PUBACK, packets[0].packet_id))
    if how == "crash":
        bench = bench.restart()
        other = reader(bench, name="other")
    elif how == "lost":
        first.lose()
    elif how == "end":
        first.send(Unsubscribe(9, [ALL]))
        first.lose()
        bench.clock.now += 2000
        bench.broker.tick()
        bench.turn()
    else:
        other.lose()
        other = bench.client("reader", "app", clean=True, expiry=1000)
        subscribe(other, ALL)
    assert other.messages() == [b"1", b"2"]
    assert kept(bench) == []
    check_items(bench)


def test_readers_of_a_group_share_the_letters() -> None:
    bench = full_edge()
    readers = [reader(bench, f"$share/g/{ALL}", name=name) for name in ("one", "two")]
    letters_of(bench, "V1", 6, size=0)
    found = [payload for client in readers for payload in client.messages()]
    assert sorted(found) == [b"%d" % number for number in range(6)]
    assert kept(bench) == []


def test_a_reader_that_is_not_durable_gets_copies() -> None:
    bench = full_edge(keep_all=False)
    letters_of(bench, "V1", 1, size=0)
    watcher = reader(bench, expiry=0, name="watcher")
    assert watcher.messages() == []
    letters_of(bench, "V2", 2, size=0)
    assert watcher.messages() == [b"0", b"1"]
    assert len(kept(bench)) == 3
    unreliable = bench.client("q0", "app", expiry=1000)
    subscribe(unreliable, ALL, qos=0)
    letters_of(bench, "V3", 1, size=0)
    assert [packet.qos for packet in unreliable.take(Publish)] == [0]
    assert len(kept(bench)) == 4


def test_a_reader_gets_only_what_its_filter_matches_and_no_vehicle_reads() -> None:
    bench = full_edge()
    letters_of(bench, "V1", 1, size=0)
    letters_of(bench, "V2", 1, size=0)
    client = reader(bench, f"{PREFIX}vehicles/V2/#")
    assert [packet.topic for packet in client.take(Publish)] == [f"{PREFIX}vehicles/V2/status"]
    everything = reader(bench, "#", "+/+/+", name="all")
    assert everything.messages() == []
    thief = bench.client("thief", "V1", VEHICLE, expiry=1000)
    assert subscribe(thief, ALL, "$dead-letters/vehicles/V1/#") == [0x87, 0x87]
    assert thief.messages() == []
    assert len(kept(bench)) == 1


def test_no_client_may_publish_dead_letters() -> None:
    bench = core()
    client = reader(bench)
    sender = bench.client("s")
    sender.publish(f"{PREFIX}t", b"forged")
    assert answers(sender) == [0x87]
    assert client.messages() == []


def test_a_letter_too_large_for_a_reader_does_not_block_the_next() -> None:
    bench = full_edge()
    vehicle = bench.client("v", "V1", VEHICLE, protocol=4)
    vehicle.publish("vehicles/V1/status", b"." * 5000)
    vehicle.publish("vehicles/V1/status", b"small")
    properties = Properties()
    properties.maximum_packet_size = 1000
    properties.session_expiry = 1000
    small = bench.client("small", "app", properties=properties)
    subscribe(small, ALL)
    assert small.messages() == [b"small"]
    assert [len(payload) for _, _, _, payload in kept(bench)] == [5000]
    assert reader(bench).messages() == [b"." * 5000]
    check_items(bench)


def test_many_letters_arrive_in_order_in_portions() -> None:
    bench = full_edge()
    letters_of(bench, "V1", 1500, size=0)
    bench = bench.restart()
    assert reader(bench).messages() == [b"%d" % number for number in range(1500)]
    assert kept(bench) == []
    check_items(bench)


def test_a_list_ends_with_a_message_that_names_the_node() -> None:
    bench = full_edge(keep_all=False)
    bench.settings.node = "core-1"
    letters_of(bench, "V1", 200, size=0)
    client = reader(bench, ALL, TOPIC, name="list", expiry=0)
    packets = client.take(Publish)
    assert [packet.payload for packet in packets[1:-1]] == [b"%d" % number for number in range(200)]
    for packet, what in ((packets[0], "begin"), (packets[-1], "end")):
        assert packet.topic == TOPIC
        assert packet.properties.user == [("list", what), ("node", "core-1"), ("letters", "200")]
    assert len(kept(bench)) == 200


def test_the_form_of_a_collected_letter_gives_the_original() -> None:
    """An edge's letter goes to a core over the tier link."""
    bench = full_edge()
    letters_of(bench, "V1", 1, size=0)
    link = bench.client("core-2", "core-2", TIER, expiry=1000)
    subscribe(link, f"$share/mesh/{ALL}", identifier=7)
    (packet,) = link.take(Publish)
    assert packet.properties.subscription_ids == [7]
    other = core()
    form = Message(packet.topic, packet.payload, packet.qos, False, b"", 0.0)
    assert other.broker.collect(form, packet.properties, None) == 0
    assert kept(other) == [("vehicle/V1", 1, "vehicles/V1/status", b"0")]
    assert other.broker.letters.queue.after(0, 1)[0].time == bench.clock.now
    assert isinstance(bench.broker, Broker)
    assert kept(bench) == []


def test_a_letter_that_one_reader_cannot_take_is_lent_to_another_once() -> None:
    """Its packet is too large for the first reader, which has other letters when it loses its connection."""
    bench = full_edge()
    letters_of(bench, "V1", 1, size=0)
    letters_of(bench, "V2", 1)
    small = Properties()
    small.maximum_packet_size = 500
    first = reader(bench, name="first", auto_ack=False, properties=small)
    assert len(first.messages()) == 1
    assert bench.broker.counters.letters_not_taken == 1
    assert bench.broker.counters.dropped_large == 0  # it is kept
    second = reader(bench, f"{PREFIX}vehicles/V2/#", name="second", auto_ack=False)
    assert len(second.messages()) == 1
    first.lose()
    assert second.messages() == []


def test_expired_messages_of_one_who_watches_the_letters_do_not_nest() -> None:
    """Each becomes a letter, and the copy of the letter goes into the queue that is being sent."""
    bench = core(dead_letter_expired=True)
    watcher = bench.client("w", "app", BACKEND)
    subscribe(watcher, "t", ALL)
    bench.broker.pause(watcher.connection)
    sender = bench.client("s", "app", BACKEND)
    properties = Properties()
    properties.message_expiry = 1
    for number in range(500):
        sender.publish("t", b"%d" % number, properties=properties)
    bench.clock.now += 2
    bench.broker.resume(watcher.connection)
    bench.turn()
    assert watcher.messages() == [b"%d" % number for number in range(500)]
    assert len(kept(bench)) == 500


def test_a_letter_too_large_for_all_its_readers_is_offered_to_each_once() -> None:
    bench = full_edge()
    letters_of(bench, "V1", 1, size=5000)
    small = Properties()
    small.maximum_packet_size = 500
    small.session_expiry = 1000
    readers = [reader(bench, name=f"reader-{number}", properties=small) for number in range(3)]
    for _ in range(50):
        bench.turn()
    counters = bench.broker.counters
    assert counters.letters_not_taken == 3
    letters_of(bench, "V2", 5, size=0)  # the others go to one of them each
    assert sum(len(client.messages()) for client in readers) == 5
    assert counters.letters_not_taken == 3
    assert not bench.broker.end_turn()
    readers[0].lose()
    readers[0].connect(clean=False, expiry=1000)  # with room for it
    bench.turn()
    assert [len(payload) for payload in readers[0].messages()] == [5001]
    assert kept(bench) == []
    check_items(bench)
