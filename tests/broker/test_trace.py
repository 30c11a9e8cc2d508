"""The spans of sampled messages: their parents, and the links of messages that go to several receivers."""

from __future__ import annotations

import pytest

from mesh.broker.principal import VEHICLE
from mesh.broker.settings import Settings
from mesh.broker.trace import CONSUMER, PROCESS, PRODUCER, SEND, WAIT
from mesh.wire.packets import Ack, Publish, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.fakes.tracer import KeepingTracer
from tests.support.bench import PEER, Bench, Client


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
    """There are ``count`` deliveries of one message, each a child of its own wait span."""
    [received] = tracer.of(PROCESS)
    waits, sends = tracer.of(WAIT), tracer.of(SEND)
    assert len(waits) == len(sends) == count
    assert [wait.parent for wait in waits] == [received.context] * count
    assert [send.parent for send in sends] == [wait.context for wait in waits]
    assert [send.kind for send in sends] == [PRODUCER] * count
    assert [send.link for send in sends] == [received.context if linked else None] * count
    assert len({send.context.span_id for send in sends}) == count
    assert {send.context.trace_id for send in sends} == {received.context.trace_id}


@pytest.mark.parametrize("qos", [0, 1])
def test_a_delivery_to_a_single_receiver_is_a_child_without_a_link(
    bench: Bench, tracer: KeepingTracer, qos: int
) -> None:
    subscriber(bench, "a")
    bench.client("p").publish("t", qos=qos)
    check_deliveries(tracer, 1, linked=False)


@pytest.mark.parametrize("qos", [0, 1])
def test_each_of_several_deliveries_has_a_link_to_the_message(bench: Bench, tracer: KeepingTracer, qos: int) -> None:
    receivers = [subscriber(bench, name) for name in ("a", "b", "c")]
    bench.client("p").publish("t", qos=qos)
    check_deliveries(tracer, 3, linked=True)
    told = {dict(packet.properties.user)["traceparent"] for one in receivers for packet in one.take(Publish)}
    assert told == {send.context.traceparent() for send in tracer.of(SEND)}  # each is that of its own delivery


@pytest.mark.parametrize("receivers", [1, 2])
def test_links_survive_a_crash(bench: Bench, tracer: KeepingTracer, receivers: int) -> None:
    names = ["a", "b"][:receivers]
    for name in names:
        subscriber(bench, name, expiry=100).lose()
    bench.client("p").publish("t")
    again = bench.restart()
    for name in names:
        again.client(name, clean=False, expiry=100)
    check_deliveries(tracer, receivers, linked=receivers > 1)


def test_a_durable_receiver_among_others_has_a_link_after_a_crash(bench: Bench, tracer: KeepingTracer) -> None:
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


def test_the_spans_of_acknowledged_messages_end_once(bench: Bench, tracer: KeepingTracer) -> None:
    for name in ("a", "b"):
        subscriber(bench, name)
    bench.client("p").publish("t")
    assert [span.reasons for span in tracer.of(PROCESS) + tracer.of(SEND)] == [[0]] * 3


def test_the_spans_name_the_client_and_its_address(bench: Bench, tracer: KeepingTracer) -> None:
    for name in ("a", "b"):
        subscriber(bench, name)
    bench.client("p").publish("t")
    [received] = tracer.of(PROCESS)
    assert (received.client, received.peer, received.kind) == ("p", PEER, CONSUMER)
    sends = tracer.of(SEND)
    assert [span.client for span in tracer.of(WAIT)] == [span.client for span in sends]
    assert {span.client for span in sends} == {"a", "b"}
    assert {span.peer for span in sends} == {PEER}


def test_the_spans_name_the_vehicle(tracer: KeepingTracer) -> None:
    bench = Bench(Settings(), tracer=tracer)
    receiver = bench.client("r", "V2", VEHICLE)
    receiver.send(Subscribe(1, [Subscription("vehicles/V2/t", 1)]))
    sender = bench.client("s", "V2", VEHICLE)
    sender.publish("vehicles/V2/t")
    assert {(span.operation, span.vehicle, span.client) for span in tracer.spans} == {
        (PROCESS, "V2", "s"), (WAIT, "V2", "r"), (SEND, "V2", "r")
    }  # fmt: skip


@pytest.mark.parametrize(("protocol", "qos"), [(5, 0), (5, 1), (5, 2), (4, 0), (4, 1), (4, 2)])
def test_a_forbidden_publish_leaves_a_span_with_the_reason(
    bench: Bench, tracer: KeepingTracer, protocol: int, qos: int
) -> None:
    vehicle = bench.client("v", "V1", VEHICLE, protocol=protocol)
    vehicle.publish("vehicles/V2/t", qos=qos)
    [span] = tracer.spans
    assert (span.operation, span.topic, span.vehicle, span.client) == (PROCESS, "vehicles/V2/t", "V1", "v")
    assert span.reasons == [0x87]


def test_a_publish_that_breaks_the_protocol_leaves_a_span_with_the_reason(
    bench: Bench, tracer: KeepingTracer
) -> None:
    properties = Properties()
    properties.topic_alias = 1  # an unknown alias
    client = bench.client("p")
    client.publish("", properties=properties)
    assert client.closed
    [span] = tracer.spans
    assert (span.operation, span.topic, span.reasons) == (PROCESS, "", [0x94])


@pytest.mark.parametrize("qos", [0, 1])
def test_a_publish_to_a_full_table_leaves_a_span_with_the_reason(tracer: KeepingTracer, qos: int) -> None:
    settings = Settings()
    settings.max_retained = 0
    Bench(settings, tracer=tracer).client("p").publish("t", qos=qos, retain=True)
    [span] = tracer.spans
    assert span.reasons == [0x97]


def test_a_publisher_that_closes_before_its_answer_leaves_a_span(tracer: KeepingTracer) -> None:
    bench = Bench(Settings(), tracer=tracer, auto=False)
    subscriber(bench, "a", expiry=100).lose()
    publisher = bench.client("p")
    bench.broker.receive(publisher.connection, Publish("t", b"x", 1, packet_id=1))  # the journal does not commit
    [span] = tracer.of(PROCESS)
    assert span.reasons == []
    bench.broker.lost(publisher.connection)
    assert span.reasons == [0x80]


def test_a_receiver_that_closes_before_its_answer_leaves_a_span(bench: Bench, tracer: KeepingTracer) -> None:
    receiver = subscriber(bench, "a", expiry=100)
    receiver.auto_ack = False
    bench.client("p").publish("t")
    [span] = tracer.of(SEND)
    assert span.reasons == []
    receiver.lose()
    assert span.reasons == [0x80]


def test_a_receiver_that_refuses_leaves_a_span_with_its_reason(bench: Bench, tracer: KeepingTracer) -> None:
    receiver = subscriber(bench, "a", expiry=100)
    receiver.auto_ack = False
    bench.client("p").publish("t")
    [packet] = receiver.take(Publish)
    receiver.send(Ack(4, packet.packet_id, 0x83))
    [span] = tracer.of(SEND)
    assert span.reasons == [0x83]
