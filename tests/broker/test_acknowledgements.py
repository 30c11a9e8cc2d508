"""Acknowledgements that do not fit the state of their delivery: an error of the client, except in a replay."""

from __future__ import annotations

import pytest

from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Disconnect, Publish
from tests.support.bench import Bench, Client, subscribe

TOPIC = "vehicles/V1/cmd"


def edge_with(qos: int, count: int = 1, protocol: int = 5) -> tuple[Bench, Client, Client]:
    """An edge, a vehicle with unacknowledged messages, and their sender."""
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings)
    vehicle = bench.client("v", "V1", VEHICLE, protocol=protocol, clean=False, auto_ack=False, expiry=100)
    subscribe(vehicle, "vehicles/V1/#", qos=2)
    sender = bench.client("s", "core", TIER)
    for number in range(count):
        sender.publish(TOPIC, b"%d" % number, qos)
    return bench, vehicle, sender


def again(bench: Bench, unacked: list[int]) -> Client:
    """The vehicle's connection after a lost link, or after a restart of the edge; LIVE has not come."""
    vehicle = Client(bench, "v", "V1", VEHICLE)
    vehicle.auto_ack = False
    vehicle.attach(unacked)
    return vehicle


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    ("qos", "wrong"),
    [
        (1, [(PUBREC, 0)]),
        (1, [(PUBCOMP, 0)]),
        (1, [(PUBREC, 0x80)]),
        (2, [(PUBACK, 0)]),
        (2, [(PUBCOMP, 0)]),
        (2, [(PUBREC, 0), (PUBACK, 0)]),
    ],
)
def test_misfit_closes_the_connection_and_keeps_the_message(
    protocol: int, qos: int, wrong: list[tuple[int, int]]
) -> None:
    bench, vehicle, _ = edge_with(qos, 2, protocol)
    first, second = vehicle.take(Publish)
    for type, reason in wrong:
        vehicle.send(Ack(type, first.packet_id, reason))
    assert vehicle.closed
    assert [packet.reason for packet in vehicle.take(Disconnect)] == ([0x82] if protocol == 5 else [])
    assert bench.broker.counters.misfits == 1
    released = len(wrong) == 2
    held = bench.client("v", "V1", VEHICLE, clean=False, expiry=100)
    assert [packet.packet_id for packet in held.take(Publish)] == [first.packet_id, second.packet_id][released:]
    assert [ack.packet_id for ack in held.take(Ack) if ack.type == PUBREL][:1] == [first.packet_id] * (qos == 2)
    assert bench.broker.persistence.depth.messages == 0


def test_fitting_acknowledgements_may_be_repeated() -> None:
    """For PUBREC until PUBCOMP; for the others the identifier is unknown by then."""
    _, vehicle, sender = edge_with(2)
    (message,) = vehicle.take(Publish)
    for type in (PUBREC, PUBREC, PUBCOMP, PUBCOMP, PUBACK):
        vehicle.send(Ack(type, message.packet_id))
    assert [ack.type for ack in vehicle.take(Ack)] == [PUBREL, PUBREL]
    sender.publish(TOPIC)
    assert [packet.qos for packet in vehicle.take(Publish)] == [1]
    vehicle.send(Ack(PUBACK, message.packet_id))
    assert not vehicle.closed


@pytest.mark.parametrize("crashed", [False, True])
@pytest.mark.parametrize(("qos", "type"), [(1, PUBREC), (1, PUBCOMP), (2, PUBACK), (2, PUBCOMP)])
def test_misfit_in_a_replay_is_ignored(qos: int, type: int, crashed: bool) -> None:
    """The front door repeats what the edge may have handled before; the state that it fitted may be gone."""
    bench, vehicle, _ = edge_with(qos)
    (message,) = vehicle.take(Publish)
    if crashed:
        bench = bench.restart()
    vehicle = again(bench, [])
    vehicle.send(Ack(type, message.packet_id))
    assert not vehicle.closed
    vehicle.live()
    assert [(packet.payload, packet.packet_id) for packet in vehicle.take(Publish)] == [(b"0", message.packet_id)]


@pytest.mark.parametrize("crashed", [False, True])
def test_whole_replay_of_a_qos_2_exchange_fits(crashed: bool) -> None:
    bench, vehicle, _ = edge_with(2)
    (message,) = vehicle.take(Publish)
    if crashed:
        bench = bench.restart()
    vehicle = again(bench, [message.packet_id])
    vehicle.send(Ack(PUBREC, message.packet_id))
    vehicle.send(Ack(PUBCOMP, message.packet_id))
    vehicle.live()
    assert not vehicle.closed
    assert vehicle.take(Publish) == []
    assert bench.broker.persistence.depth.messages == 0


def test_replayed_acknowledgement_does_not_end_a_newer_message() -> None:
    """The edge had dropped the acknowledged message on disk when it died, and its next message came before ATTACH."""
    bench, vehicle, _ = edge_with(1)
    (message,) = vehicle.take(Publish)
    vehicle.send(Ack(PUBACK, message.packet_id))
    bench = bench.restart()
    bench.client("s", "core", TIER).publish(TOPIC, b"next")
    vehicle = again(bench, [])
    vehicle.send(Ack(PUBACK, message.packet_id))
    vehicle.live()
    assert vehicle.messages() == [b"next"]


def test_replayed_acknowledgement_does_not_end_a_newer_message_after_two_crashes() -> None:
    """The first crash used up the reserved numbers: a message that came before ATTACH has one beyond them."""
    bench, vehicle, _ = edge_with(1)
    (message,) = vehicle.take(Publish)
    vehicle.send(Ack(PUBACK, message.packet_id))
    bench = bench.restart()
    bench.client("s", "core", TIER).publish(TOPIC, b"second")
    vehicle = again(bench, [])
    vehicle.live()
    (message,) = vehicle.take(Publish)
    vehicle.send(Ack(PUBACK, message.packet_id))
    bench = bench.restart()
    bench.client("s", "core", TIER).publish(TOPIC, b"third")
    vehicle = again(bench, [])
    vehicle.send(Ack(PUBACK, message.packet_id))
    vehicle.live()
    assert vehicle.messages() == [b"third"]


@pytest.mark.parametrize("crashed", [False, True])
def test_identifiers_of_withdrawn_messages_stay_in_use_until_they_are_acknowledged(crashed: bool) -> None:
    """The message went to another member of the group while the link was down. The vehicle still has it, so its
    acknowledgement must not meet another message with the same identifier."""
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings)
    first = bench.client("v", "V1", VEHICLE, auto_ack=False, expiry=100)
    subscribe(first, f"$share/g/{TOPIC}")
    sender = bench.client("s", "core", TIER)
    sender.publish(TOPIC, b"moved")
    (message,) = first.take(Publish)
    other = bench.client("w", "V1", VEHICLE, expiry=100)
    subscribe(other, f"$share/g/{TOPIC}", qos=2)
    first.lose()  # as at the end of ``attach_grace``
    assert other.messages() == [b"moved"]
    if crashed:
        bench = bench.restart()
        sender = bench.client("s", "core", TIER)
    first = again(bench, [message.packet_id])
    first.live()
    session = first.connection.session
    assert session is not None
    session.outbound.next_number = message.packet_id - 1  # the same identifier, after 65,535 others
    subscribe(first, "vehicles/V1/own", qos=2)
    sender.publish("vehicles/V1/own", b"new", 2)
    assert first.take(Publish) == []
    first.send(Ack(PUBACK, message.packet_id))
    assert not first.closed
    assert [packet.payload for packet in first.take(Publish)] == [b"new"]
