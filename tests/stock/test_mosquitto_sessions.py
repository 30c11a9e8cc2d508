"""``mosquitto_sub -c``: lasting sessions, their end, broken lines and killed programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.stock.line import Line
from tests.stock.mosquitto import V5, VERSIONS, Mosquitto
from tests.stock.way import Way

pytestmark = pytest.mark.e2e


def asleep(mosquitto: Mosquitto, way: Way, version: str, *more: str) -> list[str]:
    """Subscribe to ``wait`` and disconnect; return the arguments that resume the session."""
    own = ["-i", f"{way.prefix}/sleeper", "-c", "-q", "2"]
    assert mosquitto.sub(way, version, *own, *more, "-t", way.topic("wait"), "-E").ended() == 0
    return own


def wait_for_end(mosquitto: Mosquitto, way: Way, version: str, *own: str, qos: str = "1") -> list[bytes]:
    """Resume the session; return the payloads up to a message ``end`` that is published now."""
    sub = mosquitto.sub(way, version, *own, "-t", way.topic("end"))
    mosquitto.sent(way, version, "-q", qos, "-t", way.topic("end"), "-m", "end")
    return [got.payload for got in sub.expect_last(b"end")]


@pytest.mark.parametrize("qos", ["1", "2"])
def test_session_queues_messages(mosquitto: Mosquitto, way: Way, version: str, qos: str) -> None:
    own = asleep(mosquitto, way, version)
    lines = "".join(f"{number}\n" for number in range(100)).encode()
    mosquitto.sent(way, version, "-q", qos, "-t", way.topic("wait"), "-l", given=lines)
    found = wait_for_end(mosquitto, way, version, *own, qos=qos)
    assert [int(payload) for payload in found[:-1]] == list(range(100))


def test_clean_start_ends_the_session(mosquitto: Mosquitto, way: Way, version: str) -> None:
    own = asleep(mosquitto, way, version)
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("wait"), "-m", "old")
    clean = [option for option in own if option != "-c"]
    assert wait_for_end(mosquitto, way, version, *clean) == [b"end"]


def test_unsubscribe_applies_to_the_session(mosquitto: Mosquitto, way: Way, version: str) -> None:
    own = asleep(mosquitto, way, version)
    run = mosquitto.sub(way, version, *own, "-t", way.topic("other"), "-U", way.topic("wait"))
    run.says("received UNSUBACK")
    run.close()
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("wait"), "-m", "no")
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("other"), "-m", "yes")
    assert wait_for_end(mosquitto, way, version, *own) == [b"yes", b"end"]


def test_session_lives_until_its_expiry(mosquitto: Mosquitto, way: Way) -> None:
    for expiry, expected in (("0", [b"end"]), ("3600", [b"old", b"end"])):
        own = asleep(mosquitto, way, V5, "-x", expiry)
        mosquitto.sent(way, V5, "-q", "1", "-t", way.topic("wait"), "-m", "old")
        assert wait_for_end(mosquitto, way, V5, *own) == expected


def test_killed_program_leaves_its_will(mosquitto: Mosquitto, way: Way, version: str) -> None:
    """A program that gets SIGTERM sends DISCONNECT; in 5.0 its reason code requests the will."""
    watcher = mosquitto.sub(way, version, "-q", "1", "-t", way.topic("+", "will"))
    will = ["--will-payload", "gone", "--will-qos", "1", "-t", way.topic("t")]
    stopped = mosquitto.sub(way, version, "--will-topic", way.topic("stopped", "will"), *will)
    killed = mosquitto.sub(way, version, "--will-topic", way.topic("killed", "will"), *will)
    stopped.close()
    killed.kill()
    expected = ["stopped", "killed"] if version == V5 else ["killed"]
    found = {(got.topic, got.payload, got.qos) for got in watcher.expect(len(expected))}
    assert found == {(way.topic(name, "will"), b"gone", 1) for name in expected}


@pytest.mark.parametrize("recent", VERSIONS[1:])  # each takes a second
def test_program_reconnects_and_subscribes_again(
    mosquitto: Mosquitto, way: Way, recent: str, line: Callable[[Way], Line]
) -> None:
    wire = line(way)
    sub = mosquitto.sub(replace(way, port=wire.port), recent, "-q", "1", "-t", way.topic("t"))
    wire.cut()
    sub.says("Subscribed (mid", times=2)
    mosquitto.sent(way, recent, "-q", "1", "-t", way.topic("t"), "-m", "again")
    assert [got.payload for got in sub.expect(1)] == [b"again"]
