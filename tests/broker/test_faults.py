"""Errors of this program in the broker: what they end, and what goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.broker.dispatcher import Forwarder
from mesh.broker.peer import Peer
from mesh.broker.work import STEPS
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.span import Span
from mesh.telemetry.spans import new_trace
from mesh.wire import reasons
from mesh.wire.packets import Ack, Publish, Subscribe, Subscription, Will
from mesh.wire.properties import Properties
from tests.fakes.store import FaultyStore
from tests.fakes.tracer import KeepingTracer
from tests.support.bench import Bench, subscribe


class FaultyForwarder(Forwarder):
    """Each message that it gets raises if ``faulty`` is set."""

    faulty = False

    def forward(self, message: Message, receipt: Receipt | None) -> None:
        if self.faulty:
            raise ValueError("a fault of this program")


def test_a_fault_while_a_session_opens_leaves_no_connection_behind() -> None:
    store = FaultyStore()
    bench = Bench(store=store)
    client = bench.client("c", expiry=100)
    old = client.connection
    store.faulty = True
    with pytest.raises(ValueError, match="fault"):
        client.connect(expiry=100, clean=False)
    assert bench.broker.closing.connections == 0
    assert old.closing
    bench.clock.now += 101
    bench.broker.tick()
    assert len(bench.broker.sessions) == 0
    client.connect(expiry=100)
    assert bench.broker.closing.connections == 1


def test_a_fault_while_a_connection_is_attached_leaves_none_behind() -> None:
    store = FaultyStore()
    bench = Bench(store=store)
    client = bench.client("c", expiry=100, clean=False)
    (session,) = bench.broker.sessions.all()
    session.outbound.next_number = session.outbound.reserved + 1
    store.faulty = True
    with pytest.raises(ValueError, match="fault"):
        client.attach([])
    assert bench.broker.closing.connections == 0
    bench.clock.now += 101
    bench.broker.tick()
    assert len(bench.broker.sessions) == 0


@pytest.mark.parametrize("way", ["takeover", "fail", "lost", "expiry"])
def test_a_fault_at_a_will_leaves_nothing_half_closed(way: str) -> None:
    forwarder = FaultyForwarder()
    bench = Bench(forwarder=forwarder)
    delay = Properties()
    delay.will_delay = 50 if way == "expiry" else 0
    client = bench.client("c", expiry=100, will=Will("w", b"gone", 1, False, delay))
    old = client.connection
    if way == "expiry":
        client.lose()
    bench.clock.now += 51
    forwarder.faulty = True
    with pytest.raises(ValueError, match="fault"):
        if way == "takeover":
            client.connect(expiry=100)
        elif way == "fail":
            bench.broker.fail(old, reasons.PROTOCOL_ERROR)
        elif way == "lost":
            bench.broker.lost(old)
        else:
            bench.broker.tick()
    assert old.closing
    assert bench.broker.closing.connections == 0
    bench.clock.now += 101
    bench.broker.tick()
    assert len(bench.broker.sessions) == 0


def test_a_fault_in_one_part_of_a_turn_does_not_stop_the_parts_after_it() -> None:
    bench = Bench()
    subscriber = bench.client("s", expiry=100)
    bench.client("p").publish("a", b"kept", retain=True)

    def job() -> Iterator[int]:
        yield STEPS
        raise ValueError("a fault of this program")

    bench.broker.work.start(job())
    bench.broker.receive(subscriber.connection, Subscribe(1, [Subscription("a", 1)]))
    with pytest.raises(ExceptionGroup, match="end of a turn"):
        bench.broker.end_turn()
    bench.broker.durable(bench.store.commit())
    bench._flush()
    assert subscriber.messages() == [b"kept"]


class FaultySpan(Span):
    """Its first end raises."""

    ended = False

    def end(self, reason: int = 0) -> None:
        if not self.ended:
            self.ended = True
            raise ValueError("a fault of this program")


class FaultyTracer(KeepingTracer):
    """Gives the messages of the topic ``bad`` a ``FaultySpan``."""

    def ingress(self, publish: Publish, vehicle: str, client: str, peer: Peer, trusted: bool = False) -> Span | None:
        return FaultySpan(new_trace()) if publish.topic == "bad" else None


def test_a_fault_at_an_answer_ends_its_connection_and_no_other() -> None:
    bench = Bench(tracer=FaultyTracer())
    subscribe(bench.client("s", expiry=100, clean=False), "#")
    one, bad, two = [bench.client(name) for name in ("one", "bad", "two")]
    bench.auto = False
    for client in (one, bad, two):
        client.publish(client.client_id)
    assert [client.take(Ack) for client in (one, bad, two)] == [[], [], []]
    with pytest.raises(ExceptionGroup, match="durable"):
        bench.broker.durable(bench.store.commit())
    bench.auto = True
    bench.turn()
    assert [[ack.reason for ack in client.take(Ack)] for client in (one, bad, two)] == [[0], [], [0]]
    assert [client.closed for client in (one, bad, two)] == [False, True, False]
