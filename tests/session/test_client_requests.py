"""The client's side of a session: SUBSCRIBE and UNSUBSCRIBE, and their answers."""

from __future__ import annotations

import pytest

from mesh.session.clientstate import CLOSING, UP
from mesh.session.outbound import packet_id_of
from mesh.session.requests import OPEN
from mesh.wire import reasons
from mesh.wire.packets import MQTT31, MQTT311, SUBACK, UNSUBACK, Connect, SubAck, Subscribe, Subscription, Unsubscribe
from tests.session.client_program import Program, RecordedRequest


def test_each_request_gets_its_own_answer(program: Program) -> None:
    program.accept()
    one, other, gone = RecordedRequest("a/+", identifier=7), RecordedRequest("b"), RecordedRequest("c", subscribe=False)
    for request in (one, other, gone):
        program.client.request(request)
    first, second, third = program.sent()
    assert isinstance(first, Subscribe)
    assert first.subscriptions == [Subscription("a/+", 1)]
    assert first.properties is not None
    assert first.properties.subscription_ids == [7]
    assert isinstance(second, Subscribe)
    assert second.properties is None
    assert isinstance(third, Unsubscribe)
    program.server(SubAck(UNSUBACK, third.packet_id, [reasons.NO_SUBSCRIPTION_EXISTED]))
    program.server(SubAck(SUBACK, second.packet_id, [reasons.NOT_AUTHORIZED]), SubAck(SUBACK, first.packet_id, [1]))
    assert (one.outcome, other.outcome, gone.outcome) == ([1], [reasons.NOT_AUTHORIZED], [0x11])


@pytest.mark.parametrize("protocol", [MQTT311, MQTT31])
def test_mqtt_3_request_has_no_properties_and_unsuback_succeeds(program: Program, protocol: int) -> None:
    program.accept(connect=Connect(protocol, "me", False, 10))
    one, other = RecordedRequest("a", identifier=7), RecordedRequest("b", subscribe=False)
    program.client.request(one)
    program.client.request(other)
    first, second = program.sent()
    assert isinstance(first, Subscribe)
    assert isinstance(second, Unsubscribe)
    assert first.properties is None
    program.server(SubAck(SUBACK, first.packet_id, [0x80]), SubAck(UNSUBACK, second.packet_id, []))
    assert (one.outcome, other.outcome) == ([0x80], [0])


def test_answer_that_does_not_fit_its_request_ends_the_connection() -> None:
    for answer in (
        lambda id: SubAck(SUBACK, id, [0, 0]),
        lambda id: SubAck(UNSUBACK, id, [0]),
    ):
        program = Program()
        program.accept()
        request = RecordedRequest("a")
        program.client.request(request)
        (sent,) = program.sent()
        assert isinstance(sent, Subscribe)
        program.server(answer(sent.packet_id))
        assert program.client.state == CLOSING
        assert request.outcome == ["abandoned"]


def test_suback_with_an_unknown_identifier_is_ignored(program: Program) -> None:
    program.accept()
    program.server(SubAck(SUBACK, 9, [0]))
    assert program.client.state == UP


def test_request_and_later_ones_wait_for_the_journal(program: Program) -> None:
    program.accept()
    program.client.request(RecordedRequest("a", position=5))
    program.client.request(RecordedRequest("b"))
    assert program.sent() == []
    assert program.client.waits()
    program.client.advance(5)
    assert [packet.subscriptions[0].filter for packet in program.sent()] == ["a", "b"]
    assert not program.client.waits()


def test_at_most_open_requests_are_unanswered(program: Program) -> None:
    requests = [RecordedRequest(f"f/{number}") for number in range(OPEN + 10)]
    program.wanted = requests
    program.accept()
    sent = program.sent()
    assert len(sent) == OPEN
    assert len({packet.packet_id for packet in sent}) == OPEN
    for packet in sent[:10]:
        program.server(SubAck(SUBACK, packet.packet_id, [0]))
    assert len(program.sent()) == 10
    assert [len(request.outcome) for request in requests] == [1] * 10 + [0] * OPEN


def test_lost_connection_abandons_requests(program: Program) -> None:
    program.accept()
    open, waiting = RecordedRequest("a"), RecordedRequest("b", position=5)
    program.client.request(open)
    program.client.request(waiting)
    program.client.lost()
    assert (open.outcome, waiting.outcome) == (["abandoned"], ["abandoned"])
    program.accept()
    program.client.advance(5)
    assert program.sent() == []


def test_requests_and_messages_do_not_share_identifiers() -> None:
    program = Program(window=65_535)
    program.accept()
    request = RecordedRequest("a")
    program.client.request(request)
    (subscribe,) = program.sent()
    assert isinstance(subscribe, Subscribe)
    program.outbound.next_number = subscribe.packet_id - 2  # the message after the next would have its identifier
    for payload in (b"1", b"2", b"3"):
        program.send(payload)
    assert [packet.payload for packet in program.sent()] == [b"1"]
    second = RecordedRequest("b")
    program.client.request(second)
    (other,) = program.sent()
    assert isinstance(other, Subscribe)
    assert other.packet_id not in (subscribe.packet_id, subscribe.packet_id - 1)
    program.server(SubAck(SUBACK, subscribe.packet_id, [0]))
    assert [(packet.payload, packet.packet_id) for packet in program.sent()] == [
        (b"2", subscribe.packet_id), (b"3", packet_id_of(subscribe.packet_id)),
    ]  # fmt: skip
