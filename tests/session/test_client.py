"""The client's side of a session, against the server's side of the mesh's own codec, without sockets or a journal."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import mesh.session
from mesh.session import clientstate as states
from mesh.session.application import ClientEvents, Receiver, Sender
from mesh.session.client import CONNACK_WAIT, ClientSession
from mesh.session.clientstate import CLOSING, CONNECTING, DISCONNECTED, UP, IllegalCall
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import RELEASED, Delivery, Depth, Outbound, packet_id_of
from mesh.session.outgoing import BATCH
from mesh.session.requests import OPEN, Request
from mesh.session.span import Span
from mesh.wire import reasons
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    MQTT31,
    MQTT311,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from mesh.wire.properties import Properties
from mesh.wire.tracecontext import TraceContext

CONTEXT = TraceContext.parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")


class RecordedRequest(Request):
    """A request that records its outcome."""

    def __init__(self, filter: str, subscribe: bool = True, identifier: int = 0, position: int = 0) -> None:
        super().__init__(filter, Subscription(filter, 1) if subscribe else None, identifier, position)
        self.outcome: list[int | str] = []

    def answered(self, reason: int) -> None:
        self.outcome.append(reason)

    def abandoned(self) -> None:
        self.outcome.append("abandoned")


class RecordedSpan(Span):
    """A span that records the reasons it was ended with."""

    def __init__(self) -> None:
        super().__init__(CONTEXT)
        self.ended: list[int] = []

    def end(self, reason: int = 0) -> None:
        self.ended.append(reason)


class Program:
    """The program that uses the session, and the server."""

    def __init__(self, window: int = 100, limits: PacketLimits | None = None) -> None:
        self.now = 1000.0
        self.notes: list[Any] = []
        self.taken: list[Publish] = []
        self.receipts: list[Receipt] = []
        self.answers = reasons.SUCCESS  # reason code for the server's publishes
        self.ready = True  # new receipts are ready at once
        self.position = 0
        self.durable = 0
        self.open: dict[int, int] = {}
        self.context_of: TraceContext | None = None
        self.outbound = Outbound(Depth(), window)
        self.wanted: list[Request] = []
        self.client = ClientSession(
            _Events(self), _Sender(self), _Receiver(self), self.outbound, limits or PacketLimits(), lambda: self.now
        )
        self.reader = Reader(PacketLimits(), SERVER)
        self.protocol = MQTT5

    # The connection

    def open_socket(self, connect: Connect | None = None) -> Connect:
        connect = connect or Connect(MQTT5, "me", False, 10)
        self.protocol = connect.protocol
        self.reader = Reader(PacketLimits(), SERVER)
        self.client.opened(connect)
        (sent,) = self.sent()
        assert isinstance(sent, Connect)
        return sent

    def accept(self, present: bool = False, connect: Connect | None = None, **properties: Any) -> None:
        self.open_socket(connect)
        offered = Properties()
        for name, value in properties.items():
            setattr(offered, name, value)
        self.server(Connack(present, 0, offered if self.protocol == MQTT5 else None))
        assert self.client.state == UP

    def server(self, *packets: Packet) -> None:
        self.client.received(b"".join(encode(packet, self.protocol) for packet in packets))

    def sent(self) -> list[Packet]:
        packets = self.reader.feed(self.client.output())
        assert self.reader.error is None, self.reader.error
        return packets

    def commit(self) -> None:
        self.durable = self.position
        self.client.advance(self.durable)

    # Messages

    def send(self, payload: bytes, qos: int = 1, position: int = 0, **fields: Any) -> Delivery:
        message = Message("t", payload, qos, False, b"", self.now, **fields)
        delivery = Delivery(message, qos, False, (), self.now, message.expires, message.size())
        delivery.position = position
        if qos:
            self.outbound.number(delivery)
        self.outbound.push(delivery)
        self.client.pump()
        return delivery


class _Events(ClientEvents):
    def __init__(self, program: Program) -> None:
        self.program = program

    def accepted(self, session_present: bool) -> None:
        self.program.notes.append(("accepted", session_present))
        for request in self.program.wanted:
            self.program.client.request(request)

    def closing(self, why: str) -> None:
        self.program.notes.append(("closing", why))

    def handled(self) -> None:
        self.program.notes.append("handled")


class _Sender(Sender):
    def __init__(self, program: Program) -> None:
        self.program = program

    def load(self, delivery: Delivery) -> Message:
        assert delivery.message is not None
        return delivery.message

    def context(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        return self.program.context_of

    def released(self, delivery: Delivery) -> None:
        self.program.position += 1
        delivery.state = RELEASED
        delivery.position = self.program.position
        self.program.notes.append(("released", delivery.number))

    def finished(self, delivery: Delivery, reason: int) -> None:
        self.program.notes.append(("finished", delivery.number, reason))

    def expired(self, delivery: Delivery) -> None:
        self.program.notes.append(("expired", delivery.number))


class _Receiver(Receiver):
    def __init__(self, program: Program) -> None:
        self.program = program

    def take(self, packet: Publish, receipt: Receipt | None) -> int:
        program = self.program
        program.taken.append(packet)
        if receipt is not None:
            program.receipts.append(receipt)
            receipt.pending = 0 if program.ready else 1
        return program.answers

    def keep(self, packet_id: int) -> int:
        self.program.position += 1
        self.program.open[self.program.position] = packet_id
        return self.program.position

    def forget(self, position: int) -> int:
        if position:
            del self.program.open[position]
            self.program.position += 1
        return self.program.position


@pytest.fixture
def program() -> Program:
    return Program()


def ids(packets: list[Packet]) -> list[tuple[int, int]]:
    return [(packet.type, packet.packet_id) for packet in packets if isinstance(packet, Ack)]


def finished(program: Program) -> list[tuple[int, int]]:
    return [note[1:] for note in program.notes if note[0] == "finished"]


# States


def in_state(state: int) -> Program:
    made = Program()
    if state != DISCONNECTED:
        made.open_socket()
    if state in (UP, CLOSING):
        made.server(Connack())
    if state == CLOSING:
        made.client.close(reasons.SUCCESS, "")
    assert made.client.state == state
    return made


CALLS = {
    states.OPENED: lambda client: client.opened(Connect()),
    states.ACCEPTED: lambda client: client._connack(Connack()),
    states.ENDED: lambda client: client.close(reasons.SUCCESS, ""),
    states.LOST: lambda client: client.lost(),
}


@pytest.mark.parametrize("event", states.EVENTS)
@pytest.mark.parametrize("state", states.STATES)
def test_every_event_in_every_state_follows_the_table(state: int, event: int) -> None:
    client = in_state(state).client
    following = states.TRANSITIONS.get((state, event))
    if following is None:
        with pytest.raises(IllegalCall, match=f"{states.EVENTS[event]}.*{states.STATES[state]}"):
            CALLS[event](client)
        assert client.state == state
    else:
        CALLS[event](client)
        assert client.state == following


def test_only_step_assigns_the_state() -> None:
    assigned = []
    for node in ast.walk(ast.parse((Path(mesh.session.__file__).parent / "client.py").read_text())):
        if isinstance(node, ast.FunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute) and inner.attr == "_state" and isinstance(inner.ctx, ast.Store):
                    assigned.append(node.name)
    assert assigned == ["__init__", "_step"]


@pytest.mark.parametrize("state", [DISCONNECTED, CONNECTING, CLOSING])
def test_request_in_another_state_than_up_raises(state: int) -> None:
    with pytest.raises(IllegalCall):
        in_state(state).client.request(RecordedRequest("a"))


def test_bytes_without_a_connection_raise() -> None:
    with pytest.raises(IllegalCall):
        Program().client.received(b"\x20\x02\x00\x00")


@pytest.mark.parametrize("state", [DISCONNECTED, CONNECTING, CLOSING])
def test_message_in_another_state_than_up_is_not_sent(state: int) -> None:
    program = in_state(state)
    program.sent()
    program.send(b"one")
    program.commit()
    program.client.tick()
    assert program.sent() == []


def test_bytes_after_close_are_ignored(program: Program) -> None:
    program.accept()
    program.client.close(reasons.SUCCESS, "")
    program.server(Publish("t", b"late", 1, packet_id=1), Disconnect(reasons.SERVER_BUSY))
    program.client.received(b"\x00\x00")
    assert program.taken == []
    assert program.sent() == [Disconnect()]
    assert [note for note in program.notes if note[0] == "closing"] == [("closing", "")]


# CONNECT and CONNACK


def test_only_connect_is_sent_before_connack(program: Program) -> None:
    program.send(b"one")
    connect = program.open_socket(Connect(MQTT5, "me", False, 10, "me", b"secret"))
    assert (connect.client_id, connect.username, connect.password) == ("me", "me", b"secret")
    program.server(Connack())
    assert program.notes == [("accepted", False), "handled"]
    assert [packet.payload for packet in program.sent()] == [b"one"]


@pytest.mark.parametrize(
    ("protocol", "reason", "why"), [(MQTT5, reasons.NOT_AUTHORIZED, "not authorized"), (MQTT311, 5, "return code 5")]
)
def test_refusing_connack_ends_the_connection(program: Program, protocol: int, reason: int, why: str) -> None:
    program.open_socket(Connect(protocol, "me", False, 10))
    program.server(Connack(False, reason))
    assert program.notes[0] == ("closing", f"refused the connection: {why}")
    assert program.sent() == []
    program.client.lost()
    program.accept()


@pytest.mark.parametrize(
    "packet", [Publish("t"), Ack(PUBACK, 1), Disconnect(reasons.SERVER_BUSY), Auth(reasons.CONTINUE_AUTHENTICATION)]
)
def test_other_packet_before_connack_ends_the_connection(program: Program, packet: Packet) -> None:
    program.open_socket()
    program.server(packet)
    assert program.client.state == CLOSING
    assert program.taken == []


@pytest.mark.parametrize("packet", [Connack(), Auth(reasons.CONTINUE_AUTHENTICATION)])
def test_connack_or_auth_after_connack_ends_the_connection(program: Program, packet: Packet) -> None:
    program.accept()
    program.server(packet)
    assert program.client.state == CLOSING
    assert program.sent() == [Disconnect(reasons.PROTOCOL_ERROR)]


def test_session_present_after_clean_start_ends_the_connection(program: Program) -> None:
    program.open_socket(Connect(MQTT5, "me", True, 10))
    program.server(Connack(True))
    assert program.client.state == CLOSING


def test_late_connack_ends_the_connection(program: Program) -> None:
    program.open_socket(Connect(MQTT5, "me", False, 0))
    program.now += CONNACK_WAIT
    program.client.tick()
    assert program.client.state == CONNECTING
    program.now += 1
    program.client.tick()
    assert program.notes == [("closing", "did not answer CONNECT")]


# Ends


def test_disconnect_from_the_server_ends_the_connection(program: Program) -> None:
    program.accept()
    program.server(Disconnect(reasons.SERVER_SHUTTING_DOWN))
    assert program.notes[-2] == ("closing", "closed the connection: server shutting down")
    assert program.sent() == []


@pytest.mark.parametrize(
    ("protocol", "answer"), [(MQTT5, [Disconnect(reasons.PROTOCOL_ERROR)]), (MQTT311, []), (MQTT31, [])]
)
def test_malformed_packet_ends_the_connection(program: Program, protocol: int, answer: list[Packet]) -> None:
    program.accept(connect=Connect(protocol, "me", False, 10))
    program.client.received(encode(Publish("t", b"good"), protocol) + b"\xc0\x00")
    assert [packet.payload for packet in program.taken] == [b"good"]
    assert program.notes[-1][0] == "closing"
    assert program.sent() == answer


@pytest.mark.parametrize("protocol", [MQTT5, MQTT311])
def test_close_sends_disconnect(program: Program, protocol: int) -> None:
    program.accept(connect=Connect(protocol, "me", False, 10))
    program.client.close(reasons.SUCCESS, "")
    assert program.sent() == [Disconnect()]


# Keep alive


def seconds(program: Program, count: int, each: Any = None) -> list[Packet]:
    packets = []
    for _ in range(count):
        program.now += 1
        if each is not None:
            each()
        program.client.tick()
        packets += program.sent()
    return packets


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


def test_idle_client_pings_and_closes_when_the_server_is_silent(program: Program) -> None:
    program.accept()
    assert seconds(program, 6) == [Ping(PINGREQ)]
    program.server(Ping(PINGRESP))
    assert seconds(program, 6) == [Ping(PINGREQ)]
    seconds(program, 9)
    assert program.client.state == UP
    seconds(program, 2)
    assert program.notes[-1] == ("closing", "is silent")


def test_client_that_only_receives_pings(program: Program) -> None:
    """A server closes a client that sends nothing [MQTT-3.1.2-22], and a client does not answer QoS 0."""
    program.accept()
    for _ in range(5):
        assert Ping(PINGREQ) in seconds(program, 10, lambda: program.server(Publish("t", b"x")))


def test_client_does_not_ping_while_the_server_acknowledges(program: Program) -> None:
    program.accept()

    def exchange() -> None:
        delivery = program.send(b"x")
        program.server(Ack(PUBACK, packet_id_of(delivery.number)))

    assert not any(isinstance(packet, Ping) for packet in seconds(program, 30, exchange))


def test_sending_client_pings_a_server_that_sends_nothing(program: Program) -> None:
    program.accept()
    packets = seconds(program, 14, lambda: program.send(b"x", 0))
    assert Ping(PINGREQ) in packets
    seconds(program, 2)
    assert program.client.state == CLOSING


def test_server_keep_alive_overrides_that_of_the_client(program: Program) -> None:
    program.accept(server_keep_alive=40)
    assert seconds(program, 20) == []
    assert seconds(program, 1) == [Ping(PINGREQ)]


def test_keep_alive_zero_sends_no_ping(program: Program) -> None:
    program.accept(connect=Connect(MQTT5, "me", False, 0))
    assert seconds(program, 100) == []
    assert program.client.state == UP


# Subscriptions


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


# Messages to the server


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


# Messages from the server


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
