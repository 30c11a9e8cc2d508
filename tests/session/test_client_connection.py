"""The client's side of a session: the life of its connection, from CONNECT to its end."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import mesh.session
from mesh.session import clientstate as states
from mesh.session.client import CONNACK_WAIT
from mesh.session.clientstate import CLOSING, CONNECTING, DISCONNECTED, UP, IllegalCall
from mesh.session.outbound import packet_id_of
from mesh.wire import reasons
from mesh.wire.encode import encode
from mesh.wire.packets import (
    MQTT5,
    MQTT31,
    MQTT311,
    PINGREQ,
    PINGRESP,
    PUBACK,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
)
from tests.session.client_program import Program, RecordedRequest

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
