"""One trace follows a message through real processes, with every MQTT version at its ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import psutil
import pytest

from mesh.wire.packets import MQTT5, MQTT311
from tests.e2e.ways import DOWNSTREAM, UPSTREAM, context, parent_of
from tests.support.client import Client
from tests.support.mesh import kill_and_wait
from tests.support.ports import free_port
from tests.support.processes import Processes
from tests.support.schema import violations
from tools.tracing.collector import Collector
from tools.tracing.spanvalue import SpanValue

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("traced"), ["edge-1", "edge-2"], collector.endpoint) as running:
        yield running


def check_way(spans: list[SpanValue], way: list[tuple[str, str]], root: str) -> dict[tuple[str, str], SpanValue]:
    """There is exactly one span for each step of the way, each the child of the one before, in order of time."""
    found = {(span.service.removeprefix("mesh-"), span.name.split(" ")[0]): span for span in spans}
    assert sorted(found) == sorted(way)
    assert len(spans) == len(way)
    parent = root
    start = 0
    for step in way:
        span = found[step]
        assert span.parent_id == parent, f"{step}: {span}"
        assert span.start_ns >= start - 1_000_000, f"{step} begins before its parent"
        assert span.end_ns >= span.start_ns
        assert span.error is None
        parent, start = span.span_id, span.start_ns
    return found


@pytest.mark.parametrize("protocol", [MQTT311, MQTT5])
def test_command_has_one_trace_to_the_vehicle(mesh: Processes, collector: Collector, protocol: int) -> None:
    async def scenario() -> None:
        car = await Client(f"down-{protocol}", protocol).connect(mesh.vehicles)
        await car.subscribe(f"vehicles/{car.name}/cmd/#")
        backend = await Client(f"sender-{protocol}", MQTT5).connect(mesh.backends)
        trace, span, traceparent = context()
        backend.publish(f"vehicles/{car.name}/cmd/horn", "twice", 1, [("traceparent", traceparent), ("own", "kept")])
        await backend.settled()
        await car.until(lambda: car.received, "the command")
        spans = await asyncio.to_thread(collector.wait, lambda all: len(of(all, trace)) >= len(DOWNSTREAM), 20.0)
        found = check_way(of(spans, trace), DOWNSTREAM, span)
        assert follow_the_conventions(found.values(), car.name)
        assert all(each.name.endswith(" vehicles/{vehicle}/cmd") for each in found.values())
        assert {step: each.attributes["messaging.client.id"] for step, each in found.items()} == {
            ("core", "process"): backend.name,
            ("core", "relay"): "core",
            ("edge", "process"): "core",
            ("edge", "wait"): car.name,
            ("edge", "send"): car.name,
            ("door", "relay"): car.name,
        }
        check_ends(found["core", "process"], mesh.backends)
        check_ends(found["edge", "send"], mesh.vehicles)
        check_ends(found["door", "relay"], mesh.vehicles)
        assert peer(found["edge", "send"]) == peer(found["door", "relay"]), "the peer is the vehicle, not the door"
        if protocol == MQTT5:
            (message,) = car.received
            assert parent_of(message) == (trace, found["edge", "send"].span_id), "not the delivery's span"
            assert ("own", "kept") in message.user
        car.leave()
        backend.leave()

    asyncio.run(scenario())


@pytest.mark.parametrize("protocol", [MQTT311, MQTT5])
def test_report_has_one_trace_to_the_back_end(mesh: Processes, collector: Collector, protocol: int) -> None:
    async def scenario() -> None:
        backend = await Client(f"reader-{protocol}", MQTT5).connect(mesh.backends)
        car = await Client(f"up-{protocol}", protocol).connect(mesh.vehicles)
        await backend.subscribe(f"vehicles/{car.name}/status")
        trace, span, traceparent = context()
        user = [("traceparent", traceparent)] if protocol == MQTT5 else []
        car.publish(f"vehicles/{car.name}/status", "parked", 1, user)
        await car.settled()
        await backend.until(lambda: backend.received, "the report")
        seen, parent = parent_of(backend.received[0])
        if protocol == MQTT5:
            assert seen == trace
        else:
            trace, span = seen, ""  # 3.1.1 cannot carry a context: the trace begins at the edge
        spans = await asyncio.to_thread(collector.wait, lambda all: len(of(all, trace)) >= len(UPSTREAM), 20.0)
        found = check_way(of(spans, trace), UPSTREAM, span)
        assert parent == found["core", "send"].span_id
        assert follow_the_conventions(found.values(), car.name)
        assert {step: each.attributes["messaging.client.id"] for step, each in found.items()} == {
            ("edge", "process"): car.name,
            ("edge", "wait"): "core",
            ("edge", "send"): "core",
            ("core", "process"): "core",
            ("core", "wait"): backend.name,
            ("core", "send"): backend.name,
        }
        check_ends(found["edge", "process"], mesh.vehicles)
        check_ends(found["core", "send"], mesh.backends)
        car.leave()
        backend.leave()

    asyncio.run(scenario())


def test_each_receiver_has_a_span_linked_to_the_message(mesh: Processes, collector: Collector) -> None:
    async def scenario() -> None:
        readers = [await Client(f"reader-{letter}", MQTT5).connect(mesh.backends) for letter in "ab"]
        car = await Client("two", MQTT5).connect(mesh.vehicles)
        for reader in readers:
            await reader.subscribe("vehicles/two/status")
        trace, _, traceparent = context()
        car.publish("vehicles/two/status", "parked", 1, [("traceparent", traceparent)])
        await car.settled()
        for reader in readers:
            await reader.until(lambda reader=reader: reader.received, "the report")
        spans = await asyncio.to_thread(collector.wait, lambda all: len(of(all, trace)) >= len(UPSTREAM) + 2, 20.0)
        found = of(spans, trace)
        assert follow_the_conventions(found, "two")
        (taken_in,) = [each for each in found if name(each) == ("core", "process")]
        sends = {each.attributes["messaging.client.id"]: each for each in found if name(each) == ("core", "send")}
        assert set(sends) == {"reader-a", "reader-b"}
        for reader in readers:
            send = sends[reader.name]
            assert parent_of(reader.received[0]) == (trace, send.span_id)
            assert send.links == (taken_in.span_id,)
        for client in (*readers, car):
            client.leave()

    asyncio.run(scenario())


@pytest.mark.parametrize("protocol", [MQTT311, MQTT5])
def test_refused_publish_has_a_span_with_its_reason(mesh: Processes, collector: Collector, protocol: int) -> None:
    async def scenario() -> None:
        topic = f"vehicles/other/{protocol}"
        car = await Client(f"refused-{protocol}", protocol).connect(mesh.vehicles)
        car.publish(topic, "x", 1)
        spans = await asyncio.to_thread(collector.wait, lambda all: any(about(each, topic) for each in all), 20.0)
        (span,) = [each for each in spans if about(each, topic)]
        assert follow_the_conventions([span], car.name)
        assert name(span) == ("edge", "process")
        assert (span.attributes["error.type"], span.attributes["messaging.mqtt.reason_code"]) == ("0x87", 0x87)
        assert span.error == "not authorized"
        assert span.attributes["messaging.client.id"] == car.name
        car.drop()

    asyncio.run(scenario())


def test_wait_in_the_journal_has_a_span(mesh: Processes, collector: Collector) -> None:
    """The edge is killed while the vehicle is disconnected; one span covers the whole wait."""

    async def scenario() -> None:
        car = await Client("sleeper", MQTT5, clean=False, expiry=600).connect(mesh.vehicles)
        await car.subscribe("vehicles/sleeper/cmd/#")
        car.drop()
        backend = await Client("waker", MQTT5).connect(mesh.backends)
        trace, _, traceparent = context()
        backend.publish("vehicles/sleeper/cmd/wake", "up", 1, [("traceparent", traceparent)])
        await backend.settled()
        owner = mesh.where("sleeper")
        await kill_and_wait(mesh, owner)
        await car.reconnect(mesh.vehicles)
        await car.until(lambda: car.received, "the command")
        wanted = ("edge", "wait")
        spans = await asyncio.to_thread(
            collector.wait, lambda all: any(name(each) == wanted for each in of(all, trace)), 20.0
        )
        (wait,) = [each for each in of(spans, trace) if name(each) == wanted]
        assert wait.duration_ns > 500_000_000, "the wait is shorter than the edge's restart"
        car.leave()
        backend.leave()

    asyncio.run(scenario())


def test_dead_collector_costs_no_message_and_no_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    port = free_port()

    async def scenario(mesh: Processes) -> None:
        car = await Client("car", MQTT5).connect(mesh.vehicles)
        await car.subscribe("vehicles/car/cmd/#")
        backend = await Client("sender", MQTT5).connect(mesh.backends)
        sizes = []
        for start in range(0, 6000, 2000):
            await backend.publish_all([("vehicles/car/cmd/x", str(number)) for number in range(start, start + 2000)])
            await car.until(lambda wanted=start + 2000: len(car.received) >= wanted, "the commands")
            sizes.append(psutil.Process(mesh.pid("core")).memory_info().rss)
        assert [int(message.payload) for message in car.received] == list(range(6000))
        assert sizes[2] - sizes[1] < 16 << 20
        car.leave()
        backend.leave()

    with Processes(tmp_path_factory.mktemp("untraced"), ["edge-1"], f"http://127.0.0.1:{port}") as mesh:
        asyncio.run(scenario(mesh))


def of(spans: list[SpanValue], trace: str) -> list[SpanValue]:
    return [span for span in spans if span.trace_id == trace]


def about(span: SpanValue, topic: str) -> bool:
    return span.attributes.get("messaging.destination.name") == topic


def follow_the_conventions(spans: Iterable[SpanValue], vehicle: str) -> bool:
    assert [wrong for span in spans for wrong in violations(span, vehicle)] == []
    return True


def check_ends(span: SpanValue, port: int) -> None:
    """The span names this listener, and this machine as its peer."""
    assert span.attributes["network.transport"] == "tcp"
    assert span.attributes["network.peer.address"] == "127.0.0.1"
    assert (span.attributes["server.address"], span.attributes["server.port"]) == ("127.0.0.1", port)


def peer(span: SpanValue) -> tuple[object, object]:
    return span.attributes["network.peer.address"], span.attributes["network.peer.port"]


def name(span: SpanValue) -> tuple[str, str]:
    return span.service.removeprefix("mesh-"), span.name.split(" ")[0]
