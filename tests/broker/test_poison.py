"""A PUBLISH that is put aside: it is acknowledged, kept in the dead letters, and takes no other way."""

from __future__ import annotations

import pytest

from mesh.broker.principal import TIER
from mesh.wire.packets import PINGREQ, Ack, Disconnect, Ping, Publish, SubAck, Subscribe, Subscription, Unsubscribe
from mesh.wire.properties import Properties
from tests.support.bench import Bench, Client, subscribe


def aside(client: Client, packet: Publish) -> list[tuple[int, int, int]]:
    client.bench.broker.set_aside(client.connection, packet)
    client.bench.turn()
    return [(ack.type, ack.packet_id, ack.reason) for ack in client.take(Ack)]


def message(qos: int, topic: str = "t", **fields: object) -> Publish:
    dup = bool(fields.get("dup"))
    return Publish(topic, b"poison", qos, False, dup, 7 if qos else 0, fields.get("properties"))  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_that_is_put_aside(qos: int, protocol: int) -> None:
    bench = Bench()
    reader, app = bench.client("reader"), bench.client("app", auto_ack=False, protocol=protocol)
    subscribe(reader, "#", qos=2)
    assert aside(app, message(qos)) == [(4 if qos == 1 else 5, 7, 0)]
    assert reader.messages() == []
    assert [letter.topic for letter in bench.broker.letters.queue.after(0, 10)] == ["t"]
    assert bench.broker.status().letters_poison == 1
    if qos == 2:
        assert aside(app, message(2, dup=True)) == [(5, 7, 0)]
        assert len(bench.broker.letters) == 1


def test_a_message_of_qos_0_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    app = bench.client("app")
    assert aside(app, message(0)) == []
    assert bench.broker.status().dropped_poison == 1
    assert "app (client app): a message on 't' is not handled: this process has ended twice in its handling" in (
        caplog.text
    )


def test_it_is_in_the_journal_before_it_is_acknowledged() -> None:
    bench = Bench(auto=False)
    app = bench.client("app", expiry=100)
    bench.turn(commit=True)
    assert aside(app, message(1)) == []
    bench.turn(commit=True)
    assert [ack.packet_id for ack in app.take(Ack)] == [7]
    again = bench.restart()
    assert len(again.broker.letters) == 1


def test_a_repeat_over_a_tier_link_is_not_kept_twice() -> None:
    bench = Bench()
    core = bench.client("core-1", "core-1", TIER, properties=_instance())
    assert aside(core, message(1)) == [(4, 7, 0)]
    assert aside(core, message(1, dup=True)) == [(4, 7, 0)]
    assert len(bench.broker.letters) == 1


@pytest.mark.parametrize(("protocol", "subscribed", "unsubscribed"), [(4, [0x80, 0x80], []), (5, [0x83] * 2, [0x83])])
def test_subscribe_and_unsubscribe_are_refused(protocol: int, subscribed: list[int], unsubscribed: list[int]) -> None:
    bench = Bench()
    app = bench.client("app", protocol=protocol)
    bench.broker.set_aside(app.connection, Subscribe(1, [Subscription("a", 1), Subscription("b", 1)]))
    bench.broker.set_aside(app.connection, Unsubscribe(2, ["a"]))
    bench.turn()
    assert [ack.reasons for ack in app.take(SubAck)] == [subscribed, unsubscribed]
    assert not list(bench.broker.subscriptions.filters())
    assert not app.closed


def test_other_packets_and_invalid_ones_are_not_put_aside() -> None:
    bench = Bench()
    app = bench.client("app")
    bench.broker.set_aside(app.connection, Ping(PINGREQ))
    alias = Properties()
    alias.topic_alias = 99
    aside(app, message(1, "", properties=alias))
    assert app.take(Disconnect)[0].reason == 0x94
    assert len(bench.broker.letters) == 0


def _instance() -> Properties:
    properties = Properties()
    properties.session_expiry = 100
    properties.user = [("mesh-instance", "a" * 16)]
    return properties
