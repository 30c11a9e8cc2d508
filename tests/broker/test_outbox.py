"""What leaves for connections, and what waits for the journal, without an engine."""

from __future__ import annotations

import pytest

from mesh.broker.counters import BrokerCounters
from mesh.broker.gate import Gate
from mesh.broker.outbox import Outbox, explained
from mesh.broker.peer import NOWHERE
from mesh.broker.principal import BACKEND, Principal, everything
from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.session.inbound import Receipt
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Disconnect


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(BrokerCounters())


def connection_of(accepted: bool = True) -> Connection:
    connection = Connection(Principal("app", BACKEND, everything()), MQTT5, NOWHERE, Flushable(), 0)
    connection.receive_maximum = 4
    connection.accepted = accepted
    return connection


def reach(outbox: Outbox, position: int) -> None:
    """The journal has come to ``position``, and the engine looks at what waited."""
    for connection in outbox.reached(position):
        outbox.release(connection)


def test_a_connection_is_dirty_once_however_much_is_written(outbox: Outbox) -> None:
    connection = connection_of()
    outbox.write(connection, b"a")
    outbox.write(connection, b"b")
    assert connection.out == [b"a", b"b"]
    assert outbox.dirty == [connection]
    assert connection.dirty


def test_nothing_is_put_out_after_closing(outbox: Outbox) -> None:
    connection = connection_of()
    outbox.close(connection)
    outbox.write(connection, b"late")
    assert connection.out == []
    assert outbox.dirty == [connection]  # so that its shell closes the socket


def test_answers_leave_in_order_and_none_before_its_position(outbox: Outbox) -> None:
    connection = connection_of()
    outbox.write_after(connection, 2, b"second")
    outbox.write_after(connection, 1, b"third")  # durable sooner, but behind
    outbox.write_after(connection, 0, b"fourth")
    assert outbox.waiting == [connection]
    reach(outbox, 1)
    assert connection.out == []
    assert outbox.waiting == [connection]
    reach(outbox, 2)
    assert connection.out == [b"second", b"third", b"fourth"]
    assert outbox.waiting == []
    assert not connection.waiting
    outbox.write_after(connection, 2, b"fifth")
    assert connection.out[-1] == b"fifth"


def test_a_gate_holds_an_answer_and_those_behind_it(outbox: Outbox) -> None:
    connection, gate = connection_of(), Gate(2)
    outbox.write_after(connection, 0, b"suback", gate)
    outbox.write_after(connection, 0, b"behind")
    gate.pending = 1
    reach(outbox, 9)
    assert connection.out == []
    gate.pending = 0
    reach(outbox, 9)  # a gate opens without a move of the journal
    assert connection.out == [b"suback", b"behind"]


def test_nothing_leaves_before_connack(outbox: Outbox) -> None:
    connection = connection_of(accepted=False)
    outbox.accept_after(connection, 5, b"connack")
    outbox.write(connection, b"pingresp")
    assert connection.out == []
    reach(outbox, 5)
    assert connection.accepted
    assert connection.out == [b"connack", b"pingresp"]


def test_connack_leaves_at_once_if_the_session_is_on_disk(outbox: Outbox) -> None:
    connection = connection_of(accepted=False)
    outbox.durable = 5
    outbox.accept_after(connection, 5, b"connack")
    assert connection.accepted
    assert connection.out == [b"connack"]


def test_a_connection_closes_when_the_journal_has_its_end(outbox: Outbox) -> None:
    connection = connection_of()
    outbox.close_after(connection, 3)
    reach(outbox, 2)
    assert not connection.closing
    reach(outbox, 3)
    assert connection.closing
    assert outbox.dirty == [connection]
    soon = connection_of()
    outbox.close_after(soon, 3)
    assert soon.closing


def test_what_the_client_cannot_take_is_said_in_fewer_words_or_not_at_all(outbox: Outbox) -> None:
    full, plain = Disconnect(0x97, explained("x" * 100)), Disconnect(0x97)
    connection = connection_of()
    connection.max_packet = len(encode(plain, MQTT5))
    outbox.write_fitting(connection, full, plain)
    assert connection.out == [encode(plain, MQTT5)]
    connection.max_packet = 2
    outbox.write_fitting(connection, full, plain)
    assert len(connection.out) == 1


def test_a_connection_with_many_unanswered_publishes_is_not_read_until_half_are_answered(outbox: Outbox) -> None:
    connection = connection_of()
    receipts = connection.inbound.receipts
    for packet_id in range(1, 5):
        receipts.append(Receipt(packet_id, 1, connection))
    outbox.update_congestion(connection)
    assert connection.congested
    receipts.popleft()
    outbox.update_congestion(connection)
    assert connection.congested
    receipts.popleft()
    outbox.update_congestion(connection)
    assert not connection.congested
    assert outbox.dirty == [connection]  # so that its shell reads again
