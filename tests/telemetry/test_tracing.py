"""The tracer of a node with a real receiver, without one, and with one that fails and recovers."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from time import time_ns

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mesh.broker.peer import NOWHERE, Peer
from mesh.broker.trace import INTERNAL, PROCESS, PRODUCER, SEND, WAIT, Tracer
from mesh.figures.status import by_series
from mesh.session.span import Span
from mesh.telemetry.convention import Convention, resource
from mesh.telemetry.export import ExportThread, Receiver
from mesh.telemetry.spans import LiveSpan, new_trace
from mesh.telemetry.tracing import NodeTracer, open_tracer, receiver_at
from mesh.version import VERSION
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext
from tests.support.schema import violations
from tests.support.waiting import wait_until
from tests.telemetry.journey import (
    BACKEND,
    CAR,
    COMMAND,
    CORE,
    DOWNSTREAM,
    EDGE,
    REPORT,
    TOPICS,
    UPSTREAM,
    VEHICLE,
    Journey,
    carrying,
    counts,
    ingress,
    taken,
)
from tools.tracing.collector import Collector
from tools.tracing.spanvalue import SpanValue


@pytest.fixture
def collector() -> Iterator[Collector]:
    receiver = Collector()
    yield receiver
    receiver.close()


def in_memory() -> tuple[NodeTracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    return open_tracer(Receiver(exporter, "memory"), "mesh-edge", "edge-1", "demo", 1.0, TOPICS), exporter


def only(spans: Sequence[ReadableSpan]) -> ReadableSpan:
    assert len(spans) == 1
    return spans[0]


def check(spans: list[SpanValue], expected: dict[tuple[str, str], str], root: str) -> None:
    by_id = {span.span_id: span for span in spans}
    assert {(span.node, span.name) for span in spans} == set(expected)
    for span in spans:
        parent = expected[span.node, span.name]
        if parent:
            assert by_id[span.parent_id].name.split(" ")[0] == parent
        else:
            assert span.parent_id == root


def test_downstream_and_upstream_traces_are_complete_trees(collector: Collector) -> None:
    journey = Journey.begin(collector.endpoint)
    publisher = new_trace()
    down, up = journey.downstream(publisher), journey.upstream()
    assert journey.end()
    assert down == publisher.trace_id
    check(collector.trace(down), DOWNSTREAM, publisher.span_id)
    check(collector.trace(up), UPSTREAM, "")
    assert {span.service for span in collector.spans()} == {"mesh-core", "mesh-edge", "mesh-door"}
    for span in collector.spans():
        assert violations(span, VEHICLE) == []


def test_each_delivery_links_to_the_message_and_names_its_receiver(collector: Collector) -> None:
    journey = Journey.begin(collector.endpoint)
    trace = journey.upstream()
    assert journey.end()
    at_core = [span for span in collector.trace(trace) if span.node == "core-1"]
    (taken_in,) = [span for span in at_core if span.name.startswith("process")]
    deliveries = [span for span in at_core if span.name.startswith("send")]
    assert [span.links for span in deliveries] == [(taken_in.span_id,)] * 2
    assert {span.attributes["messaging.client.id"] for span in deliveries} == {"erp", "map"}
    waits = {span.span_id: span for span in at_core if span.name.startswith("wait")}
    for span in deliveries:
        assert waits[span.parent_id].attributes["messaging.client.id"] == span.attributes["messaging.client.id"]


def test_names_and_attributes_follow_the_conventions() -> None:
    tracer, exporter = in_memory()
    caller = TraceContext("a" * 32, "b" * 16, 1, "vendor=value")
    span = taken(ingress(tracer, carrying(COMMAND, caller), VEHICLE))
    span.end(0x97)
    assert tracer.flush(5.0)
    made = only(exporter.get_finished_spans())
    assert made.name == "process vehicles/{vehicle}/cmd"
    assert dict(made.attributes or {}) == {
        "messaging.system": "mqtt",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": COMMAND,
        "messaging.destination.template": "vehicles/{vehicle}/cmd",
        "messaging.client.id": "car",
        "messaging.message.body.size": len(b"unlock"),
        "messaging.mqtt.reason_code": 0x97,
        "network.transport": "tcp",
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 50123,
        "server.address": "127.0.0.1",
        "server.port": 1883,
        "mesh.vehicle": VEHICLE,
        "error.type": "0x97",
    }
    assert made.kind.name == "CONSUMER"
    assert made.status.status_code is StatusCode.ERROR
    assert made.status.description == "quota exceeded"
    assert made.parent is not None
    assert f"{made.parent.span_id:016x}" == caller.span_id
    assert made.parent.is_remote
    assert [link.context for link in made.links] == [made.parent]
    assert f"{made.context.trace_id:032x}" == caller.trace_id
    assert dict(made.resource.attributes) == {
        "service.name": "mesh-edge", "service.version": VERSION, "service.instance.id": "edge-1", "mesh.name": "demo"
    }  # fmt: skip
    assert made.instrumentation_scope is not None
    assert (made.instrumentation_scope.name, made.instrumentation_scope.version) == ("mesh", VERSION)
    tracer.close()


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (BACKEND, {"network.peer.address": "2001:db8::7", "network.peer.port": 40001, "network.transport": "tcp",
                   "server.address": "::1", "server.port": 1884}),
        (Peer("192.0.2.9", 40002, "mqtt://0.0.0.0:1884"), {"network.peer.address": "192.0.2.9", "server.port": 1884,
                                                           "network.peer.port": 40002, "network.transport": "tcp"}),
        (Peer("192.0.2.9", 40002, "ws://localhost:8083/mqtt"), {
            "network.peer.address": "192.0.2.9", "network.peer.port": 40002, "network.transport": "tcp",
            "server.address": "localhost", "server.port": 8083}),
        (CORE, {"network.transport": "unix", "server.address": "127.0.0.1", "server.port": 7001}),
        (EDGE, {"network.peer.address": EDGE.address, "network.transport": "unix", "server.address": EDGE.address}),
        (Peer("192.0.2.9", 7001), {"network.peer.address": "192.0.2.9", "network.peer.port": 7001,
                                   "network.transport": "tcp", "server.address": "192.0.2.9", "server.port": 7001}),
        (NOWHERE, {}),
    ],
)  # fmt: skip
def test_span_names_both_ends_of_the_connection(peer: Peer, expected: dict[str, str | int]) -> None:
    tracer, exporter = in_memory()
    tracer.start(SEND, new_trace(), COMMAND, VEHICLE, "car", peer, PRODUCER).end()
    assert tracer.flush(5.0)
    made = dict(only(exporter.get_finished_spans()).attributes or {})
    assert {name: value for name, value in made.items() if name.startswith(("network", "server"))} == expected
    tracer.close()


def test_span_within_a_node_has_no_operation_type_and_no_error() -> None:
    tracer, exporter = in_memory()
    tracer.record(WAIT, new_trace(), COMMAND, "", "", 1_000, 5_000)
    assert tracer.flush(5.0)
    made = only(exporter.get_finished_spans())
    assert set(made.attributes or {}) == {
        "messaging.system", "messaging.operation.name", "messaging.destination.name", "messaging.destination.template",
        "mesh.vehicle",
    }  # fmt: skip
    assert made.kind.name == "INTERNAL"
    assert made.status.is_unset
    tracer.close()


def test_reason_code_of_success_is_not_an_error() -> None:
    tracer, exporter = in_memory()
    taken(ingress(tracer, carrying(COMMAND, None), VEHICLE)).end(0x10)
    assert tracer.flush(5.0)
    made = only(exporter.get_finished_spans())
    assert made.attributes is not None
    assert made.attributes["messaging.mqtt.reason_code"] == 0x10
    assert "error.type" not in made.attributes
    assert made.status.is_unset
    tracer.close()


def test_span_without_a_topic_has_a_name_and_no_destination() -> None:
    tracer, exporter = in_memory()
    taken(ingress(tracer, Publish("", b"x"), "")).end(0x94)
    assert tracer.flush(5.0)
    made = only(exporter.get_finished_spans())
    assert made.name == "process"
    assert not [name for name in made.attributes or {} if "destination" in name]
    tracer.close()


def test_tracestate_is_passed_on() -> None:
    tracer, exporter = in_memory()
    parent = TraceContext("a" * 32, "b" * 16, 1, "one=1,two=2")
    span = tracer.start(SEND, parent, COMMAND, VEHICLE, "car", CAR, PRODUCER)
    assert span.context.state == "one=1,two=2"
    assert span.context.sampled
    span.end()
    assert tracer.flush(5.0)
    assert only(exporter.get_finished_spans()).context.trace_state.to_header() == "one=1,two=2"
    tracer.close()


def test_record_makes_a_span_with_past_times() -> None:
    tracer, exporter = in_memory()
    parent = new_trace()
    context = tracer.record(WAIT, parent, COMMAND, VEHICLE, "car", 1_000, 5_000)
    assert context.trace_id == parent.trace_id
    assert context.span_id != parent.span_id
    assert tracer.flush(5.0)
    made = only(exporter.get_finished_spans())
    assert (made.start_time, made.end_time) == (1_000, 5_000)
    tracer.close()


def test_clock_set_back_gives_no_negative_duration() -> None:
    tracer, exporter = in_memory()
    tracer.record(WAIT, new_trace(), COMMAND, VEHICLE, "car", 5_000, 1_000)
    assert tracer.flush(5.0)
    made = only(exporter.get_finished_spans())
    assert made.end_time == made.start_time
    tracer.close()


def test_span_ends_once() -> None:
    tracer, exporter = in_memory()
    span = taken(ingress(tracer, carrying(COMMAND, None), VEHICLE))
    span.end(0x80)
    span.end()
    assert tracer.flush(5.0)
    assert not only(exporter.get_finished_spans()).status.is_ok
    assert counts(tracer).recorded == 1
    tracer.close()


def test_unsampled_context_is_passed_on_and_not_recorded() -> None:
    tracer, _ = in_memory()
    parent = TraceContext("a" * 32, "b" * 16, 0)
    assert tracer.start(SEND, parent, COMMAND, VEHICLE, "car", CAR, PRODUCER).context is parent
    assert tracer.record(WAIT, parent, COMMAND, VEHICLE, "car", 1, 2) is parent
    assert ingress(tracer, carrying(COMMAND, parent), VEHICLE) is None
    assert counts(tracer).recorded == 0
    tracer.close()


def test_disabled_tracer_does_nothing() -> None:
    tracer = Tracer()
    parent = new_trace()
    assert not tracer.enabled
    assert ingress(tracer, Publish(COMMAND), VEHICLE) is None
    span = tracer.start(SEND, parent, COMMAND, VEHICLE, "car", CAR, PRODUCER)
    span.end()
    assert type(span) is Span
    assert tracer.record(WAIT, parent, COMMAND, VEHICLE, "car", 1, 2) is parent


def test_watched_vehicle_is_traced() -> None:
    exporter = InMemorySpanExporter()
    tracer = open_tracer(Receiver(exporter, "memory"), "mesh-edge", "edge-1", "demo", 0.0, TOPICS, watch=["V1"])
    assert ingress(tracer, Publish(COMMAND), "V1") is not None
    assert ingress(tracer, Publish(COMMAND), "V2") is None
    tracer.close()


class Stuck(SpanExporter):
    """An endpoint that accepts a request and does not answer until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go = threading.Event()
        self.sizes: list[int] = []
        self.answer = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.sizes.append(len(spans))
        return self.answer if self.go.wait(20.0) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.go.set()


class Moody(SpanExporter):
    """An endpoint that a test switches between up and down."""

    def __init__(self) -> None:
        self.up = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.up:
            raise ConnectionError("no listener")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.up = False


def make(exporter: SpanExporter, queue: int) -> tuple[ExportThread, Callable[[], None]]:
    convention = Convention(resource("s", "n", "m"), TOPICS)
    thread = ExportThread(Receiver(exporter, "there"), convention.readable, queue=queue, batch=4)
    thread.start()

    def put() -> None:
        LiveSpan(thread.put, new_trace(), "", PROCESS, COMMAND, "", "", None, INTERNAL, time_ns()).end()

    return thread, put


def test_full_queue_drops_and_counts_without_waiting() -> None:
    exporter = Stuck()
    thread, put = make(exporter, queue=10)
    for _ in range(4):
        put()
    assert exporter.entered.wait(10.0)
    for _ in range(1000):
        put()
    assert thread.recorded == 1004
    assert thread.dropped == 990
    assert thread.queued == 14
    exporter.go.set()
    assert thread.flush(10.0)
    assert (thread.exported, thread.dropped, thread.queued) == (14, 990, 0)
    assert max(exporter.sizes) == 4
    thread.close(5.0)


def test_flush_returns_false_at_the_timeout() -> None:
    exporter = Stuck()
    thread, put = make(exporter, queue=10)
    put()
    assert not thread.flush(0.05)
    exporter.go.set()
    assert thread.flush(10.0)
    thread.close(5.0)


def test_close_does_not_wait_for_a_hung_endpoint() -> None:
    exporter = Stuck()
    thread, put = make(exporter, queue=100)
    for _ in range(8):
        put()
    assert exporter.entered.wait(10.0)
    thread.close(0.05)
    thread.close(0.05)
    put()
    assert thread.recorded == 9
    wait_until(lambda: thread.queued == 0)


def test_endpoint_that_fails_and_recovers_logs_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Moody()
    thread, put = make(exporter, queue=100)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            put()
            assert thread.flush(10.0)
        assert not thread.reachable
        exporter.up = True
        for _ in range(5):
            put()
            assert thread.flush(10.0)
    assert thread.reachable
    assert (thread.exported, thread.dropped) == (5, 5)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert re.match("traces cannot be sent to there .* ConnectionError: no listener", lines[0])
    assert lines[1] == "traces are sent to there again; 5 spans were dropped so far"
    thread.close(5.0)


def test_dead_endpoint_costs_spans_and_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    spare = Collector()
    spare.close()  # its port is free now, without a listener
    tracer = open_tracer(receiver_at(spare.endpoint), "mesh-edge", "edge-1", "demo", 1.0, TOPICS)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            taken(ingress(tracer, carrying(COMMAND, None), VEHICLE)).end()
        wait_until(lambda: counts(tracer).dropped == 3)
    tracer.close()
    assert not counts(tracer).reachable
    ours = [record for record in caplog.records if record.name.startswith(("mesh", "opentelemetry"))]
    assert len(ours) == 1
    assert "messages are not affected" in ours[0].getMessage()
    assert "UNAVAILABLE" in ours[0].getMessage()


def test_span_that_cannot_be_converted_costs_only_its_batch(caplog: pytest.LogCaptureFixture) -> None:
    def broken(span: LiveSpan) -> ReadableSpan:
        raise KeyError(span.topic)

    thread = ExportThread(Receiver(InMemorySpanExporter(), "memory"), broken)
    thread.start()
    for _ in range(2):
        LiveSpan(thread.put, new_trace(), "", PROCESS, COMMAND, "", "", None, INTERNAL, time_ns()).end()
        assert thread.flush(10.0)
    assert thread.dropped == 2
    assert "KeyError" in caplog.text
    thread.close(5.0)


def names(exporter: InMemorySpanExporter) -> list[str]:
    """The vehicles of the spans of an exporter."""
    return [str((span.attributes or {}).get("mesh.vehicle")) for span in exporter.get_finished_spans()]


def say(tracer: NodeTracer, vehicle: str) -> None:
    taken(ingress(tracer, carrying(COMMAND, None), vehicle)).end()


def test_spans_go_to_another_receiver_and_none_is_lost() -> None:
    tracer, old = in_memory()
    new = InMemorySpanExporter()
    say(tracer, "V1")
    assert tracer.flush(5.0)
    say(tracer, "V2")
    end = tracer.send_to(Receiver(new, "new"))
    say(tracer, "V3")
    assert tracer.flush(5.0)
    end()
    assert names(old)[0] == "V1"
    assert names(new)[-1] == "V3"
    assert sorted(names(old) + names(new)) == ["V1", "V2", "V3"]
    found = counts(tracer)
    assert (found.recorded, found.exported, found.dropped) == (3, 3, 0)
    tracer.close()


def test_a_receiver_that_does_not_answer_costs_no_span_when_it_is_replaced() -> None:
    stuck, new = Stuck(), InMemorySpanExporter()
    tracer = open_tracer(Receiver(stuck, "stuck"), "mesh-edge", "edge-1", "demo", 1.0, TOPICS)
    say(tracer, "V1")
    assert stuck.entered.wait(10.0)
    end = tracer.send_to(Receiver(new, "new"))
    say(tracer, "V2")
    stuck.answer = SpanExportResult.FAILURE
    stuck.go.set()
    end()
    assert tracer.flush(5.0)
    assert names(new) == ["V1", "V2"]
    found = counts(tracer)
    assert (found.exported, found.dropped, found.reachable) == (2, 0, True)
    tracer.close()


def test_the_end_of_a_receiver_waits_for_its_request_a_bounded_time() -> None:
    stuck = Stuck()
    thread, put = make(stuck, queue=10)
    put()
    assert stuck.entered.wait(10.0)
    before = thread.move(Receiver(InMemorySpanExporter(), "new"))
    stuck.answer = SpanExportResult.FAILURE
    thread.retire(before, 0.05)  # its shutdown ends the request
    assert thread.flush(10.0)
    assert (thread.exported, thread.dropped, thread.queued) == (1, 0, 0)
    thread.close(5.0)


def test_a_dead_receiver_is_replaced_without_the_loss_of_a_span(collector: Collector) -> None:
    spare = Collector()
    spare.close()
    tracer = open_tracer(receiver_at(spare.endpoint), "mesh-edge", "edge-1", "demo", 1.0, TOPICS)
    say(tracer, "V1")
    thread = tracer._exporter
    assert thread is not None
    wait_until(lambda: thread._busy is not None)  # it tries again for five seconds
    tracer.send_to(receiver_at(collector.endpoint))()
    assert tracer.flush(5.0)
    assert [span.attributes["mesh.vehicle"] for span in collector.spans()] == ["V1"]
    assert counts(tracer).dropped == 0
    tracer.close()


def test_a_tracer_without_a_receiver_records_nothing_until_it_has_one() -> None:
    tracer = open_tracer(None, "mesh-edge", "edge-1", "demo", 1.0, TOPICS)
    parent = new_trace()
    assert not tracer.enabled
    assert tracer.status() is None
    assert ingress(tracer, carrying(COMMAND, parent), VEHICLE) is None
    assert type(tracer.start(SEND, parent, COMMAND, VEHICLE, "car", CAR, PRODUCER)) is Span
    assert tracer.record(WAIT, parent, COMMAND, VEHICLE, "car", 1, 2) is parent
    exporter = InMemorySpanExporter()
    tracer.send_to(Receiver(exporter, "memory"))
    say(tracer, "V1")
    left = taken(ingress(tracer, carrying(COMMAND, None), "V2"))
    end = tracer.send_to(None)
    assert ingress(tracer, carrying(COMMAND, None), "V3") is None
    end()  # exports what waits
    left.end()
    assert names(exporter) == ["V1"]
    assert tracer.status() is None
    tracer.close()


def test_topic_determines_the_vehicle() -> None:
    tracer, exporter = in_memory()
    tracer.start(SEND, new_trace(), REPORT, "", "erp", BACKEND, PRODUCER).end()
    tracer.start(SEND, new_trace(), "fleet/news", "V7", "car", CAR, PRODUCER).end()
    tracer.start(SEND, new_trace(), "fleet/news", "", "erp", BACKEND, PRODUCER).end()
    assert tracer.flush(5.0)
    vehicles = [(span.attributes or {}).get("mesh.vehicle") for span in exporter.get_finished_spans()]
    assert vehicles == [VEHICLE, "V7", None]
    tracer.close()


def test_status_counts_the_spans() -> None:
    tracer, _ = in_memory()
    taken(ingress(tracer, carrying(COMMAND, None), VEHICLE)).end()
    assert tracer.flush(5.0)
    assert by_series(counts(tracer)) == {
        "mesh_spans_recorded_total": 1,
        "mesh_spans_exported_total": 1,
        "mesh_spans_dropped_total": 0,
        "mesh_traces_suppressed_total": 0,
        "mesh_spans_queued": 0,
        "mesh_spans_endpoint_up": 1,
    }
    tracer.close()


def test_collector_keeps_a_bounded_number_of_spans() -> None:
    receiver = Collector(limit=5)
    tracer = open_tracer(receiver_at(receiver.endpoint), "mesh-edge", "edge-1", "demo", 1.0, TOPICS)
    for _ in range(20):
        tracer.start(SEND, new_trace(), COMMAND, VEHICLE, "car", CAR, PRODUCER).end()
    assert tracer.flush(10.0)
    assert len(receiver.wait(lambda spans: len(spans) == 5, 5.0)) == 5
    assert len(receiver.traces()) == 5
    receiver.clear()
    assert receiver.spans() == []
    with pytest.raises(TimeoutError, match="0 spans"):
        receiver.wait(lambda spans: bool(spans), 0.01)
    with pytest.raises(OSError, match="is the port in use"):
        Collector(port=receiver.port)
    tracer.close()
    receiver.close()
