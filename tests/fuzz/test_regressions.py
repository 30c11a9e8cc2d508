"""Faults that the state machine found and that a corpus file cannot express: one test each."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Publish, Will
from mesh.wire.properties import Properties
from tests.fuzz.stage import Stage
from tests.support.bench import Bench, subscribe


def test_a_delivery_after_a_lost_acknowledgement_is_repeated_with_dup() -> None:
    """The first PUBACK made room for the second message and was not on disk yet: the client had both, though its window
    is 1 [MQTT-3.3.1-1]."""
    stage = Stage(["anna", "bert"])
    stage.connect("anna", 5, True, 100, 0)
    stage.connect("bert", 5, True, 100, 1)
    stage.subscribe("bert", "a", 1, False)
    stage.publish("anna", "a", 1, True)
    stage.publish("anna", "a", 1, True)
    stage.acknowledge("bert", 1, commit=False)
    assert stage.users["bert"].now == [1, 2]
    stage.crash()
    stage.connect("bert", 5, False, 100, 0)
    assert stage.users["bert"].now == [1, 2]
    stage.finish()


@pytest.mark.parametrize("crashed", [False, True])
def test_deliveries_beyond_the_last_window_have_dup_after_a_crash(crashed: bool) -> None:
    """The last connection before the crash had room for the first message only; the one before it got both
    [MQTT-3.3.1-1]."""
    stage = Stage(["anna", "bert"])
    stage.connect("anna", 5, True, 100, 0)
    stage.connect("bert", 5, True, 100, 0)
    stage.subscribe("bert", "a", 1, False)
    stage.publish("anna", "a", 1, True)
    stage.publish("anna", "a", 1, True)
    assert stage.users["bert"].now == [1, 2]
    if crashed:
        stage.crash()
    stage.connect("bert", 5, False, 100, 1)
    stage.leave("bert", politely=False)
    stage.crash()
    stage.connect("bert", 5, False, 100, 0)
    assert stage.users["bert"].now == [1, 2]
    stage.finish()


def test_an_unsent_delivery_has_no_dup_after_a_crash() -> None:
    bench = Bench()
    receiver = bench.client("r", clean=True, expiry=1000)
    subscribe(receiver, "t")
    receiver.lose()
    bench.client("p").publish("t", b"x", 1)
    again = bench.restart().client("r", clean=False, expiry=1000)
    assert [packet.dup for packet in again.take(Publish)] == [False]


def test_a_delayed_will_is_published_when_a_takeover_ends_the_session() -> None:
    """A session with expiry 0 ends with its connection, so its will is not delayed (MQTT 5.0 section 3.1.2.5)."""
    bench = Bench()
    receiver = bench.client("r")
    subscribe(receiver, "w")
    properties = Properties()
    properties.will_delay = 10
    bench.client("c", clean=False, will=Will("w", b"gone", 1, False, properties))
    assert receiver.messages() == []
    assert not bench.client("c", clean=False).connack().session_present
    assert receiver.messages() == [b"gone"]
