"""Wills: when they are published, also after a crash."""

from __future__ import annotations

from mesh.wire.packets import Disconnect, Will
from mesh.wire.properties import Properties
from tests.support.bench import Bench, subscribe


def test_a_will_is_published_on_a_lost_connection_and_not_after_disconnect() -> None:
    bench = Bench()
    watcher = bench.client("w")
    subscribe(watcher, "gone")
    bench.client("a", will=Will("gone", b"a")).lose()
    assert watcher.messages() == [b"a"]
    bench.client("b", will=Will("gone", b"b")).send(Disconnect())
    assert watcher.messages() == []
    bench.client("c", will=Will("gone", b"c")).send(Disconnect(4))
    assert watcher.messages() == [b"c"]


def test_a_delayed_will_survives_a_crash_and_a_reconnect_cancels_it() -> None:
    bench = Bench()
    properties = Properties()
    properties.will_delay = 10
    watcher = bench.client("w", expiry=100)
    subscribe(watcher, "gone")
    for name in ("back", "away"):
        bench.client(name, expiry=60, will=Will("gone", name.encode(), 1, False, properties)).lose()
    bench = bench.restart()
    bench.client("back", clean=False, expiry=60)
    bench.clock.now += 11
    bench.broker.tick()
    bench.turn()
    assert bench.client("w", clean=False, expiry=100).messages() == [b"away"]


def test_a_will_of_a_session_without_expiry_survives_a_crash() -> None:
    bench = Bench()
    watcher = bench.client("w", expiry=1000)
    subscribe(watcher, "wills")
    bench.client("c", will=Will("wills", b"gone"))
    bench = bench.restart()
    watcher = bench.client("w", clean=False, expiry=1000)
    bench.clock.now += bench.settings.attach_grace + 1
    bench.broker.tick()
    bench.turn()
    assert watcher.messages() == [b"gone"]
    assert [session.key[2] for session in bench.broker.sessions.all()] == ["w"]
    assert bench.restart().broker.sessions.all()[0].key[2] == "w"


def test_wills_and_ends_come_at_their_times() -> None:
    bench = Bench()
    listener = bench.client("listener")
    subscribe(listener, "will")
    properties = Properties()
    properties.will_delay = 10
    client = bench.client("c", expiry=20, will=Will("will", b"gone", 1, False, properties))
    client.lose()
    for seconds, wills, sessions in ((9, 0, 2), (2, 1, 2), (8, 0, 2), (2, 0, 1)):
        bench.clock.now += seconds
        bench.broker.tick()
        bench.turn()
        assert (len(listener.messages()), len(bench.broker.sessions)) == (wills, sessions)
