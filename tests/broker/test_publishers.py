"""What the broker answers to a publisher, and when; how much a publisher may send."""

from __future__ import annotations

import pytest

from mesh.broker.settings import Settings
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Disconnect, Publish, SubAck, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.support.bench import Bench, subscribe


def test_a_publish_without_subscribers_is_answered_with_0x10() -> None:
    sender = Bench().client("s")
    sender.publish("a", b"", 1)
    assert sender.take(Ack)[0].reason == reasons.NO_MATCHING_SUBSCRIBERS


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
