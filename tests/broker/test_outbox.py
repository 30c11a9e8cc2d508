"""The output of connections, and the output that waits for the journal, without a broker."""

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
    """The journal is durable up to ``position``, and the connections that waited are released."""
    for connection in outbox.reached(position):
        outbox.release(connection)


def test_a_connection_with_several_packets_is_dirty_once(outbox: Outbox) -> None:
    connection = connection_of()
    outbox.write(connection, b"a")
    outbox.write(connection, b"b")
    assert connection.out == [b"a", b"b"]
    assert outbox.dirty == [connection]
    assert connection.dirty


def test_nothing_is_written_to_a_closing_connection(outbox: Outbox) -> None:
    connection = connection_of()
    outbox.close(connection)
    outbox.write(connection, b"late")
    assert connection.out == []
    assert outbox.dirty == [connection]  # so that its shell closes the socket


def test_answers_leave_in_order_each_when_its_position_is_durable(outbox: Outbox) -> None:
    connection = connection_of()
    outbox.write_after(connection, 2, b"second")
    outbox.write_after(connection, 1, b"third")  # durable sooner, but queued later
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


def test_a_gate_holds_its_answer_and_all_later_ones(outbox: Outbox) -> None:
    connection, gate = connection_of(), Gate(2)
    outbox.write_after(connection, 0, b"suback", gate)
    outbox.write_after(connection, 0, b"behind")
    gate.pending = 1
    reach(outbox, 9)
    assert connection.out == []
    gate.pending = 0
    reach(outbox, 9)  # a gate opens while the journal does not advance
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


def test_a_connection_closes_when_its_end_is_durable(outbox: Outbox) -> None:
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


def test_a_packet_too_large_for_the_client_is_shortened_or_dropped(outbox: Outbox) -> None:
    full, plain = Disconnect(0x97, explained("x" * 100)), Disconnect(0x97)
    connection = connection_of()
    connection.max_packet = len(encode(plain, MQTT5))
    outbox.write_fitting(connection, full, plain)
    assert connection.out == [encode(plain, MQTT5)]
    connection.max_packet = 2
    outbox.write_fitting(connection, full, plain)
    assert len(connection.out) == 1


def test_a_congested_connection_is_read_when_half_its_publishes_are_answered(outbox: Outbox) -> None:
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
