"""Dead letters: which messages become one, and when they are durable."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import pytest

from mesh.broker.broker import Broker
from mesh.broker.principal import TIER, VEHICLE, Principal, everything
from mesh.broker.settings import DEAD_LETTER, Settings
from mesh.broker.shell import Flushable
from mesh.broker.trace import Tracer
from mesh.journal import Journal, JournalLimits
from mesh.session.message import Message
from mesh.wire.packets import PUBACK, Ack, Connect, Publish, Subscribe, Subscription, Will
from mesh.wire.properties import Properties
from tests.broker.letter_bench import answers, away, check_items, edge, kept
from tests.fakes.clock import FakeClock
from tests.support.bench import PEER, subscribe
from tests.support.waiting import PATIENCE


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
