"""The spans of sampled messages: who is whose child, and the links of messages that go to several receivers."""

from __future__ import annotations

import pytest

from mesh.broker.settings import Settings
from mesh.broker.trace import PRODUCER, RECEIVE, SEND, WAIT
from mesh.wire.packets import Publish, Subscribe, Subscription
from tests.broker.harness import Bench, Client
from tests.fakes.tracer import KeepingTracer


@pytest.fixture
def tracer() -> KeepingTracer:
    return KeepingTracer()


@pytest.fixture
def bench(tracer: KeepingTracer) -> Bench:
    return Bench(Settings(), tracer=tracer)


def subscriber(bench: Bench, client_id: str, filter: str = "t", expiry: int | None = None) -> Client:
    client = bench.client(client_id, clean=False, expiry=expiry)
    client.send(Subscribe(1, [Subscription(filter, 1)]))
    return client


def check_deliveries(tracer: KeepingTracer, count: int, linked: bool) -> None:
    """There are ``count`` deliveries of one message, each in its trace behind the time that it waited."""
    [received] = tracer.of(RECEIVE)
    waits, sends = tracer.of(WAIT), tracer.of(SEND)
    assert len(waits) == len(sends) == count
    assert [wait.parent for wait in waits] == [received.context] * count
    assert [send.parent for send in sends] == [wait.context for wait in waits]
    assert [send.kind for send in sends] == [PRODUCER] * count
    assert [send.link for send in sends] == [received.context if linked else None] * count
    assert len({send.context.span_id for send in sends}) == count
    assert {send.context.trace_id for send in sends} == {received.context.trace_id}


@pytest.mark.parametrize("qos", [0, 1])
def test_a_delivery_to_the_one_receiver_is_a_child_without_a_link(
    bench: Bench, tracer: KeepingTracer, qos: int
) -> None:
    subscriber(bench, "a")
    bench.client("p").publish("t", qos=qos)
    check_deliveries(tracer, 1, linked=False)


@pytest.mark.parametrize("qos", [0, 1])
def test_each_of_several_deliveries_is_linked_to_the_message(bench: Bench, tracer: KeepingTracer, qos: int) -> None:
    receivers = [subscriber(bench, name) for name in ("a", "b", "c")]
    bench.client("p").publish("t", qos=qos)
    check_deliveries(tracer, 3, linked=True)
    told = {dict(packet.properties.user)["traceparent"] for one in receivers for packet in one.take(Publish)}
    assert told == {send.context.traceparent() for send in tracer.of(SEND)}  # each that of its own delivery


@pytest.mark.parametrize("receivers", [1, 2])
def test_links_outlive_a_crash(bench: Bench, tracer: KeepingTracer, receivers: int) -> None:
    names = ["a", "b"][:receivers]
    for name in names:
        subscriber(bench, name, expiry=100).lose()
    bench.client("p").publish("t")
    again = bench.restart()
    for name in names:
        again.client(name, clean=False, expiry=100)
    check_deliveries(tracer, receivers, linked=receivers > 1)


def test_one_durable_receiver_among_others_is_linked_after_a_crash(bench: Bench, tracer: KeepingTracer) -> None:
    subscriber(bench, "a", expiry=100).lose()
    subscriber(bench, "b")
    bench.client("p").publish("t")
    bench.restart().client("a", clean=False, expiry=100)
    check_deliveries(tracer, 2, linked=True)


def test_members_of_two_groups_are_several_receivers(bench: Bench, tracer: KeepingTracer) -> None:
    for group in ("x", "y"):
        subscriber(bench, group, f"$share/{group}/t")
    bench.client("p").publish("t")
    check_deliveries(tracer, 2, linked=True)


def test_every_span_of_acknowledged_messages_ends_once(bench: Bench, tracer: KeepingTracer) -> None:
    for name in ("a", "b"):
        subscriber(bench, name)
    bench.client("p").publish("t")
    assert [span.reasons for span in tracer.of(RECEIVE) + tracer.of(SEND)] == [[0]] * 3
