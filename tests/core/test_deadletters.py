"""Dead letters of a core: refusals of its edges, its spool, its back ends, and the letters that it collects."""

from __future__ import annotations

import pytest

from mesh.broker.letter import ALL, PREFIX
from mesh.broker.settings import HOLD
from mesh.wire.packets import Publish
from tests.core.harness import Mesh, Pipe, acks
from tests.support.bench import Bench, Client, subscribe
from tests.support.items import owned_items


@pytest.fixture
def mesh() -> Mesh:
    made = Mesh()
    for edge in made.edges.values():
        edge.settings.max_queue_messages = 2
    made.connect()
    made.vehicle(1, "cmd", expiry=100).lose()
    return made


def kept(bench: Bench) -> list[tuple[str, bytes]]:
    letters = bench.broker.letters
    return [(one.share, letters.load(one).payload) for one in letters.queue.after(0, 100_000)]


def send(mesh: Mesh, client: Client, count: int, qos: int = 1, first: int = 0) -> None:
    for number in range(first, first + count):
        client.publish("vehicles/V1/cmd", b"%d" % number, qos)
        mesh.run()


def spooled(mesh: Mesh) -> int:
    return mesh.links["edge-1"].spool.messages


def test_a_command_of_a_3_1_1_back_end_to_a_full_vehicle_is_kept(mesh: Mesh) -> None:
    sender = mesh.backend("old", protocol=4)
    send(mesh, sender, 5)
    assert not sender.closed
    assert acks(sender) == [(number, 0) for number in range(1, 6)]
    assert kept(mesh.core) == [("vehicle/V1", payload) for payload in (b"2", b"3", b"4")]
    again = mesh.restart_core()
    assert len(kept(again.core)) == 3
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"0", b"1"]


def test_the_answer_waits_until_the_letter_is_durable(mesh: Mesh) -> None:
    sender = mesh.backend("old", protocol=4)
    send(mesh, sender, 2)
    acks(sender)
    mesh.core.auto = False
    sender.publish("vehicles/V1/cmd", b"2")
    mesh.run()
    assert acks(sender) == []
    assert len(kept(mesh.core)) == 1
    assert kept(Bench(store=mesh.core.store.crash())) == []
    mesh.core.turn(commit=True)
    assert acks(sender) == [(3, 0)]


def test_a_5_0_back_end_is_told(mesh: Mesh) -> None:
    sender = mesh.backend("new")
    send(mesh, sender, 3)
    assert acks(sender) == [(1, 0), (2, 0), (3, 0x97)]
    assert kept(mesh.core) == []


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_the_spool_drains_into_a_full_queue_is_kept(mesh: Mesh, protocol: int, qos: int) -> None:
    mesh.pipes["edge-1"].cut()
    sender = mesh.backend("s", protocol=protocol)
    send(mesh, sender, 5, qos)
    assert acks(sender) == [(number, 0) for number in range(1, 6)]
    mesh.connect("edge-1")
    assert spooled(mesh) == 0
    assert kept(mesh.core) == [("vehicle/V1", payload) for payload in (b"2", b"3", b"4")]
    assert len(kept(mesh.restart_core().core)) == 3
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"0", b"1"]


def test_with_hold_refused_messages_stay_in_the_spool_until_there_is_room(mesh: Mesh) -> None:
    settings = mesh.core.settings
    settings.dead_letter_when_full = HOLD
    settings.dead_letter_share = 1300  # two letters
    mesh.pipes["edge-1"].cut()
    sender = mesh.backend("s")
    send(mesh, sender, 6)
    mesh.connect("edge-1")
    assert (len(kept(mesh.core)), spooled(mesh)) == (2, 2)
    reader = mesh.backend("reader", f"{PREFIX}#", expiry=100)
    for _ in range(3):
        mesh.links["edge-1"].tick()
        mesh.run()
    assert reader.messages() == [b"2", b"3", b"4", b"5"]
    assert (kept(mesh.core), spooled(mesh)) == ([], 0)


def test_a_full_spool_does_not_close_a_3_1_1_back_end() -> None:
    mesh = Mesh()
    mesh.links["edge-1"].spool.max_messages = 1
    sender = mesh.backend("old", protocol=4)
    send(mesh, sender, 3)
    assert not sender.closed
    assert acks(sender) == [(1, 0), (2, 0), (3, 0)]
    assert kept(mesh.core) == [("vehicle/V1", b"1"), ("vehicle/V1", b"2")]


def test_a_qos_2_message_that_the_spool_refuses_leaves_no_identifier_open() -> None:
    """Its publisher uses the identifier again, and the next message must not count as a repeat."""
    mesh = Mesh()
    mesh.links["edge-1"].spool.max_messages = 1
    sender = mesh.backend("new", expiry=100)
    for number in (1, 2):
        sender.publish("vehicles/V1/cmd", b"%d" % number, 2, packet_id=number)
    assert acks(sender) == [(1, 0), (2, 0x97)]
    mesh.connect()
    vehicle = mesh.vehicle(1, "cmd")
    sender.publish("vehicles/V1/cmd", b"3", 2, packet_id=2)
    mesh.run()
    assert acks(sender) == [(2, 0)]
    assert vehicle.messages() == [b"3"]


def test_a_full_back_end_is_no_reason_for_an_edge_to_drop_reports() -> None:
    mesh = Mesh()
    mesh.core.settings.backend_queue_messages = 2
    mesh.connect()
    mesh.backend("away", "vehicles/+/status", expiry=100).lose()
    vehicle = mesh.vehicle(1)
    for number in range(5):
        vehicle.publish("vehicles/V1/status", b"%d" % number, 1 + number % 2)
        mesh.run()
    assert [payload for _, payload in kept(mesh.core)] == [b"2", b"3", b"4"]
    assert {share for share, _ in kept(mesh.core)} == {"backend/app/away"}
    assert all(kept(edge) == [] for edge in mesh.edges.values())


def test_cores_collect_the_letters_of_edges(mesh: Mesh) -> None:
    edge = mesh.edges["edge-1"]
    edge.settings.tier_queue_messages = 1
    mesh.backend("follows", "vehicles/+/status", expiry=100)
    mesh.pipes["edge-1"].cut()
    vehicle = mesh.vehicle(1, protocol=4)
    for number in range(4):
        vehicle.publish("vehicles/V1/status", b"%d" % number)
    assert not vehicle.closed
    assert len(kept(edge)) == 3
    mesh.connect("edge-1")
    assert kept(edge) == []
    assert kept(mesh.core) == [("vehicle/V1", b"%d" % number) for number in range(1, 4)]
    reader = mesh.backend("reader", ALL, expiry=100)
    assert [packet.topic for packet in reader.take(Publish)] == [f"{PREFIX}vehicles/V1/status"] * 3
    assert owned_items(edge.broker) == set(edge.store.items)


@pytest.mark.parametrize("killed", ["edge", "core"])
@pytest.mark.parametrize("turns", range(5))
def test_a_letter_survives_a_crash_while_it_is_collected(mesh: Mesh, killed: str, turns: int) -> None:
    edge = mesh.edges["edge-1"]
    edge.settings.tier_queue_messages = 1
    mesh.backend("follows", "vehicles/+/status", expiry=100)
    mesh.pipes["edge-1"].cut()
    vehicle = mesh.vehicle(1, protocol=4)
    for number in range(4):
        vehicle.publish("vehicles/V1/status", b"%d" % number)
    mesh.pipes["edge-1"] = Pipe(mesh.links["edge-1"], edge)
    for _ in range(turns):
        mesh.core.turn()
        mesh.links["edge-1"].advance()
        mesh.links["edge-1"].flush()
        edge.turn()
    if killed == "edge":
        mesh.kill("edge-1")
        mesh.connect("edge-1")
    else:
        mesh = mesh.restart_core()
        mesh.connect()
    found = {payload for _, payload in kept(mesh.core)} | {payload for _, payload in kept(mesh.edges["edge-1"])}
    assert found == {b"1", b"2", b"3"}


def test_a_core_without_room_leaves_letters_at_the_edge(mesh: Mesh) -> None:
    mesh.core.settings.dead_letter_when_full = HOLD
    mesh.core.settings.dead_letter_share = 1200
    edge = mesh.edges["edge-1"]
    edge.settings.tier_queue_messages = 1
    mesh.backend("follows", "vehicles/+/status", expiry=100)
    mesh.pipes["edge-1"].cut()
    vehicle = mesh.vehicle(1, protocol=4)
    for number in range(4):
        vehicle.publish("vehicles/V1/status", b"%d" % number)
    mesh.connect("edge-1")
    assert (len(kept(mesh.core)), len(kept(edge))) == (2, 1)
    reader = mesh.backend("reader", expiry=100)
    subscribe(reader, ALL)
    mesh.run()
    mesh.clock.now += 11
    mesh.run()
    assert reader.messages() == [b"1", b"2", b"3"]
    assert kept(edge) == []
