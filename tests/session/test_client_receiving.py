"""The client's side of a session: messages from the server."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.session.clientstate import CLOSING, UP
from mesh.wire import reasons
from mesh.wire.packets import (
    MQTT5,
    MQTT311,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connect,
    Disconnect,
    Ping,
    Publish,
)
from mesh.wire.properties import Properties
from tests.session.client_program import Program, RecordedSpan, ids


def test_publishes_are_answered_in_order_of_arrival(program: Program) -> None:
    program.accept()
    program.ready = False
    program.server(*(Publish("t", b"%d" % id, 1, packet_id=id) for id in (5, 6, 7)), Publish("t", b"zero"))
    assert [packet.payload for packet in program.taken] == [b"5", b"6", b"7", b"zero"]
    assert ids(program.sent()) == []
    assert program.client.waits()
    program.receipts[1].pending = 0
    program.commit()
    assert ids(program.sent()) == []
    program.receipts[0].pending = 0
    program.commit()
    assert ids(program.sent()) == [(PUBACK, 5), (PUBACK, 6)]
    program.receipts[2].pending = 0
    program.receipts[2].position = 9
    program.commit()
    assert ids(program.sent()) == []
    program.client.advance(9)
    assert ids(program.sent()) == [(PUBACK, 7)]
    assert not program.client.waits()


def test_client_does_not_send_no_matching_subscribers(program: Program) -> None:
    program.accept()
    program.answers = reasons.NO_MATCHING_SUBSCRIBERS
    program.server(Publish("t", b"x", 1, packet_id=1))
    assert program.sent() == [Ack(PUBACK, 1, reasons.SUCCESS)]


def test_qos_2_message_is_taken_once_until_pubrel(program: Program) -> None:
    program.accept()
    program.server(Publish("t", b"once", 2, packet_id=3))
    assert program.sent() == []
    program.commit()
    assert ids(program.sent()) == [(PUBREC, 3)]
    program.server(Publish("t", b"once", 2, dup=True, packet_id=3))
    assert ids(program.sent()) == [(PUBREC, 3)]
    program.server(Ack(PUBREL, 3))
    assert program.sent() == []  # the deletion of the identifier is not durable yet
    program.commit()
    assert program.sent() == [Ack(PUBCOMP, 3)]
    assert program.open == {}
    program.server(Publish("t", b"another", 2, packet_id=3))
    assert [packet.payload for packet in program.taken] == [b"once", b"another"]


def test_repeated_qos_2_publish_is_answered_when_the_first_is_durable(program: Program) -> None:
    program.accept()
    program.server(Publish("t", b"once", 2, packet_id=3))
    program.client.lost()
    program.accept(present=True)
    program.server(Publish("t", b"once", 2, dup=True, packet_id=3))
    assert len(program.taken) == 1
    assert program.sent() == []
    program.commit()
    assert ids(program.sent()) == [(PUBREC, 3)]


def test_unknown_pubrel_is_answered_after_earlier_ones_are_durable(program: Program) -> None:
    program.accept()
    program.server(Publish("t", b"once", 2, packet_id=3))
    program.commit()
    program.server(Ack(PUBREL, 3), Ack(PUBREL, 3))
    assert ids(program.sent()) == [(PUBREC, 3)]
    program.commit()
    assert program.sent() == [Ack(PUBCOMP, 3), Ack(PUBCOMP, 3, reasons.PACKET_IDENTIFIER_NOT_FOUND)]


def test_restored_identifier_is_recognized(program: Program) -> None:
    program.position = program.durable = 8
    program.open[8] = 3
    program.client.restore(3, 8)
    program.accept(present=True)
    program.commit()
    program.server(Publish("t", b"once", 2, dup=True, packet_id=3), Ack(PUBREL, 3))
    assert program.taken == []
    assert ids(program.sent()) == [(PUBREC, 3)]
    program.commit()
    assert program.sent() == [Ack(PUBCOMP, 3)]


@pytest.mark.parametrize("qos", [1, 2])
def test_refused_message_is_answered_with_its_reason_code(program: Program, qos: int) -> None:
    program.accept()
    program.answers = reasons.QUOTA_EXCEEDED
    program.server(Publish("t", b"x", qos, packet_id=1))
    assert program.sent() == [Ack(PUBACK if qos == 1 else PUBREC, 1, reasons.QUOTA_EXCEEDED)]
    assert program.open == {}


@pytest.mark.parametrize("qos", [1, 2])
def test_message_refused_in_mqtt_3_is_repeated_on_the_next_connection(program: Program, qos: int) -> None:
    connect = Connect(MQTT311, "me", False, 10)
    program.accept(connect=connect)
    program.answers = reasons.QUOTA_EXCEEDED
    program.server(Publish("t", b"x", qos, packet_id=1))
    assert program.client.state == CLOSING
    assert program.sent() == []
    program.client.lost()
    program.accept(present=True, connect=connect)
    program.answers = reasons.SUCCESS
    program.server(Publish("t", b"x", qos, dup=True, packet_id=1))
    program.commit()
    assert ids(program.sent()) == [(PUBACK if qos == 1 else PUBREC, 1)]
    assert len(program.taken) == 2


def test_span_ends_when_its_message_is_answered(program: Program) -> None:
    program.accept()
    program.ready = False
    program.server(Publish("t", b"x", 1, packet_id=1), Publish("t", b"x", 1, packet_id=2))
    for receipt in program.receipts:
        receipt.pending = 0
    span = program.receipts[1].span = RecordedSpan()
    program.commit()
    assert span.ended == [0]


def receiving(**properties: Any) -> Connect:
    asked = Properties()
    for name, value in properties.items():
        setattr(asked, name, value)
    return Connect(MQTT5, "me", False, 10, None, None, None, asked)


@pytest.mark.parametrize("qos", [1, 2])
def test_publish_beyond_the_receive_maximum_ends_the_connection(program: Program, qos: int) -> None:
    program.accept(connect=receiving(receive_maximum=2))
    program.ready = False
    program.server(*(Publish("t", b"x", qos, packet_id=id) for id in (1, 2)))
    assert program.client.state == UP
    program.server(Publish("t", b"x", qos, packet_id=3))
    assert program.sent() == [Disconnect(reasons.RECEIVE_MAXIMUM_EXCEEDED)]
    assert len(program.taken) == 2


def test_qos_2_publish_counts_against_the_receive_maximum_until_pubrel(program: Program) -> None:
    program.accept(connect=receiving(receive_maximum=1))
    program.server(Publish("t", b"x", 2, packet_id=1))
    program.commit()
    program.server(Publish("t", b"x", 2, dup=True, packet_id=1), Ack(PUBREL, 1), Publish("t", b"x", 1, packet_id=2))
    assert program.client.state == UP
    program.commit()
    program.server(Publish("t", b"x", 2, packet_id=1))
    program.commit()
    program.server(Publish("t", b"x", 2, packet_id=2))
    assert program.client.state == CLOSING


def aliased(topic: str, alias: int) -> Publish:
    properties = Properties()
    properties.topic_alias = alias
    return Publish(topic, b"x", 1, packet_id=1, properties=properties)


def test_topic_aliases_within_the_maximum_are_resolved(program: Program) -> None:
    program.accept(connect=receiving(topic_alias_maximum=2))
    program.server(aliased("long/topic", 2), aliased("", 2))
    assert [packet.topic for packet in program.taken] == ["long/topic"] * 2
    program.client.lost()
    program.accept(connect=receiving(topic_alias_maximum=2))
    program.server(aliased("", 2))  # an alias belongs to its connection
    assert program.sent()[-1] == Disconnect(reasons.TOPIC_ALIAS_INVALID)


def test_topic_alias_above_the_maximum_ends_the_connection(program: Program) -> None:
    program.accept()
    program.server(aliased("long/topic", 1))
    assert program.client.state == CLOSING
    assert program.taken == []


def test_handled_is_called_for_every_packet(program: Program) -> None:
    program.accept()
    program.notes.clear()
    program.server(Publish("t"), Ping(PINGRESP), Ack(PUBACK, 1))
    assert program.notes == ["handled"] * 3
