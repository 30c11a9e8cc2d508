"""The budgets of a node: what counts, what is refused near the limit, and that nothing kept is lost."""

from __future__ import annotations

from mesh.broker.principal import VEHICLE
from mesh.broker.quotas import SMALL
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, Ack, Publish, Unsubscribe, Will
from mesh.wire.properties import Properties
from tests.broker.quota_bench import BIG, answers, core, edge, strained, vehicle
from tests.support.bench import Bench, Client, subscribe


def fill(bench: Bench, offender: Client, *, memory: int) -> None:
    """Subscribe until the budget is used up to nine tenths."""
    number = 0
    while not bench.broker.quotas.strained:
        number += 1
        assert subscribe(offender, f"vehicles/V9/{number}" + "x" * 5000) == [1]
        assert bench.broker.quotas.memory() < memory


def test_at_nine_tenths_of_the_memory_new_load_is_refused_and_the_offender_is_named() -> None:
    bench = strained(memory=1 << 20)
    offender = vehicle(bench, "V9")
    fill(bench, offender, memory=1 << 20)
    bench.broker.tick()
    client = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(client, Client)
    assert vehicle(bench, "V2").connack().reason == reasons.SERVER_BUSY
    assert vehicle(bench, "V2", protocol=4, clean=False).connack().reason == reasons.REFUSED_UNAVAILABLE
    assert subscribe(client, "vehicles/V1/more", "vehicles/V1/#") == [reasons.QUOTA_EXCEEDED, 1]
    client.publish("vehicles/V1/state", b"1", retain=True)
    assert answers(client) == [reasons.QUOTA_EXCEEDED]
    status = bench.broker.status().quotas
    assert status.strained
    assert "vehicle 'V9' holds the most" in status.strain
    assert any("vehicle 'V9' holds the most" in line for line in bench.broker.quotas.take_lines())
    assert (status.refused_sessions, status.refused_subscriptions, status.refused_retained) == (2, 1, 1)


def test_while_the_node_is_strained_a_vehicle_that_takes_its_messages_notices_nothing() -> None:
    bench = strained(memory=1 << 20)
    fill(bench, vehicle(bench, "V9"), memory=1 << 20)
    client = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(client, Client)
    sender = core(bench)  # a core may connect and subscribe
    assert sender.connack().reason == 0
    assert subscribe(sender, "vehicles/+/state") == [1]
    for payload in (b"1", BIG, b"2"):
        sender.publish("vehicles/V1/cmd", payload)
    client.publish("vehicles/V1/state", b"here")
    assert client.messages() == [b"1", BIG, b"2", b"here"]
    assert sender.messages() == [b"here"]
    assert answers(sender) == [0, 0, 0]
    for clean in (False, True):
        assert vehicle(bench, clean=clean).connack().reason == 0


def test_a_long_queue_grows_no_more_while_the_node_is_strained_and_nothing_kept_is_lost() -> None:
    bench = strained(memory=1 << 20)
    sleeper = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(sleeper, Client)
    sleeper.lose()
    sender = core(bench)
    sender.publish("vehicles/V1/cmd", b"a" * SMALL)
    fill(bench, vehicle(bench, "V9"), memory=1 << 20)
    sender.publish("vehicles/V1/cmd", b"b")
    assert answers(sender) == [0, reasons.QUOTA_EXCEEDED]
    bench = bench.restart()
    assert vehicle(bench, clean=False).messages() == [b"a" * SMALL]


def test_below_eight_tenths_new_load_is_accepted_again() -> None:
    bench = strained(memory=1 << 20)
    offender = vehicle(bench, "V9")
    fill(bench, offender, memory=1 << 20)
    assert vehicle(bench, "V2").connack().reason == reasons.SERVER_BUSY
    filters = list(bench.broker.sessions.get((VEHICLE, "V9", "c")).interests)  # type: ignore[union-attr]
    offender.send(Unsubscribe(9, filters[: len(filters) // 3]))
    assert vehicle(bench, "V2").connack().reason == 0
    assert any("accepted again" in line for line in bench.broker.quotas.take_lines())


def test_recovery_accepts_what_is_above_the_budget() -> None:
    bench = edge()
    for number in range(50):
        client = vehicle(bench, f"V{number}")
        subscribe(client, f"vehicles/V{number}/#")
        client.publish(f"vehicles/V{number}/state", b"1", retain=True)
        client.lose()
    bench.settings.memory = 10_000
    bench = bench.restart()
    bench.turn()
    assert bench.broker.quotas.full
    assert (len(bench.broker.sessions), len(bench.broker.subscriptions), len(bench.broker.retained)) == (50, 50, 50)
    assert vehicle(bench, "V7", clean=False).connack().session_present
    assert vehicle(bench, "V99").connack().reason == reasons.SERVER_BUSY


def test_at_the_whole_disk_budget_no_message_is_queued_and_what_waits_leaves() -> None:
    bench = strained(disk=1 << 20)
    client = bench.broker.sessions.get((VEHICLE, "V1", "c")).connection.shell  # type: ignore[union-attr]
    assert isinstance(client, Client)
    sender = core(bench)
    client.lose()
    sender.publish("vehicles/V1/cmd", b"kept")
    bench.broker.quotas.disk = 1 << 20
    bench.turn()
    sender.publish("vehicles/V1/cmd", b"refused")
    assert answers(sender) == [0, reasons.QUOTA_EXCEEDED]
    assert "the disk is at 1048576 bytes of 1048576" in bench.broker.status().quotas.strain
    assert vehicle(bench, clean=False).messages() == [b"kept"]


def test_a_will_counts_in_the_memory_of_its_session() -> None:
    bench = edge()
    before = bench.broker.quotas.memory()
    vehicle(bench, will=Will("vehicles/V1/gone", BIG, 1, False))
    assert bench.broker.quotas.memory() > before + len(BIG)


def test_messages_that_wait_for_sleeping_vehicles_take_no_memory_for_their_bytes() -> None:
    bench = edge()
    client = vehicle(bench)
    subscribe(client, "vehicles/V1/#")
    client.auto_ack = False
    sender = core(bench)
    sender.publish("vehicles/V1/cmd", BIG)
    assert bench.broker.persistence.depth.loaded >= len(BIG)
    client.lose()
    for _ in range(20):
        sender.publish("vehicles/V1/cmd", BIG)
    assert bench.broker.persistence.depth.loaded <= len(BIG) + 100
    assert bench.broker.quotas.share_of(VEHICLE, "V1").bytes > 21 * len(BIG)


def test_messages_of_a_group_move_to_another_member_whatever_the_budgets() -> None:
    bench = strained(disk=1 << 20)
    for name in ("one", "two"):
        member = bench.client(name, "V1", VEHICLE, expiry=100)
        subscribe(member, "$share/g/vehicles/V1/cmd")
        member.lose()
    core(bench).publish("vehicles/V1/cmd", b"kept")
    holders = [name for name in ("one", "two") if len(bench.broker.sessions.get((VEHICLE, "V1", name)).outbound)]  # type: ignore[union-attr]
    assert len(holders) == 1
    bench.broker.quotas.disk = 1 << 20
    bench.turn()
    assert bench.broker.quotas.full
    bench.client(holders[0], "V1", VEHICLE)  # a clean start ends the session
    (other,) = {"one", "two"} - set(holders)
    assert bench.client(other, "V1", VEHICLE, clean=False, expiry=100).messages() == [b"kept"]


def test_a_retained_backlog_goes_on_when_the_node_is_full_no_more() -> None:
    bench = strained(disk=1 << 20)
    sender = core(bench)
    for number in range(200):
        sender.publish(f"vehicles/V2/cmd/{number}", b"r", retain=True)
    few = Properties()
    few.receive_maximum = 4
    client = bench.client("late", "V2", VEHICLE, auto_ack=False, properties=few)
    subscribe(client, "vehicles/V2/cmd/#")
    bench.broker.quotas.disk = 1 << 20
    bench.turn()
    found: list[bytes] = []
    while packets := client.take(Publish):
        for packet in packets:
            found.append(packet.payload)
            client.send(Ack(PUBACK, packet.packet_id))
    assert 0 < len(found) < 200
    bench.broker.quotas.disk = 0
    bench.turn()
    client.auto_ack = True
    bench.broker.tick()
    bench.turn()
    assert len(found + client.messages()) == 200
