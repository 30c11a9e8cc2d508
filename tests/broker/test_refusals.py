"""What a client may not do: what its version is told, what is counted, and what is logged."""

from __future__ import annotations

import pytest

from mesh.broker.principal import BACKEND, VEHICLE, Permissions, Principal, everything
from mesh.broker.settings import DISCONNECT, IGNORE, Settings
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Connack, Disconnect, Publish, Will
from mesh.wire.properties import Properties
from tests.support.bench import Bench, Client, subscribe

FOREIGN = "vehicles/V2/cmd"


def bench_of(on_refusal: int = IGNORE) -> Bench:
    settings = Settings()
    settings.on_refusal = on_refusal
    return Bench(settings)


@pytest.mark.parametrize("kind", [VEHICLE, BACKEND])
@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_forbidden_publish_before_5_0_is_acknowledged_and_dropped(
    protocol: int, qos: int, kind: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench = bench_of()
    watcher = bench.client("w", "core")
    subscribe(watcher, "#")
    client = Client(bench, "c", "V1", kind)
    client.principal = Principal("V1", kind, Permissions("vehicles/V1/"))
    client.connect(protocol=protocol)
    for _ in range(3):
        client.publish(FOREIGN, b"forged", qos)
    exchange = {0: [], 1: [PUBACK], 2: [PUBREC, PUBCOMP]}[qos]
    assert [ack.type for ack in client.take(Ack)] == exchange * 3
    assert not client.closed
    client.publish("vehicles/V1/status", b"true", qos)
    assert watcher.messages() == [b"true"]
    assert bench.broker.counters.forbidden == 3
    who = "vehicle V1" if kind == VEHICLE else "back end V1"
    assert caplog.messages == [f"{who} (client c) may not publish to {FOREIGN!r}"] * 3


@pytest.mark.parametrize("on_refusal", [IGNORE, DISCONNECT])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_forbidden_publish_of_5_0_gets_the_reason_code(
    qos: int, on_refusal: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With QoS 0 only DISCONNECT could carry it."""
    bench = bench_of(on_refusal)
    vehicle = bench.client("c", "V1", VEHICLE)
    vehicle.publish(FOREIGN, b"forged", qos)
    assert [ack.reason for ack in vehicle.take(Ack)] == ([0x87] if qos else [])
    assert [packet.reason for packet in vehicle.take(Disconnect)] == ([0x87] if on_refusal and not qos else [])
    assert vehicle.closed == (on_refusal == DISCONNECT and not qos)
    assert (bench.broker.counters.forbidden, len(caplog.messages)) == (1, 1)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_forbidden_publish_before_5_0_can_close_the_connection(qos: int, caplog: pytest.LogCaptureFixture) -> None:
    bench = bench_of(DISCONNECT)
    vehicle = bench.client("c", "V1", VEHICLE, protocol=4)
    vehicle.publish(FOREIGN, b"forged", qos)
    assert vehicle.closed
    assert vehicle.take(Ack) == []
    assert (bench.broker.counters.forbidden, len(caplog.messages)) == (1, 1)


def test_answers_to_forbidden_publishes_keep_their_order_and_hold_the_reader() -> None:
    """An earlier publish waits for the journal."""
    bench = bench_of()
    bench.settings.receive_maximum = 3
    subscribe(bench.client("r", expiry=100), "vehicles/V1/#")
    vehicle = bench.client("c", "V1", VEHICLE, protocol=4)
    bench.auto = False
    vehicle.publish("vehicles/V1/status", packet_id=1)
    vehicle.publish(FOREIGN, packet_id=2)
    assert not vehicle.connection.congested
    vehicle.publish(FOREIGN, packet_id=3)
    assert vehicle.connection.congested
    assert vehicle.take(Ack) == []
    bench.turn(commit=True)
    assert [ack.packet_id for ack in vehicle.take(Ack)] == [1, 2, 3]
    assert not vehicle.connection.congested


def test_forbidden_qos_2_leaves_nothing_open() -> None:
    bench = bench_of()
    bench.settings.keep_all = True
    vehicle = bench.client("c", "V1", VEHICLE, protocol=4)
    vehicle.auto_ack = False
    vehicle.publish(FOREIGN, b"forged", 2, packet_id=9)
    vehicle.publish(FOREIGN, b"forged", 2, packet_id=9, dup=True)
    vehicle.send(Ack(PUBREL, 9))
    assert [(ack.type, ack.packet_id) for ack in vehicle.take(Ack)] == [(PUBREC, 9), (PUBREC, 9), (PUBCOMP, 9)]
    assert [item for item in bench.store.items.values() if item.kind == 6] == []
    assert vehicle.connection.inbound.unanswered() == 0


def test_a_long_topic_is_shortened_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bench = bench_of()
    bench.client("c", "V1", VEHICLE).publish("x" * 60_000)
    assert len(caplog.messages[0]) < 400


@pytest.mark.parametrize("on_refusal", [IGNORE, DISCONNECT])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_forbidden_will(protocol: int, on_refusal: int, caplog: pytest.LogCaptureFixture) -> None:
    """5.0 is refused with the reason code. Before 5.0 the client is accepted without its will, or refused."""
    bench = bench_of(on_refusal)
    watcher = bench.client("w", "core")
    subscribe(watcher, "#")
    vehicle = bench.client("c", "V1", VEHICLE, protocol=protocol, will=Will(FOREIGN, b"gone", 1, True))
    refused = protocol == 5 or on_refusal == DISCONNECT
    assert [packet.reason for packet in vehicle.take(Connack)] == [(0x87 if protocol == 5 else 5) if refused else 0]
    assert vehicle.closed == refused
    if not refused:
        vehicle.lose()
    assert watcher.messages() == []
    assert len(bench.broker.retained) == 0
    assert bench.broker.counters.forbidden_wills == 1
    assert caplog.messages == [f"vehicle V1 (client c) may not publish its will to {FOREIGN!r}"]


def test_dropped_will_stays_dropped_after_a_crash() -> None:
    bench = bench_of()
    bench.settings.keep_all = True
    bench.client("c", "V1", VEHICLE, protocol=4, clean=False, will=Will(FOREIGN, b"gone", 1))
    bench = bench.restart()
    watcher = bench.client("w", "core")
    subscribe(watcher, "#")
    bench.clock.now += 10_000
    bench.broker.tick()
    bench.turn()
    assert watcher.messages() == []


@pytest.mark.parametrize("delay", [0, 300])
def test_a_will_that_is_not_allowed_when_it_is_due_is_dropped(
    delay: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench = bench_of()
    bench.settings.keep_all = True
    properties = Properties()
    properties.will_delay = delay
    for name in ("V1", "V2"):
        topic = f"vehicles/{name}/status"
        vehicle = bench.client("c", name, VEHICLE, expiry=1000, will=Will(topic, b"gone", 1, False, properties))
        if delay:
            vehicle.lose()
    bench.turn()
    bench = bench.restart(lambda key, *_: Permissions() if key == (VEHICLE, "V1", "c") else everything())
    watcher = bench.client("w", "core")
    subscribe(watcher, "#")
    bench.clock.now += 500
    bench.broker.tick()
    bench.turn()
    assert [packet.topic for packet in watcher.take(Publish)] == ["vehicles/V2/status"]
    assert bench.broker.counters.forbidden_wills == 1
    assert "V1 (client c) is no longer allowed to publish its will to 'vehicles/V1/status'" in caplog.text
    bench = bench.restart()  # access allows it again: it was dropped for good
    watcher = bench.client("w", "core")
    subscribe(watcher, "#")
    bench.clock.now += 10_000
    bench.broker.tick()
    bench.turn()
    assert watcher.messages() == []


@pytest.mark.parametrize("on_refusal", [IGNORE, DISCONNECT])
@pytest.mark.parametrize("protocol", [4, 5])
def test_a_repeat_of_a_message_that_was_allowed_is_answered_as_one(protocol: int, on_refusal: int) -> None:
    """What the vehicle may publish is changed between the two, at a restart."""
    bench = bench_of(on_refusal)
    bench.settings.keep_all = True
    watcher = bench.client("w", "core", clean=False, expiry=1000)
    subscribe(watcher, "#")
    vehicle = bench.client("c", "V1", VEHICLE, protocol=protocol, clean=False, expiry=1000, auto_ack=False)
    vehicle.publish("vehicles/V1/status", b"once", 2, packet_id=9)
    assert watcher.messages() == [b"once"]
    bench = bench.restart()
    vehicle = Client(bench, "c", "V1", VEHICLE)
    vehicle.principal = Principal("V1", VEHICLE, Permissions("vehicles/other/"), "V1")
    vehicle.auto_ack = False
    vehicle.connect(protocol=protocol, clean=False, expiry=1000)
    vehicle.publish("vehicles/V1/status", b"once", 2, packet_id=9, dup=True)
    vehicle.send(Ack(PUBREL, 9))
    answers = [(ack.type, ack.packet_id, ack.reason) for ack in vehicle.take(Ack)]
    assert answers == [(PUBREC, 9, 0), (PUBCOMP, 9, 0)]
    assert bench.broker.counters.forbidden == 0
    assert not vehicle.closed


def empty_response() -> Properties:
    properties = Properties()
    properties.response_topic = ""
    return properties


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_empty_response_topic_is_a_protocol_error(qos: int) -> None:
    bench = bench_of()
    watcher = bench.client("w")
    subscribe(watcher, "#")
    client = bench.client("c")
    client.publish("a", b"x", qos, properties=empty_response())
    assert [packet.reason for packet in client.take(Disconnect)] == [0x82]
    assert client.closed
    assert (watcher.messages(), client.take(Ack)) == ([], [])


def test_empty_response_topic_in_a_will_is_a_protocol_error() -> None:
    bench = bench_of()
    client = bench.client("c", will=Will("a", b"x", 0, False, empty_response()))
    assert [packet.reason for packet in client.take(Connack)] == [0x82]
    assert client.closed
    assert len(bench.broker.sessions) == 0


def test_a_vehicle_can_use_only_its_own_subtree() -> None:
    bench = Bench()
    vehicle = bench.client("v", "V1", VEHICLE)
    own, shared = "vehicles/V1/cmd", "$share/g/vehicles/V1/x"
    assert subscribe(vehicle, own, "vehicles/+/cmd", "#", "vehicles/V2/cmd", shared) == [1, 0x87, 0x87, 0x87, 1]
    vehicle.publish("vehicles/V2/cmd")
    assert vehicle.take(Ack)[0].reason == reasons.NOT_AUTHORIZED
    old = bench.client("o", "V3", VEHICLE, protocol=4)
    old.publish("vehicles/V2/cmd")
    assert [ack.type for ack in old.take(Ack)] == [PUBACK]  # before 5.0 no code says that it was refused
    assert old.take(Ack) == []
