"""After a broken line the library reconnects by itself, and no message is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.stock.line import Line
from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Peer
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
Lines = Callable[[Way], Line]


def broken(peer: Peer, wire: Line, subacks: int) -> None:
    """Break the line; wait until the client has reconnected and has this number of SUBACKs."""
    connects = peer.record.connects
    wire.cut()
    wait_until(lambda: peer.record.connects > connects, "connected again")
    wait_until(lambda: len(peer.record.subacks) >= subacks, "subscribed again")


def test_client_subscribes_again_after_reconnect(makers: Makers, way: Way, current: Dialect, line: Lines) -> None:
    wire = line(way)
    publisher = makers.join(current, way)
    receiver = makers.join(current, way, port=wire.port, reconnect=True, keeps=(way.topic("kept"),))
    wait_until(lambda: receiver.record.subacks, "subscribed")
    for number in range(2):
        publisher.publish(way.topic("kept"), str(number).encode())
        receiver.expect(number + 1)
        receiver.unsubscribe(way.topic("nothing"))  # its UNSUBACK comes after the acknowledgement of the message
        broken(receiver, wire, number + 2)
    publisher.publish(way.topic("kept"), b"2")
    assert [message.payload for message in receiver.expect(3)] == [b"0", b"1", b"2"]
    assert all(codes == [1] for codes in receiver.record.subacks)


def test_session_continues_after_reconnect(makers: Makers, way: Way, current: Dialect, line: Lines) -> None:
    wire = line(way)
    publisher = makers.join(current, way)
    receiver = makers.join(current, way, port=wire.port, reconnect=True, clean=False, expiry=3600)
    receiver.subscribe(way.topic("kept"))
    wire.cut(dead=True)
    publisher.pipeline(way.topic("kept"), [str(number).encode() for number in range(50)])
    wire.mend()
    assert [int(message.payload) for message in receiver.expect(50)] == list(range(50))


def test_messages_published_while_disconnected_arrive(makers: Makers, way: Way, current: Dialect, line: Lines) -> None:
    wire = line(way)
    watcher = makers.join(current, way)
    watcher.subscribe(way.topic("report"))
    publisher = makers.join(current, way, port=wire.port, reconnect=True, clean=False, expiry=3600)
    publisher.publish(way.topic("report"), b"0")
    wire.cut(dead=True)
    wait_until(lambda: publisher.record.closes, "the client's report that the connection ended")
    for number in range(1, 20):
        publisher.send(way.topic("report"), str(number).encode())
    wire.mend()
    # paho may send the last messages before it repeats the first one, so the order is not checked:
    wait_until(lambda: {int(payload) for payload in watcher.payloads()} == set(range(20)), "all 20 messages")
