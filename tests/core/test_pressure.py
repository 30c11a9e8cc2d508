"""A vehicle whose queue is full at its edge, and the core that holds messages for it back."""

from __future__ import annotations

import asyncio

import pytest

from mesh.broker.records import INCOMING
from mesh.core.tier import TierLink
from mesh.version import compiled
from mesh.wire.packets import PUBACK, Ack, Publish
from tests.core.harness import PATIENCE, Edge, Mesh, Pipe
from tests.core.pressed import (
    FLIGHT,
    QUEUE,
    WINDOW,
    SlowOwners,
    codes,
    flood,
    full_vehicle,
    numbers,
    read,
    read_all,
    tick,
)


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh(1)
    mesh.owners["V2"] = "edge-1"
    settings = mesh.edges["edge-1"].settings
    settings.max_queue_messages, settings.in_flight, settings.receive_maximum = QUEUE, FLIGHT, WINDOW
    mesh.connect()
    return mesh


def test_the_publishers_wait_while_the_queue_is_full(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False), mesh.backend()
    flood(mesh, backend, 0, 100)
    assert codes(backend) == [0] * WINDOW
    status = mesh.links["edge-1"].status("")
    assert (status.held, status.pressed) == (100 - WINDOW, 1)
    assert mesh.edges["edge-1"].broker.status().pressed == 1
    assert read(mesh, vehicle) == numbers(0, 100)
    assert codes(backend) == [0] * (100 - WINDOW)
    status = mesh.links["edge-1"].status("")
    assert (status.held, status.pressed, status.refused) == (0, 0, 0)
    assert mesh.edges["edge-1"].broker.status().pressed == 0


@pytest.mark.parametrize("qos", [1, 2])
def test_messages_for_other_vehicles_pass(mesh: Mesh, qos: int) -> None:
    mesh.vehicle(1, "cmd", auto_ack=False)
    other, backend = mesh.vehicle(2, "cmd"), mesh.backend()
    flood(mesh, backend, 0, 100)
    mesh.core.client("second", "app").publish("vehicles/V2/cmd", b"pass", qos)
    mesh.run()
    assert other.messages() == [b"pass"]


def test_patience_is_spent_once(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False), mesh.backend()
    flood(mesh, backend, 0, 50)
    assert codes(backend) == [0] * WINDOW
    tick(mesh, PATIENCE - 1)
    assert codes(backend) == []
    tick(mesh, 1)
    assert codes(backend) == [0x97] * (50 - WINDOW)
    flood(mesh, backend, 50, 60)
    assert codes(backend) == [0x97] * 10
    assert read(mesh, vehicle, 10) == numbers(0, 10)  # the queue is above its low watermark
    flood(mesh, backend, 60, 61)
    assert codes(backend) == [0x97]
    assert read(mesh, vehicle) == numbers(10, WINDOW)
    flood(mesh, backend, 61, 62)
    assert codes(backend) == [0]
    assert read(mesh, vehicle) == numbers(61, 62)
    assert mesh.links["edge-1"].status("").refused == 50 - WINDOW + 11


def test_the_overshoot_of_a_queue_is_bounded(mesh: Mesh) -> None:
    """A core that does not mind the signals gets a reason code."""
    mesh.vehicle(1, "cmd", auto_ack=False)
    core = mesh.edges["edge-1"].client("deaf", "deaf", kind=2)
    for payload in numbers(0, 100):
        core.publish("vehicles/V1/cmd", payload)
    taken = FLIGHT + QUEUE + FLIGHT + 2 * WINDOW  # two cores are connected
    assert codes(core) == [0] * taken + [0x97] * (100 - taken)


def test_the_overshoot_is_bounded_in_bytes(mesh: Mesh) -> None:
    settings = mesh.edges["edge-1"].settings
    settings.max_queue_messages, settings.max_queue_bytes, settings.overshoot_bytes = 1000, 2000, 3000
    mesh.vehicle(1, "cmd", auto_ack=False)
    core = mesh.edges["edge-1"].client("deaf", "deaf", kind=2)
    for _ in range(15):
        core.publish("vehicles/V1/cmd", b"x" * (1000 - len("vehicles/V1/cmd")))
    assert codes(core) == [0] * 8 + [0x97] * 7


def test_the_queue_of_a_disconnected_vehicle_has_no_overshoot(mesh: Mesh) -> None:
    mesh.vehicle(1, "cmd", auto_ack=False, expiry=100).lose()
    backend = mesh.backend()
    flood(mesh, backend, 0, 15)
    assert codes(backend) == [0] * QUEUE + [0x97] * 5
    assert mesh.links["edge-1"].status("").pressed == 0


def test_messages_are_released_when_the_vehicle_disconnects(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False, expiry=100), mesh.backend()
    flood(mesh, backend, 0, 30)
    assert codes(backend) == [0] * WINDOW
    vehicle.lose()
    mesh.run()
    assert codes(backend) == [0x97] * 10
    assert mesh.links["edge-1"].status("").pressed == 0


def test_messages_are_released_when_the_session_ends(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False), mesh.backend()
    flood(mesh, backend, 0, 30)
    vehicle.lose()
    mesh.run()
    assert codes(backend) == [0] * WINDOW + [0x10] * 10


def test_a_core_that_connects_learns_which_queues_are_full(mesh: Mesh) -> None:
    mesh.vehicle(1, "cmd", auto_ack=False)
    flood(mesh, mesh.backend(), 0, 30)
    late = mesh.edges["edge-1"].client("late", "late", kind=2)
    greeting = late.connack().properties
    assert greeting is not None
    assert greeting.user == [("mesh-queue-signals", "1")]
    signals = [("$mesh/queue/V1", b"high"), ("$mesh/queue/", b"known")]
    assert [(packet.topic, packet.payload) for packet in late.take(Publish)] == signals


def test_a_core_that_reconnects_sends_nothing_to_a_full_queue(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False), mesh.backend()
    flood(mesh, backend, 0, 200)
    for _ in range(3):
        mesh.pipes["edge-1"].cut()
        mesh.connect("edge-1")
    assert codes(backend) == [0] * 200
    assert mesh.links["edge-1"].status("").rejected == 0
    assert read(mesh, vehicle) == numbers(0, 200)


def test_a_queue_with_one_place(mesh: Mesh) -> None:
    mesh.edges["edge-1"].settings.max_queue_messages = 1
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False), mesh.backend()
    flood(mesh, backend, 0, 200)
    assert read(mesh, vehicle) == numbers(0, 200)
    assert codes(backend) == [0] * 200


def test_the_spool_drains_into_a_small_queue(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", expiry=100), mesh.backend()
    vehicle.lose()
    mesh.kill("edge-1")
    flood(mesh, backend, 0, 300)
    assert codes(backend) == [0] * 300
    vehicle = mesh.vehicle(1, auto_ack=False, clean=False, expiry=100)
    mesh.connect("edge-1")
    flood(mesh, backend, 300, 310)
    tick(mesh, PATIENCE + 1)
    assert mesh.links["edge-1"].status("").rejected == 0
    flood(mesh, backend, 310, 311)
    assert codes(backend)[-1] == 0x97  # new messages do not wait for ever
    assert read(mesh, vehicle)[:300] == numbers(0, 300)
    assert mesh.links["edge-1"].spool.messages == 0


@pytest.mark.parametrize("acknowledged", [0, 7, 33, 70])
def test_held_messages_survive_a_lost_link_in_order(mesh: Mesh, acknowledged: int) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False, expiry=100), mesh.backend()
    flood(mesh, backend, 0, 200)
    got = read(mesh, vehicle, acknowledged)
    mesh.pipes["edge-1"].mute = True
    flood(mesh, backend, 200, 220)
    mesh.pipes["edge-1"].cut()
    mesh.run()
    assert codes(backend) == [0] * 220
    flood(mesh, backend, 220, 230)
    mesh.connect("edge-1")
    assert got + read(mesh, vehicle) == numbers(0, 230)
    assert mesh.links["edge-1"].spool.messages == 0


@pytest.mark.parametrize("acknowledged", [0, 7, 33, 70, 150])
def test_held_messages_of_the_spool_survive_a_crash_of_the_core_in_order(mesh: Mesh, acknowledged: int) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", expiry=100), mesh.backend()
    vehicle.lose()
    mesh.kill("edge-1")
    flood(mesh, backend, 0, 200)
    vehicle = mesh.vehicle(1, auto_ack=False, clean=False, expiry=100)
    mesh.connect("edge-1")
    got = read(mesh, vehicle, acknowledged)
    mesh = mesh.restart_core()
    mesh.connect()
    got += read(mesh, vehicle)
    first: list[bytes] = []
    for payload in got:  # the restarted core repeats what it does not know to be acknowledged
        if payload not in first:
            first.append(payload)
    assert first == numbers(0, 200)
    assert len(got) <= 200 + WINDOW


def test_qos_2_messages_are_held_and_arrive_once(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd", auto_ack=False), mesh.backend()
    flood(mesh, backend, 0, 30)
    flood(mesh, backend, 30, 100, qos=2)
    got = read(mesh, vehicle, 12)
    vehicle.auto_ack = True
    for packet in [packet for packet in vehicle.packets if isinstance(packet, Publish)]:
        vehicle.send(Ack(PUBACK, packet.packet_id))
    mesh.run()
    got += vehicle.messages()
    assert got == numbers(0, 100)


def test_the_publishers_of_qos_2_wait_while_the_queue_is_full(mesh: Mesh) -> None:
    vehicle, backend = full_vehicle(mesh), mesh.backend()
    flood(mesh, backend, 20, 60, qos=2)
    flood(mesh, backend, 60, 80)
    flood(mesh, backend, 80, 100, qos=2)
    assert codes(backend) == []
    assert (mesh.links["edge-1"].status("").held, mesh.links["edge-1"].spool.messages) == (80, 0)
    assert read_all(mesh, vehicle) == numbers(0, 100)
    assert codes(backend) == [0] * 80
    assert (mesh.links["edge-1"].status("").held, mesh.links["edge-1"].spool.messages) == (0, 0)


@pytest.mark.parametrize("protocol", [4, 5])
def test_patience_is_spent_for_qos_2_too(mesh: Mesh, protocol: int) -> None:
    vehicle, backend = full_vehicle(mesh), mesh.backend(protocol=protocol)
    flood(mesh, backend, 20, 50, qos=2)
    tick(mesh, PATIENCE - 1)
    assert codes(backend) == []
    tick(mesh, 1)
    flood(mesh, backend, 50, 60, qos=2)
    told = protocol == 5
    assert codes(backend) == [0x97 if told else 0] * 40
    assert len(mesh.core.broker.letters) == (0 if told else 40)
    assert read_all(mesh, vehicle) == numbers(0, 20)
    flood(mesh, backend, 60, 90, qos=2)
    assert codes(backend) == [0] * 30
    assert vehicle.messages() == numbers(60, 90)
    assert mesh.links["edge-1"].spool.messages == 0
    assert not any(one.kind == INCOMING for one in mesh.core.store.items.values())


def test_other_messages_that_wait_for_the_journal_do_not_end_the_waiting(mesh: Mesh) -> None:
    """A message of QoS 2 for another vehicle is in the spool until it is on disk: those behind it wait all the same."""
    full_vehicle(mesh)
    other, backend, second = mesh.vehicle(2, "cmd"), mesh.backend(), mesh.backend("second")
    for number in range(10):
        second.publish("vehicles/V2/cmd", b"%d" % number, 2)
        backend.publish("vehicles/V1/cmd", b"%d" % number, 1)
    mesh.run()
    assert (codes(backend), codes(second)) == ([], [0] * 10)
    assert other.messages() == numbers(0, 10)


def test_a_message_of_qos_2_waits_in_the_queue_until_the_vehicle_is_free(mesh: Mesh) -> None:
    vehicle, backend, link = full_vehicle(mesh), mesh.backend(), mesh.links["edge-1"]
    link.congested()
    flood(mesh, backend, 20, 25, qos=2)
    assert (codes(backend), link.status("").waiting) == ([], 5)
    got = read(mesh, vehicle)
    assert link.status("").pressed == 0
    flood(mesh, backend, 25, 30, qos=2)
    link.relieved()
    mesh.run()
    assert codes(backend) == [0] * 10
    assert got + read_all(mesh, vehicle) == numbers(0, 30)
    assert link.spool.messages == 0


def test_waiting_messages_of_qos_2_survive_a_lost_link_and_a_crash(mesh: Mesh) -> None:
    vehicle, backend = full_vehicle(mesh), mesh.backend()
    flood(mesh, backend, 20, 40, qos=2)
    flood(mesh, backend, 40, 50)
    mesh.pipes["edge-1"].cut()
    mesh.run()
    assert codes(backend) == [0] * 30
    mesh = mesh.restart_core()
    mesh.connect()
    assert read_all(mesh, vehicle) == numbers(0, 50)


def test_a_crash_leaves_nothing_of_a_message_of_qos_2_that_waits(mesh: Mesh) -> None:
    vehicle, backend = full_vehicle(mesh), mesh.backend(expiry=100)
    backend.publish("vehicles/V1/cmd", b"20", 2, packet_id=1)
    mesh.run()
    mesh = mesh.restart_core()
    mesh.connect()
    backend = mesh.backend(clean=False, expiry=100)
    backend.publish("vehicles/V1/cmd", b"20", 2, packet_id=1, dup=True)
    mesh.run()
    assert codes(backend) == []
    assert read_all(mesh, vehicle) == numbers(0, 21)
    assert codes(backend) == [(0)]


@pytest.mark.parametrize("refused", [False, True])
def test_the_repeat_of_a_message_of_qos_2_waits_as_the_first_one(mesh: Mesh, refused: bool) -> None:
    vehicle, backend = full_vehicle(mesh), mesh.backend(expiry=100)
    backend.publish("vehicles/V1/cmd", b"20", 2, packet_id=1)
    backend.lose()
    backend = mesh.backend(clean=False, expiry=100)
    backend.publish("vehicles/V1/cmd", b"20", 2, packet_id=1, dup=True)
    mesh.run()
    assert codes(backend) == []
    if refused:
        tick(mesh, PATIENCE)
    assert read_all(mesh, vehicle) == numbers(0, 20 if refused else 21)
    assert codes(backend) == [0]
    assert len(mesh.core.broker.letters) == int(refused)


def test_a_message_of_qos_2_that_this_core_has_kept_does_not_wait(mesh: Mesh) -> None:
    """A durable back end has it, too: after a crash the repeat must be known, so both are in the journal at once."""
    vehicle, reader = full_vehicle(mesh), mesh.backend("reader", "vehicles/+/cmd", expiry=100)
    backend = mesh.backend(expiry=100)
    flood(mesh, backend, 20, 30, qos=2)
    assert codes(backend) == [0] * 10
    assert reader.messages() == numbers(20, 30)
    assert mesh.links["edge-1"].status("").held == 10
    assert read_all(mesh, vehicle) == numbers(0, 30)


def test_a_message_of_qos_2_waits_behind_the_look_up_of_its_owner(mesh: Mesh) -> None:
    async def run() -> None:
        vehicle, backend = full_vehicle(mesh), mesh.backend()
        slow = SlowOwners()
        mesh.router._owners = slow
        flood(mesh, backend, 20, 25, qos=2)
        slow.answer.set()
        async with asyncio.timeout(5):
            while mesh.router._pending_count:
                await asyncio.sleep(0)
        mesh.run()
        assert (codes(backend), mesh.links["edge-1"].status("").held) == ([], 5)
        assert not any(one.kind == INCOMING for one in mesh.core.store.items.values())
        assert read_all(mesh, vehicle) == numbers(0, 25)
        assert codes(backend) == [0] * 5

    asyncio.run(run())


def test_messages_of_qos_0_are_dropped_at_a_full_vehicle(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    vehicle, backend = full_vehicle(mesh), mesh.backend()
    flood(mesh, backend, 20, 120, qos=0)
    assert mesh.edges["edge-1"].broker.counters.dropped_full == 100
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("a message on 'vehicles/V1/cmd' is dropped: a queue or table is full") == 5  # in a second
    assert read_all(mesh, vehicle) == numbers(0, 20)
    assert mesh.links["edge-1"].status("").held == 0


@pytest.mark.parametrize("topic", ["$mesh/queue/V1", "$mesh/x"])
def test_clients_cannot_send_signals(mesh: Mesh, topic: str) -> None:
    backend = mesh.backend()
    backend.publish(topic)
    mesh.run()
    assert codes(backend) == [0x87]
    assert mesh.links["edge-1"].status("").pressed == 0


@pytest.mark.parametrize("expiry", [0, 100])
def test_an_edge_waits_while_a_back_end_is_behind(mesh: Mesh, expiry: int) -> None:
    mesh.core.settings.in_flight = 8
    reader = mesh.backend("reader", "vehicles/+/status", auto_ack=False, expiry=expiry)
    vehicle = mesh.vehicle(1)
    sent = answered = 0
    while sent - answered < WINDOW:
        vehicle.publish("vehicles/V1/status")
        mesh.run()
        sent += 1
        answered += len(codes(vehicle))
    assert 130 < answered < 150  # a window at each node, and what makes it behind
    while read(mesh, reader, 50):
        pass
    assert answered + len(codes(vehicle)) == sent


def test_a_slow_back_end_delays_others_once(mesh: Mesh) -> None:
    mesh.core.settings.in_flight = 8
    mesh.backend("slow", "vehicles/+/status", auto_ack=False)
    reader, vehicle = mesh.backend("reader", "vehicles/+/status"), mesh.vehicle(1)
    sent = answered = 0
    while sent - answered < WINDOW:
        vehicle.publish("vehicles/V1/status")
        mesh.run()
        sent += 1
        answered += len(codes(vehicle))
    assert len(reader.messages()) < sent
    mesh.clock.now += PATIENCE
    mesh.run()
    assert answered + len(codes(vehicle)) == sent
    for _ in range(100):
        vehicle.publish("vehicles/V1/status")
        mesh.run()
        assert codes(vehicle) == [0]


def test_the_bytes_in_flight_to_an_edge_are_bounded(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd"), mesh.backend()
    mesh.edges["edge-1"].settings.receive_maximum = 1000
    mesh.pipes["edge-1"].cut()
    mesh.connect("edge-1")
    link, pipe = mesh.links["edge-1"], mesh.pipes["edge-1"]
    pipe.deaf = True  # the core gets no acknowledgement
    for number in range(100):
        backend.publish("vehicles/V1/cmd", b"%d " % number + b"x" * (1 << 19))
    mesh.run()
    assert link.status("").in_flight == 32
    assert link.status("").waiting == 68
    got = vehicle.messages()
    mesh.kill("edge-1")
    vehicle = mesh.vehicle(1, "cmd")
    mesh.connect("edge-1")
    got += vehicle.messages()
    assert [payload.split()[0] for payload in got] == numbers(0, 100)
    assert mesh.links["edge-1"].status("").waiting == 0


def test_messages_wait_while_the_edge_does_not_read(mesh: Mesh) -> None:
    vehicle, backend = mesh.vehicle(1, "cmd"), mesh.backend()
    link = mesh.links["edge-1"]
    link.congested()
    flood(mesh, backend, 0, 5)
    backend.publish("vehicles/V1/cmd", b"dropped", 0)
    assert (link.status("").waiting, codes(backend)) == (5, [])
    assert mesh.core.broker.counters.dropped_full == 1
    link.relieved()
    mesh.run()
    assert vehicle.messages() == numbers(0, 5)
    assert codes(backend) == [0] * 5


@pytest.mark.skipif(compiled(), reason="a constant of a compiled module cannot be changed")
def test_after_a_large_gap_in_the_numbers_a_copy_is_sent_rather_than_nothing(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edge's ledger could take the repeat of a message behind the gap for one that it has."""
    monkeypatch.setattr("mesh.core.downstream._GAP", 10)
    mesh.vehicle(1, "cmd", auto_ack=False)
    other, backend = mesh.vehicle(2, "cmd"), mesh.backend()
    flood(mesh, backend, 0, 50)
    mesh.pipes["edge-1"].deaf = True
    mesh.core.client("second", "app").publish("vehicles/V2/cmd", b"twice")
    mesh.run()
    mesh.pipes["edge-1"].cut()
    mesh.connect("edge-1")
    assert other.messages() == [b"twice", b"twice"]


class DeafPipe(Pipe):
    """The core gets nothing after CONNACK."""

    def established(self) -> None:
        super().established()
        self.deaf = True


class DeafMesh(Mesh):
    """``lossy``: no acknowledgement of the edge reaches the core."""

    lossy = False

    def pipe(self, link: TierLink, edge: Edge) -> Pipe:
        return (DeafPipe if self.lossy else Pipe)(link, edge)

    def reconnect(self, lossy: bool) -> None:
        self.pipes["edge-1"].cut()
        self.lossy = lossy
        self.connect("edge-1")


@pytest.fixture
def gaps(monkeypatch: pytest.MonkeyPatch) -> DeafMesh:
    monkeypatch.setattr("mesh.core.downstream._GAP", 10)
    mesh = DeafMesh(1)
    mesh.owners["V2"] = "edge-1"
    settings = mesh.edges["edge-1"].settings
    settings.max_queue_messages, settings.in_flight, settings.receive_maximum = QUEUE, FLIGHT, WINDOW
    mesh.connect()
    return mesh


@pytest.mark.skipif(compiled(), reason="a constant of a compiled module cannot be changed")
def test_numbers_of_qos_2_are_a_gap_for_the_ledger(gaps: DeafMesh) -> None:
    one, backend = gaps.vehicle(1, "cmd"), gaps.backend()
    flood(gaps, backend, 0, 20, qos=2)
    assert len(one.messages()) == 20
    other = gaps.vehicle(2, "cmd")
    gaps.pipes["edge-1"].deaf = True
    flood(gaps, backend, 0, 1, "V2")
    gaps.reconnect(lossy=False)
    assert other.messages() == [b"0", b"0"]


@pytest.mark.skipif(compiled(), reason="a constant of a compiled module cannot be changed")
def test_a_gap_counts_until_the_message_behind_it_is_acknowledged(gaps: DeafMesh) -> None:
    gaps.vehicle(1, "cmd", auto_ack=False)
    other, backend = gaps.vehicle(2, "cmd"), gaps.backend()
    flood(gaps, backend, 0, 50)
    tick(gaps, PATIENCE)
    gaps.reconnect(lossy=False)  # nothing was sent behind the gap
    gaps.pipes["edge-1"].deaf = True
    flood(gaps, gaps.core.client("second", "app"), 0, 1, "V2")
    assert other.messages() == [b"0"]
    gaps.reconnect(lossy=True)
    assert other.messages() == [b"0"]
    gaps.reconnect(lossy=False)
    assert other.messages() == [b"0"]
    gaps.reconnect(lossy=False)
    assert other.messages() == []
