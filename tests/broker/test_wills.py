"""Wills: when they are published, also after a crash."""

from __future__ import annotations

from typing import Any

from mesh.broker.peer import Peer, TlsFacts
from mesh.broker.principal import BACKEND
from mesh.broker.session import Key
from mesh.wire.packets import Disconnect, Will
from mesh.wire.properties import Properties
from tests.support.bench import Bench, Client, subscribe


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


def test_where_the_client_of_a_will_connected_from_survives_a_crash() -> None:
    bench = Bench()
    tls = TlsFacts("TLSv1.3", "a cipher", serial="0a", fingerprint="f1")
    for number, facts in enumerate((tls, None)):
        client = Client(bench, f"c{number}", "app", BACKEND)
        client.peer = Peer(f"192.0.2.{number}", 50123, "mqtts://127.0.0.1:8883", facts)
        client.connect(expiry=1000, will=Will("gone", b"x"))
    bench.client("without", expiry=1000)
    for _ in range(2):
        bench = bench.restart()
        asked: list[tuple[str, str, tuple[str, str] | None]] = []

        def silenced(key: Key, origin: Peer, asked: list[Any] = asked) -> bool:
            asked.append((key[2], origin.address, (origin.tls.serial, origin.tls.fingerprint) if origin.tls else None))
            return True

        bench.broker.dispatcher.silenced = silenced
        for session in bench.broker.sessions.all():
            bench.broker.persistence.keep_session(session)  # and again, in its own record
    bench.clock.now += 500
    bench.broker.tick()
    bench.turn()
    assert sorted(asked) == [("c0", "192.0.2.0", ("0a", "f1")), ("c1", "192.0.2.1", None)]


def test_a_client_that_connects_again_has_the_origin_of_its_last_connection() -> None:
    bench = Bench()
    for address in ("192.0.2.1", "192.0.2.2"):
        client = Client(bench, "c", "app", BACKEND)
        client.peer = Peer(address)
        client.connect(clean=False, expiry=1000, will=Will("gone", b"x"))
    (session,) = bench.broker.sessions.all()
    assert session.origin.address == "192.0.2.2"
    bench.client("c", clean=False, expiry=1000)
    assert session.origin.address == ""
