"""The client's side of a session: messages to the server."""

from __future__ import annotations

import pytest

from mesh.session.outbound import packet_id_of
from mesh.session.outgoing import BATCH
from mesh.wire import reasons
from mesh.wire.packets import MQTT5, MQTT311, PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Connect, Disconnect, Publish
from tests.session.client_program import CONTEXT, Program, finished, ids


def test_messages_of_every_qos_are_sent_in_order_and_finished(program: Program) -> None:
    program.accept()
    deliveries = [program.send(b"%d" % qos, qos) for qos in (0, 1, 2)]
    sent = program.sent()
    assert [(packet.payload, packet.qos) for packet in sent] == [(b"0", 0), (b"1", 1), (b"2", 2)]
    one, two = sent[1].packet_id, sent[2].packet_id
    program.server(Ack(PUBACK, one, reasons.NO_MATCHING_SUBSCRIBERS), Ack(PUBREC, two))
    assert program.sent() == []  # the release is not durable yet
    program.commit()
    assert ids(program.sent()) == [(PUBREL, two)]
    program.server(Ack(PUBCOMP, two))
    assert finished(program) == [(deliveries[1].number, 0x10), (deliveries[2].number, 0)]
    assert len(program.outbound) == 0


def test_pubrec_with_an_error_finishes_the_delivery(program: Program) -> None:
    program.accept()
    delivery = program.send(b"x", 2)
    program.server(Ack(PUBREC, packet_id_of(delivery.number), reasons.QUOTA_EXCEEDED))
    assert finished(program) == [(delivery.number, reasons.QUOTA_EXCEEDED)]
    program.commit()
    assert ids(program.sent()) == []


@pytest.mark.parametrize(
    ("qos", "wrong"), [(1, Ack(PUBREC, 1)), (1, Ack(PUBCOMP, 1)), (2, Ack(PUBACK, 1)), (2, Ack(PUBCOMP, 1))]
)
def test_acknowledgement_of_another_exchange_ends_the_connection(program: Program, qos: int, wrong: Ack) -> None:
    program.accept()
    delivery = program.send(b"kept", qos)
    program.sent()
    wrong.packet_id = packet_id_of(delivery.number)
    program.server(wrong)
    assert program.sent() == [Disconnect(reasons.PROTOCOL_ERROR)]
    assert finished(program) == []
    assert list(program.outbound.in_flight.values()) == [delivery]


def test_acknowledgement_with_an_unknown_identifier_finishes_nothing(program: Program) -> None:
    program.accept()
    program.server(Ack(PUBACK, 7), Ack(PUBCOMP, 7), Ack(PUBREC, 7))
    assert ids(program.sent()) == [(PUBREL, 7)]
    assert finished(program) == []


def test_receive_maximum_of_the_server_bounds_the_window(program: Program) -> None:
    program.accept(receive_maximum=2)
    deliveries = [program.send(b"%d" % number) for number in range(4)]
    assert len(program.sent()) == 2
    program.server(Ack(PUBACK, packet_id_of(deliveries[0].number)))
    assert [packet.payload for packet in program.sent()] == [b"2"]
    program.client.lost()
    program.accept(present=True)  # this time the server sets no limit
    assert len(program.sent()) == 3


def test_own_window_below_the_receive_maximum_applies() -> None:
    program = Program(window=3)
    program.accept(receive_maximum=10)
    for number in range(5):
        program.send(b"%d" % number)
    assert len(program.sent()) == 3


def test_message_above_the_maximum_packet_size_is_not_sent(program: Program) -> None:
    program.accept(maximum_packet_size=100)
    large = program.send(b"x" * 100)
    small = program.send(b"x" * 50)
    program.send(b"x" * 100, 0)
    assert [packet.payload for packet in program.sent()] == [b"x" * 50]
    assert finished(program) == [(large.number, reasons.PACKET_TOO_LARGE), (0, reasons.PACKET_TOO_LARGE)]
    assert list(program.outbound.in_flight.values()) == [small]
    program.client.lost()
    program.accept(present=True)
    program.send(b"x" * 100)
    assert len(program.sent()) == 2


def test_message_and_later_ones_wait_for_the_journal(program: Program) -> None:
    program.accept()
    program.send(b"1", position=3)
    program.send(b"2")
    assert program.sent() == []
    program.client.advance(3)
    assert [packet.payload for packet in program.sent()] == [b"1", b"2"]


def test_expired_message_is_not_sent(program: Program) -> None:
    program.accept(receive_maximum=1)
    first = program.send(b"1")
    late = program.send(b"2", expires=program.now + 5)
    program.send(b"3", expires=program.now + 50)
    program.now += 10
    program.sent()
    program.server(Ack(PUBACK, packet_id_of(first.number)))
    assert ("expired", late.number) in program.notes
    (sent,) = program.sent()
    assert isinstance(sent, Publish)
    assert sent.payload == b"3"
    assert sent.properties is not None
    assert sent.properties.message_expiry == 40


@pytest.mark.parametrize(("protocol", "user"), [(MQTT5, True), (MQTT311, False)])
def test_sampled_message_has_its_trace_context_in_mqtt_5(program: Program, protocol: int, user: bool) -> None:
    program.accept(connect=Connect(protocol, "me", False, 10))
    program.context_of = CONTEXT
    program.send(b"plain")
    program.send(b"sampled", trace=CONTEXT)
    plain, sampled = program.sent()
    assert isinstance(plain, Publish)
    assert isinstance(sampled, Publish)
    assert plain.properties is None
    assert (sampled.properties is not None) == user


def test_unacknowledged_messages_are_sent_again_on_the_next_connection(program: Program) -> None:
    program.accept()
    program.send(b"1")
    two = program.send(b"2", 2)
    program.send(b"0", 0)
    program.sent()
    program.server(Ack(PUBREC, packet_id_of(two.number)))
    program.client.lost()
    program.send(b"3")
    program.accept(present=True)
    sent = program.sent()
    assert [(p.payload, p.dup) for p in sent if isinstance(p, Publish)] == [(b"1", True), (b"3", False)]
    assert ids(sent) == []
    program.commit()
    assert ids(program.sent()) == [(PUBREL, packet_id_of(two.number))]


def test_messages_to_a_server_without_the_session_have_no_dup(program: Program) -> None:
    program.accept()
    program.send(b"1")
    two = program.send(b"2", 2)
    program.sent()
    program.server(Ack(PUBREC, packet_id_of(two.number)), Publish("t", b"in", 2, packet_id=4))
    program.commit()
    assert program.open
    program.client.lost()
    program.accept(present=False)
    program.commit()
    assert [(p.payload, p.dup) for p in program.sent() if isinstance(p, Publish)] == [(b"1", False)]
    assert finished(program) == [(two.number, 0)]
    assert program.open == {}
    program.server(Publish("t", b"new", 2, packet_id=4))
    assert [packet.payload for packet in program.taken] == [b"in", b"new"]


def test_many_deliveries_leave_in_several_turns() -> None:
    program = Program(window=5000)
    for number in range(2 * BATCH + 10):
        program.send(b"%d" % number)
    for _ in range(BATCH):
        program.send(b"late", expires=program.now + 1)
    program.now += 2
    program.accept(receive_maximum=60_000)
    payloads: list[bytes] = []
    turns = 0
    while True:
        found = [packet.payload for packet in program.sent() if isinstance(packet, Publish)]
        assert len(found) <= (BATCH if turns else 2 * BATCH)
        payloads += found
        turns += 1
        if not program.client.behind:
            break
    assert payloads == [b"%d" % number for number in range(2 * BATCH + 10)]
    assert turns == 3
    assert len(program.outbound) == len(payloads)
