"""Dead letters: which messages become one, when they are durable, their bounds, and their readers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

from mesh.broker.broker import Broker
from mesh.broker.inbox import InboxRules
from mesh.broker.letter import ALL, COST, PREFIX, TOPIC, Letter
from mesh.broker.letterqueue import LetterQueue
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Principal, everything
from mesh.broker.settings import DEAD_LETTER, HOLD, Settings
from mesh.broker.shell import Flushable
from mesh.broker.trace import Tracer
from mesh.journal import Journal, JournalLimits
from mesh.session.message import Message
from mesh.wire.packets import PUBACK, PUBREC, Ack, Connect, Publish, Subscribe, Subscription, Unsubscribe, Will
from mesh.wire.properties import Properties
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.bench import PEER, Bench, Client, subscribe
from tests.support.items import owned_items
from tests.support.waiting import PATIENCE


def edge(settings: Settings | None = None, **fields: int) -> Bench:
    """An edge's broker with a durable core that is away and queues ``tier_queue_messages`` messages."""
    settings = settings or Settings()
    settings.keep_all = True
    for name, value in fields.items():
        setattr(settings, name, value)
    return Bench(settings, MemoryStore(), inbox=_inbox())


def core(**fields: object) -> Bench:
    """A core's broker."""
    settings = Settings()
    for name, value in fields.items():
        setattr(settings, name, value)
    return Bench(settings, MemoryStore())


def _inbox() -> InboxRules:
    def vehicle_of(topic: str) -> str | None:
        parts = topic.split("/")
        return parts[1] if parts[0] == "vehicles" else None

    return InboxRules(vehicle_of, lambda vehicle: [Subscription(f"vehicles/{vehicle}/cmd/#", 1)], 1000)


def away(bench: Bench, name: str, *filters: str, kind: int = BACKEND, identity: str = "app") -> None:
    """A durable session whose client has left."""
    client = bench.client(name, identity, kind, expiry=1000)
    assert subscribe(client, *filters) == [1] * len(filters)
    client.lose()


def reader(bench: Bench, *filters: str, name: str = "reader", expiry: int = 1000, **fields: object) -> Client:
    """A reader of dead letters."""
    client = bench.client(name, "app", BACKEND, expiry=expiry, clean=False, **fields)  # type: ignore[arg-type]
    subscribe(client, *(filters or (ALL,)))
    return client


def answers(client: Client) -> list[int]:
    return [ack.reason for ack in client.take(Ack) if ack.type in (PUBACK, PUBREC)]


def kept(bench: Bench) -> list[tuple[str, int, str, bytes]]:
    """Share, reason, topic and payload of each letter."""
    letters = bench.broker.letters
    return [
        (one.share, one.reason, one.topic, letters.load(one).payload) for one in letters.queue.after(0, 1_000_000)
    ]


def user_of(packet: Publish) -> dict[str, str]:
    assert packet.properties is not None
    return dict(packet.properties.user)


def check_items(bench: Bench) -> None:
    """The journal has what memory refers to, and no more."""
    assert owned_items(bench.broker) == set(bench.store.items)


# Who is told, and what is kept


@pytest.mark.parametrize("qos", [1, 2])
def test_a_publisher_of_mqtt_3_is_not_closed_for_a_full_queue(qos: int) -> None:
    bench = edge(tier_queue_messages=2)
    away(bench, "core", "vehicles/#", kind=TIER, identity="core")
    vehicle = bench.client("v", "V1", VEHICLE, protocol=4)
    for number in range(4):
        vehicle.publish("vehicles/V1/status", b"%d" % number, qos)
    assert not vehicle.closed
    assert answers(vehicle) == [0] * 4
    assert kept(bench) == [("vehicle/V1", 1, "vehicles/V1/status", payload) for payload in (b"2", b"3")]
    check_items(bench)


def test_a_publisher_of_mqtt_5_is_told() -> None:
    bench = edge(tier_queue_messages=2)
    away(bench, "core", "vehicles/#", kind=TIER, identity="core")
    vehicle = bench.client("v", "V1", VEHICLE)
    for number in range(3):
        vehicle.publish("vehicles/V1/status", b"%d" % number)
    assert answers(vehicle) == [0, 0, 0x97]
    assert kept(bench) == []
    assert bench.broker.counters.rejected == 1


def test_a_refused_qos_2_message_leaves_no_identifier_open() -> None:
    """The publisher uses the identifier again, and the message must not count as a repeat."""
    bench = edge(tier_queue_messages=1)
    away(bench, "core", "vehicles/#", kind=TIER, identity="core")
    vehicle = bench.client("v", "V1", VEHICLE)
    vehicle.publish("vehicles/V1/status", b"0", 2, packet_id=1)
    vehicle.publish("vehicles/V1/status", b"1", 2, packet_id=2)
    assert answers(vehicle) == [0, 0x97]
    receiver = bench.client("core", "core", TIER, expiry=1000, clean=False)
    assert receiver.messages() == [b"0"]
    vehicle.publish("vehicles/V1/status", b"2", 2, packet_id=2)
    assert receiver.messages() == [b"2"]


def test_a_letter_is_durable_before_the_answer_and_survives_a_crash() -> None:
    bench = edge(tier_queue_messages=1)
    away(bench, "core", "vehicles/#", kind=TIER, identity="core")
    vehicle = bench.client("v", "V1", VEHICLE, protocol=4)
    vehicle.publish("vehicles/V1/status", b"0")
    answers(vehicle)
    bench.auto = False
    vehicle.publish("vehicles/V1/status", b"1")
    assert answers(vehicle) == []
    assert kept(bench.restart()) == []
    bench.turn(commit=True)
    assert answers(vehicle) == [0]
    again = bench.restart()
    assert kept(again) == [("vehicle/V1", 1, "vehicles/V1/status", b"1")]
    check_items(again)


def test_a_will_that_finds_no_room_is_kept() -> None:
    bench = edge(tier_queue_messages=1)
    away(bench, "core", "vehicles/#", kind=TIER, identity="core")
    bench.client("v", "V1", VEHICLE).publish("vehicles/V1/status", b"0")
    vehicle = bench.client("w", "V1", VEHICLE, will=Will("vehicles/V1/gone", b"will", 1, False))
    vehicle.lose()
    assert kept(bench) == [("vehicle/V1", 1, "vehicles/V1/gone", b"will")]


@pytest.mark.parametrize("inbox", [False, True])
@pytest.mark.parametrize("when_full", [DEAD_LETTER, 0])
def test_a_full_queue_of_a_vehicle_may_put_messages_into_the_dead_letters(inbox: bool, when_full: int) -> None:
    bench = edge(max_queue_messages=1, inbox_messages=1, inbox_when_full=when_full)
    if not inbox:
        away(bench, "v", "vehicles/V1/cmd/#", kind=VEHICLE, identity="V1")
    sender = bench.client("core", "core", TIER)
    for number in range(3):
        sender.publish("vehicles/V1/cmd/x", b"%d" % number)
    assert answers(sender) == ([0, 0, 0] if when_full else [0, 0x97, 0x97])
    found = [("vehicle/V1", 1, "vehicles/V1/cmd/x", payload) for payload in (b"1", b"2")]
    assert kept(bench) == (found if when_full else [])
    check_items(bench)


def test_each_receiver_that_missed_a_message_has_a_letter_and_all_share_one_body() -> None:
    bench = edge(max_queue_messages=1)
    for name in ("a", "b", "c", "d"):
        away(bench, name, f"vehicles/V1/{name}", "vehicles/V1/all", kind=VEHICLE, identity="V1")
    sender = bench.client("core", "core", TIER)
    for name in ("a", "b", "c"):
        sender.publish(f"vehicles/V1/{name}", b"first")
    sender.publish("vehicles/V1/all", b"p" * 1000)
    assert answers(sender) == [0] * 4
    assert [payload for _, _, _, payload in kept(bench)] == [b"p" * 1000] * 3
    assert len([item for item in bench.store.items.values() if len(item.body) > 1000]) == 1
    again = bench.restart()
    check_items(again)
    assert again.client("d", "V1", VEHICLE, clean=False, expiry=10).messages() == [b"p" * 1000]
    assert [payload for _, _, _, payload in kept(again)] == [b"p" * 1000] * 3
    again.clock.now += 31 * 86_400.0
    again.broker.tick()
    again.turn()
    assert kept(again) == []
    assert not [item for item in again.store.items.values() if len(item.body) > 1000]
    check_items(again)


def test_a_letter_whose_body_is_missing_is_dropped_at_recovery() -> None:
    """A salvaged journal may lack a body that letters share."""
    bench = edge(max_queue_messages=1, inbox_when_full=DEAD_LETTER)
    for name in ("a", "b"):
        away(bench, name, f"vehicles/V1/{name}", "vehicles/V1/all", kind=VEHICLE, identity="V1")
    sender = bench.client("core", "core", TIER)
    for topic in ("a", "b", "all"):
        sender.publish(f"vehicles/V1/{topic}", topic.encode())
    (body,) = {letter.body for letter in bench.broker.letters.queue.after(0, 9)}
    del bench.store.items[body]
    bench.store.commit()
    again = bench.restart()
    assert kept(again) == []
    assert again.broker.persistence.lost == 2
    check_items(again)


def test_a_core_that_refuses_a_report_leaves_it_in_the_dead_letters() -> None:
    """The vehicle was answered when the report was in the core's queue."""
    bench = edge()
    receiver = bench.client("core", "core", TIER, expiry=1000, auto_ack=False)
    subscribe(receiver, "vehicles/#")
    bench.client("v", "V1", VEHICLE).publish("vehicles/V1/status", b"0")
    (packet,) = receiver.take(Publish)
    receiver.send(Ack(PUBACK, packet.packet_id, 0x97))
    assert kept(bench) == [("other", 1, "vehicles/V1/status", b"0")] or kept(bench)[0][3] == b"0"
    check_items(bench.restart())


def test_an_expired_message_is_kept_if_the_topology_asks_for_it() -> None:
    properties = Properties()
    properties.message_expiry = 10
    for expired in (False, True):
        bench = edge(dead_letter_expired=expired)
        away(bench, "v", "vehicles/V1/cmd/#", kind=VEHICLE, identity="V1")
        bench.client("core", "core", TIER).publish("vehicles/V1/cmd/x", b"late", properties=properties)
        bench.clock.now += 11
        assert bench.client("v", "V1", VEHICLE, clean=False, expiry=10).messages() == []
        assert kept(bench) == ([("vehicle/V1", 4, "vehicles/V1/cmd/x", b"late")] if expired else [])
        check_items(bench)


# Back ends


@pytest.mark.parametrize("connected", [False, True])
def test_a_full_queue_of_a_back_end_spills(connected: bool, caplog: pytest.LogCaptureFixture) -> None:
    bench = core(backend_queue_messages=8, in_flight=1)
    slow = bench.client("slow", "app", expiry=1000, auto_ack=False)
    subscribe(slow, "t")
    if not connected:
        slow.lose()
    sender = bench.client("s")
    for number in range(12):
        sender.publish("t", b"%d" % number)
        if number == 4:
            assert bench.broker.status().filling == 0
    assert bench.broker.status().filling == 1
    assert "three quarters full" in caplog.text
    assert answers(sender) == [0] * 12
    first = 9 if connected else 8
    assert [(one[0], one[3]) for one in kept(bench)] == [
        ("backend/app/slow", b"%d" % number) for number in range(first, 12)
    ]
    bench = bench.restart()
    again = bench.client("slow", "app", clean=False, expiry=1000)
    assert again.messages() == [b"%d" % number for number in range(first)]
    bench.broker.tick()
    assert bench.broker.status().filling == 0


def test_a_back_end_whose_queue_holds_makes_publishers_wait() -> None:
    bench = core(backend_queue_messages=2, backend_when_full=HOLD)
    away(bench, "slow", "t")
    sender = bench.client("s", protocol=4)
    for number in range(4):
        sender.publish("t", b"%d" % number)
    assert answers(sender) == [0, 0]
    assert bench.broker.status().letters_waiting == 2
    assert bench.client("slow", "app", clean=False, expiry=1000).messages() == [b"0", b"1", b"2", b"3"]
    bench.turn()
    assert answers(sender) == [0, 0]
    assert kept(bench) == []
    check_items(bench)


def test_a_publisher_that_left_while_it_waited_for_a_back_end_sends_again() -> None:
    bench = core(backend_queue_messages=1, backend_when_full=HOLD)
    away(bench, "slow", "t")
    sender = bench.client("s", protocol=4)
    sender.publish("t", b"0")
    for _ in range(3):
        sender.publish("t", b"1")
        sender.lose()
        bench.turn()
        sender.connect(protocol=4)
    check_items(bench)
    assert bench.client("slow", "app", clean=False, expiry=1000).messages() == [b"0"]


def test_a_forgotten_session_ends_when_the_longest_expiry_is_lowered() -> None:
    bench = core()
    bench.client("old", "app", protocol=4, clean=False).lose()
    assert len(bench.broker.sessions) == 1
    bench.settings.max_session_expiry = 100
    bench = bench.restart()
    bench.clock.now += 99
    bench.broker.tick()
    assert len(bench.broker.sessions) == 1
    bench.clock.now += 2
    bench.broker.tick()
    assert len(bench.broker.sessions) == 0


# Bounds


def letters_of(bench: Bench, vehicle: str, count: int, size: int = 1000) -> Client:
    """Publish reports that no queue takes."""
    client = bench.client(vehicle, vehicle, VEHICLE, protocol=4)
    for number in range(count):
        client.publish(f"vehicles/{vehicle}/status", b"%d" % number + b"." * size)
    return client


def full_edge(**fields: int) -> Bench:
    bench = edge(tier_queue_messages=1, **fields)
    away(bench, "core", "vehicles/#", kind=TIER, identity="core")
    bench.client("first", "first", VEHICLE).publish("vehicles/first/status")
    return bench


SIZE = 1000 + len("0vehicles/V1/status" + "vehicle/V1") + COST


def test_the_oldest_letter_of_a_full_share_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    bench = full_edge(dead_letter_share=3 * SIZE)
    letters_of(bench, "V1", 5)
    letters_of(bench, "V2", 2)
    assert [payload[:1] for _, _, _, payload in kept(bench)] == [b"2", b"3", b"4", b"0", b"1"]
    status = bench.broker.status()
    assert (status.letters, status.letters_full, status.letters_dropped_share) == (5, 7, 2)
    assert status.letters_bytes == 5 * SIZE
    assert "its share is full" in caplog.text
    check_items(bench.restart())


def test_the_oldest_letter_of_a_full_node_makes_room() -> None:
    bench = full_edge(dead_letter_bytes=3 * SIZE)
    letters_of(bench, "V1", 2)
    letters_of(bench, "V2", 2)
    assert [(share, payload[:1]) for share, _, _, payload in kept(bench)] == [
        ("vehicle/V1", b"1"), ("vehicle/V2", b"0"), ("vehicle/V2", b"1")
    ]  # fmt: skip
    assert bench.broker.status().letters_dropped_node == 1
    check_items(bench.restart())


def test_a_letter_ends_with_its_age() -> None:
    bench = full_edge(dead_letter_age=100)
    letters_of(bench, "V1", 1)
    bench.clock.now += 60
    letters_of(bench, "V1", 1)
    bench.clock.now += 41
    bench.broker.tick()
    bench.turn()
    assert len(kept(bench)) == 1
    bench = bench.restart()
    bench.clock.now += 60
    bench.broker.tick()
    assert kept(bench) == []
    assert bench.broker.status().letters_dropped_age == 1
    check_items(bench)


def test_with_hold_nothing_is_dropped_and_publishers_wait() -> None:
    bench = full_edge(dead_letter_share=2 * SIZE, dead_letter_when_full=HOLD)
    vehicle = letters_of(bench, "V1", 4)
    assert answers(vehicle) == [0, 0]
    assert len(kept(bench)) == 4
    assert bench.broker.status().letters_waiting == 2
    other = letters_of(bench, "V2", 1)
    assert answers(other) == [0]
    drain = reader(bench, f"{PREFIX}vehicles/V1/#")
    bench.turn()
    assert len(drain.messages()) == 4
    assert answers(vehicle) == [0, 0]
    assert bench.broker.status().letters_waiting == 0
    check_items(bench.restart())


def test_with_hold_a_repeat_after_a_lost_connection_takes_no_second_place() -> None:
    bench = full_edge(dead_letter_share=SIZE, dead_letter_when_full=HOLD)
    vehicle = letters_of(bench, "V1", 1)
    for _ in range(5):
        vehicle.publish("vehicles/V1/status", b"1" + b"." * 1000, packet_id=9)
        vehicle.lose()
        bench.turn()
        vehicle.connect(protocol=4, clean=False)
    assert len(kept(bench)) == 1
    check_items(bench)


def test_with_hold_a_qos_2_message_that_waits_survives_a_crash() -> None:
    """Its identifier is open in the journal, so its publisher's repeat is no new message."""
    bench = full_edge(dead_letter_share=SIZE, dead_letter_when_full=HOLD)
    letters_of(bench, "V1", 1)
    vehicle = bench.client("q", "V1", VEHICLE, protocol=4, clean=False)
    vehicle.publish("vehicles/V1/status", b"once" + b"." * 1000, 2, packet_id=5)
    assert answers(vehicle) == []
    bench = bench.restart()
    vehicle = bench.client("q", "V1", VEHICLE, protocol=4, clean=False)
    vehicle.publish("vehicles/V1/status", b"once" + b"." * 1000, 2, packet_id=5, dup=True)
    assert answers(vehicle) == [0]
    assert [payload[:4] for _, _, _, payload in kept(bench)][1:] == [b"once"]


# Readers


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


def test_letters_survive_the_cleaning_of_the_journal(tmp_path: Path) -> None:
    """Segments are cleaned and reused while letters, some with a shared body, stay where they are."""
    limits = JournalLimits(segment=4096, batch=8192, step=1024, backlog=1 << 20)
    calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
    journal = Journal.open(tmp_path, limits=limits, notify=calls.put)
    settings = Settings()
    settings.keep_all, settings.max_queue_messages = True, 1

    def start(store: Journal) -> Broker:
        broker = Broker(settings, store, FakeClock(), Tracer())
        broker.recover(store.live())
        return broker

    def settle(store: Journal, broker: Broker) -> None:
        store.commit()
        end = time.monotonic() + PATIENCE
        while store.durable_position < store.position or not calls.empty():
            calls.get(timeout=max(0.0, end - time.monotonic()))()
        broker.durable(store.durable_position)

    broker = start(journal)
    vehicle = Principal("V1", VEHICLE, everything(), "V1")
    for name in ("a", "b", "c"):  # full but for the last
        properties = Properties()
        properties.session_expiry = 1000
        connection = broker.open(Connect(5, name, True, 0, properties=properties), vehicle, PEER, Flushable())
        for filter in (name, "all"):
            broker.receive(connection, Subscribe(1, [Subscription(filter, 1)]))
        broker.lost(connection)
    for number in range(500):
        for topic in ("a", "b", "all"):
            broker.dispatcher.route(Message(topic, b"%d" % number * 20, 1, False, b"", 0.0), None, None)
        # The last queue is emptied again and again: its deliveries leave dead bytes behind.
        session = broker.sessions.get((VEHICLE, "V1", "c"))
        assert session is not None
        for delivery in [*session.outbound.waiting]:
            session.outbound.drop_head()
            broker.persistence.forget(delivery)
        settle(journal, broker)
    wanted = [(one.share, one.topic, broker.letters.load(one).payload) for one in broker.letters.queue.after(0, 9999)]
    assert len(wanted) > 1900
    written = journal.position
    journal.close()
    again = Journal.open(tmp_path, limits=limits, notify=calls.put)
    broker = start(again)
    found = [(one.share, one.topic, broker.letters.load(one).payload) for one in broker.letters.queue.after(0, 9999)]
    assert found == wanted
    assert again.status().segments < written // 8, "segments must have been cleaned"
    again.close()


# Order


def test_letters_can_be_taken_out_anywhere() -> None:
    queue = LetterQueue()
    letters = []
    for item in range(1, 3001):
        letter = Letter(0, 0.0, "share", "t", 10)
        letter.item = item
        letters.append(letter)
        queue.append(letter)
    assert (len(queue), queue.bytes) == (3000, 30_000)
    for letter in letters[::3] + letters[1::3]:
        queue.remove(letter)
    assert [one.item for one in queue.after(0, 5000)] == list(range(3, 3001, 3))
    assert [one.item for one in queue.after(1500, 2)] == [1503, 1506]
    assert queue.get(1501) is None
    assert queue.get(1503) is letters[1502]
    assert queue.get(0) is None
    first = queue.first()
    assert first is not None
    assert first.item == 3
    for letter in letters[2::3]:
        queue.remove(letter)
    assert (len(queue), queue.bytes, queue.first(), queue.after(0, 9)) == (0, 0, None, [])


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
    assert bench.broker.counters.dropped_large == 1
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
