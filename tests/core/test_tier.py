"""The tier link between a core's broker and edges' brokers, with a pipe of bytes in place of the socket."""

from __future__ import annotations

import asyncio

import pytest

from mesh.broker.principal import BACKEND, TIER
from mesh.broker.trace import PROCESS, PRODUCER, RELAY, SEND, SPOOL, WAIT
from mesh.core.kinds import SPOOLED
from mesh.wire.packets import Ack, Publish, Subscribe, Subscription, Will
from tests.core.harness import EDGE, Mesh, acks, filters
from tests.fakes.tracer import KeepingTracer
from tests.support.shows import shows


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh()
    mesh.connect()
    return mesh


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_command_reaches_the_one_edge_that_owns_the_vehicle(mesh: Mesh, qos: int) -> None:
    vehicle, other = mesh.vehicle(1, "cmd"), mesh.vehicle(2, "cmd")
    backend = mesh.backend()
    backend.publish("vehicles/V1/cmd", b"go", qos)
    mesh.run()
    assert vehicle.messages() == [b"go"]
    assert other.messages() == []
    assert [reason for _, reason in acks(backend)] == ([0] if qos else [])


def test_the_core_answers_with_the_reason_code_of_the_edge(mesh: Mesh) -> None:
    backend = mesh.backend()
    backend.publish("vehicles/V1/cmd")
    assert acks(backend) == []
    mesh.run()
    assert acks(backend) == [(1, 0x10)]


def test_a_fleet_wide_topic_goes_to_every_edge(mesh: Mesh) -> None:
    backend = mesh.backend()
    for number in (1, 2):
        watcher = mesh.edges[f"edge-{number}"].client("w", "watch", TIER)
        watcher.send(Subscribe(1, [Subscription("$share/x/fleet/#", 1)]))
    before = sent(mesh)
    backend.publish("fleet/news")
    mesh.run()
    assert sent(mesh) == {edge: count + 1 for edge, count in before.items()}


def sent(mesh: Mesh) -> dict[str, int]:
    """How many messages each edge was sent."""
    return {edge: link.status("").sent for edge, link in mesh.links.items()}


@pytest.mark.parametrize(("topic", "edges"), [("fleet/news", 2), ("vehicles/V1/cmd", 1)])
def test_deliveries_to_several_edges_have_links_to_the_message(topic: str, edges: int) -> None:
    tracer = KeepingTracer()
    mesh = Mesh(tracer=tracer)
    mesh.connect()
    mesh.backend().publish(topic)
    mesh.run()
    [received] = tracer.of(PROCESS)
    relays = tracer.of(RELAY)
    assert [relay.parent for relay in relays] == [received.context] * edges
    assert [relay.link for relay in relays] == [received.context if edges > 1 else None] * edges


def test_the_spans_of_a_link_name_its_two_ends() -> None:
    tracer = KeepingTracer()
    mesh = Mesh(tracer=tracer)
    mesh.connect()
    vehicle, _ = mesh.vehicle(1, "cmd"), mesh.backend("reader", "vehicles/+/status")
    mesh.backend().publish("vehicles/V1/cmd")
    mesh.run()
    vehicle.publish("vehicles/V1/status")
    mesh.run()
    [relay] = tracer.of(RELAY)
    assert (relay.client, relay.peer, relay.kind, relay.reasons) == ("core", EDGE, PRODUCER, [0])
    command, report = tracer.of(PROCESS)
    assert (command.client, command.topic, command.reasons) == ("app", "vehicles/V1/cmd", [0])
    assert (report.client, report.peer, report.reasons) == ("core", EDGE, [0])
    [send] = tracer.of(SEND)
    assert (send.client, send.parent) == ("reader", tracer.of(WAIT)[0].context)


def test_a_message_that_waits_for_its_edge_has_a_spool_span() -> None:
    tracer = KeepingTracer()
    mesh = Mesh(tracer=tracer)
    mesh.backend().publish("vehicles/V1/cmd")
    mesh.run()
    mesh.connect()
    [process], [spool], [relay] = tracer.of(PROCESS), tracer.of(SPOOL), tracer.of(RELAY)
    assert (spool.client, spool.parent, relay.parent) == ("core", process.context, spool.context)


def test_every_span_ends_when_the_edge_is_lost() -> None:
    tracer = KeepingTracer()
    mesh = Mesh(tracer=tracer)
    mesh.connect()
    mesh.backend("reader", "vehicles/+/status", expiry=100)
    mesh.pipes["edge-1"].mute = True
    mesh.backend().publish("vehicles/V1/cmd")
    mesh.run()
    mesh.pipes["edge-1"].mute = False
    mesh.vehicle(1).publish("vehicles/V1/status")
    mesh.edges["edge-1"].turn()  # the core has the report; its answer waits for the core's journal
    report = tracer.of(PROCESS)[1]
    assert report.reasons == []
    mesh.pipes["edge-1"].cut()
    assert report.reasons == [0x80]
    assert tracer.of(RELAY)[0].reasons == [0x88]


def test_a_message_between_back_ends_reaches_no_edge(mesh: Mesh) -> None:
    reader = mesh.core.client("r", "reader")
    reader.send(Subscribe(1, [Subscription("orders/#", 1)]))
    mesh.run()
    sender, before = mesh.core.client("s", "sender"), sent(mesh)
    sender.publish("orders/1", b"new")
    mesh.run()
    assert reader.messages() == [b"new"]
    assert sent(mesh) == before


def test_reports_reach_each_back_end_and_each_shared_group_once(mesh: Mesh) -> None:
    everything = mesh.backend("all", "vehicles/+/status", "vehicles/#")
    group = [mesh.backend(f"g{number}", "$share/g/vehicles/+/status") for number in range(3)]
    vehicles = [mesh.vehicle(1), mesh.vehicle(2)]
    expected = []
    for number in range(6):
        for vehicle in vehicles:
            payload = f"{vehicle.principal.name} {number}".encode()
            vehicle.publish(f"vehicles/{vehicle.principal.name}/status", payload)
            expected.append(payload)
            mesh.run()
    assert sorted(everything.messages()) == sorted(expected)
    shares = [member.messages() for member in group]
    assert sorted(payload for share in shares for payload in share) == sorted(expected)
    assert all(shares)


def test_a_reconnected_edge_gets_its_spooled_messages_in_order(mesh: Mesh) -> None:
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    backend = mesh.backend()
    vehicle.lose()
    mesh.kill("edge-1")
    for number in range(50):
        backend.publish("vehicles/V1/cmd", b"%d" % number)
    mesh.run()
    assert [reason for _, reason in acks(backend)] == [0] * 50
    assert mesh.links["edge-1"].spool.messages == 50
    mesh.connect("edge-1")
    backend.publish("vehicles/V1/cmd", b"50")
    mesh.run()
    assert mesh.links["edge-1"].spool.messages == 0
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"%d" % number for number in range(51)]
    assert [item for item in mesh.core.store.items.values() if item.kind == SPOOLED] == []


@shows(v3="7.0.0-1")
def test_unanswered_messages_of_a_dead_edge_are_spooled_and_sent_again(mesh: Mesh) -> None:
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    vehicle.lose()
    backend = mesh.backend()
    mesh.pipes["edge-1"].mute = True
    for number in range(5):
        backend.publish("vehicles/V1/cmd", b"%d" % number)
    mesh.run()
    assert acks(backend) == []
    mesh.kill("edge-1")
    assert [reason for _, reason in acks(backend)] == [0] * 5
    mesh.connect("edge-1")
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"%d" % number for number in range(5)]


def test_messages_for_an_edge_that_answers_late_are_spooled(mesh: Mesh) -> None:
    backend = mesh.backend()
    mesh.pipes["edge-1"].mute = True
    backend.publish("vehicles/V1/cmd")
    mesh.run()
    assert acks(backend) == []
    mesh.clock.now += 6
    mesh.links["edge-1"].tick()
    mesh.run()
    assert acks(backend) == [(1, 0)]
    backend.publish("vehicles/V1/cmd")
    mesh.run()
    assert acks(backend) == [(2, 0)]  # spooled at once


def test_a_silent_edge_is_disconnected(mesh: Mesh) -> None:
    mesh.pipes["edge-1"].mute = True
    mesh.clock.now += 16
    mesh.links["edge-1"].tick()
    assert not mesh.links["edge-1"].up


def test_a_core_that_only_receives_is_not_disconnected(mesh: Mesh) -> None:
    """Messages of QoS 0 are not answered, and an edge closes a client that sends nothing [MQTT-3.1.2-22]."""
    mesh.backend("app", "vehicles/#")
    vehicle = mesh.vehicle(1)
    quiet = mesh.edges["edge-1"].broker.counters.received
    for _ in range(10):
        mesh.clock.now += 1
        vehicle.publish("vehicles/V1/status", b"x", 0)
        for link in mesh.links.values():
            link.tick()
        mesh.run()
    heard = mesh.edges["edge-1"].broker.counters.received - quiet - 10
    assert heard >= 1


def test_a_message_too_large_for_the_edge_is_refused_and_blocks_no_other() -> None:
    mesh = Mesh(1)
    mesh.edges["edge-1"].settings.tier_packet = 100
    mesh.connect()
    vehicle, backend = mesh.vehicle(1, "cmd"), mesh.backend()
    backend.publish("vehicles/V1/cmd", b"x" * 200)
    backend.publish("vehicles/V1/cmd", b"x" * 200, 2)
    backend.publish("vehicles/V1/cmd", b"short")
    mesh.run()
    assert vehicle.messages() == [b"short"]
    assert acks(backend) == [(1, 0x97), (2, 0), (3, 0)]  # QoS 2 is spooled first, and then answered
    assert mesh.links["edge-1"].spool.messages == 0
    assert mesh.core.broker.counters.dropped_large == 2


def test_a_core_may_send_larger_packets_than_a_client() -> None:
    mesh = Mesh(1)
    mesh.edges["edge-1"].settings.max_packet = 100
    mesh.connect()
    vehicle, backend = mesh.vehicle(1, "cmd"), mesh.backend()
    backend.publish("vehicles/V1/cmd", b"x" * 200)
    mesh.run()
    assert acks(backend) == [(1, 0)]
    assert vehicle.messages() == [b"x" * 200]


def test_a_repeated_qos_2_message_is_answered_when_the_first_is_durable(mesh: Mesh) -> None:
    mesh.backend("app", "vehicles/+/status", expiry=100).lose()
    mesh.core.auto = False
    vehicle = mesh.vehicle(1)
    vehicle.publish("vehicles/V1/status", b"once", 2)
    mesh.run()
    mesh.pipes["edge-1"].cut()
    mesh.connect("edge-1")  # the edge sends it again; the core's disk has neither copy
    mesh = mesh.restart_core()
    mesh.connect()
    assert mesh.core.client("app", "app", BACKEND, clean=False, expiry=100).messages() == [b"once"]


def test_the_spool_survives_a_crash_of_the_core(mesh: Mesh) -> None:
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    vehicle.lose()
    backend = mesh.backend()
    mesh.kill("edge-1")
    for number in range(10):
        backend.publish("vehicles/V1/cmd", b"%d" % number, 1 + number % 2)
    mesh.run()
    mesh = mesh.restart_core()
    mesh.connect()
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"%d" % number for number in range(10)]


@shows(v3="7.0.0-1")
@pytest.mark.parametrize("killed", ["edge", "core"])
@pytest.mark.parametrize("turns", range(1, 9))
def test_qos_2_downstream_is_exactly_once_when_a_node_dies(killed: str, turns: int) -> None:
    mesh = Mesh()
    mesh.connect()
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    vehicle.lose()
    backend = mesh.backend(expiry=100)
    mesh.core.broker.receive(backend.connection, Publish("vehicles/V1/cmd", b"once", 2, packet_id=1))
    for step in range(turns):  # the two nodes take turns
        if step % 2 == 0:
            mesh.core.turn()
            mesh.links["edge-1"].advance()
            mesh.links["edge-1"].flush()
        else:
            mesh.edges["edge-1"].turn()
    if killed == "edge":
        mesh.kill("edge-1")
        mesh.connect("edge-1")
    else:
        answered = any(ack.type == 5 for ack in backend.take(Ack))
        mesh = mesh.restart_core()
        mesh.connect()
        backend = mesh.core.client("app", "app", BACKEND, clean=False, expiry=100)
        if not answered:
            backend.publish("vehicles/V1/cmd", b"once", 2, packet_id=1, dup=True)
    mesh.run()
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"once"]


def test_a_full_queue_of_one_back_end_does_not_affect_others() -> None:
    mesh = Mesh()
    mesh.core.settings.backend_queue_messages = 2
    mesh.connect()
    mesh.backend("away", "vehicles/+/status", expiry=100).lose()
    vehicle = mesh.vehicle(1)
    for number in range(4):
        vehicle.publish("vehicles/V1/status", b"%d" % number, 2)
        mesh.run()
    assert [ack.reason for ack in vehicle.take(Ack) if ack.type == 5] == [0] * 4
    reader = mesh.backend("reader", "vehicles/+/status")
    mesh.kill("edge-1")  # its identifiers start again
    mesh.connect("edge-1")
    vehicle = mesh.vehicle(1)
    for number in range(4, 8):
        vehicle.publish("vehicles/V1/status", b"%d" % number, 2)
        mesh.run()
    assert reader.messages() == [b"4", b"5", b"6", b"7"]
    assert len(mesh.core.broker.letters) == 6


def test_edges_drop_filters_without_a_subscriber(mesh: Mesh) -> None:
    backend = mesh.backend("app", "vehicles/+/status", "$share/g/vehicles/#")
    assert [len(edge.broker.subscriptions) for edge in mesh.edges.values()] == [3, 3]
    backend.lose()
    mesh.run()
    assert [len(filters(edge)) for edge in mesh.edges.values()] == [0, 0]


def test_a_restarted_core_restores_the_filters_of_durable_back_ends(mesh: Mesh) -> None:
    mesh.backend("keep", "vehicles/+/status", expiry=100)
    mesh.backend("leave", "vehicles/+/other")
    mesh = mesh.restart_core()
    vehicle = mesh.vehicle(1)
    vehicle.publish("vehicles/V1/status", b"while away")
    mesh.connect()
    assert [filters(edge) for edge in mesh.edges.values()] == [["vehicles/+/status"]] * 2
    assert mesh.core.client("keep", "app", BACKEND, clean=False, expiry=100).messages() == [b"while away"]


def test_later_subscribers_get_retained_reports(mesh: Mesh) -> None:
    mesh.vehicle(1).publish("vehicles/V1/status", b"parked", retain=True)
    first = mesh.backend("one", "vehicles/+/status")
    assert first.messages() == [b"parked"]
    assert mesh.backend("two", "vehicles/#").messages() == [b"parked"]


def test_a_publish_whose_owner_look_up_fails_gets_a_reason_code(mesh: Mesh) -> None:
    async def scenario() -> None:
        backend = mesh.backend()
        backend.publish("vehicles/V9/cmd")
        backend.publish("vehicles/V1/cmd")
        mesh.run()
        assert acks(backend) == []
        for _ in range(5):
            await asyncio.sleep(0)
        mesh.run()
        assert acks(backend) == [(1, 0x83), (2, 0x10)]

    asyncio.run(scenario())


def test_a_will_survives_a_lost_link_and_a_crash_of_the_core(mesh: Mesh) -> None:
    """It has no publisher that would send it again."""
    vehicle = mesh.vehicle(1, "cmd")
    mesh.pipes["edge-1"].mute = True
    mesh.core.client("dying", "app", BACKEND, will=Will("vehicles/V1/cmd", b"will", 1)).lose()
    mesh.run()
    mesh.pipes["edge-1"].cut()
    mesh.run()
    mesh = mesh.restart_core()
    mesh.connect()
    assert vehicle.messages() == [b"will"]


def test_messages_are_sent_directly_after_a_will_that_was_repeated(mesh: Mesh) -> None:
    vehicle = mesh.vehicle(1, "cmd")
    mesh.pipes["edge-1"].mute = True
    mesh.core.client("dying", "app", BACKEND, will=Will("vehicles/V1/cmd", b"will", 1)).lose()
    mesh.run()
    mesh.pipes["edge-1"].cut()
    mesh.connect("edge-1")
    spooled = mesh.links["edge-1"].status("").spooled
    mesh.backend().publish("vehicles/V1/cmd", b"next")
    mesh.run()
    assert vehicle.messages() == [b"will", b"next"]
    assert mesh.links["edge-1"].status("").spooled == spooled
