"""``mosquitto_pub`` and ``mosquitto_sub``: messages of every QoS and size, bursts, and filters."""

from __future__ import annotations

import pytest

from tests.stock.mosquitto import Got, Mosquitto
from tests.stock.way import Way

pytestmark = pytest.mark.e2e
COUNT = 2000


def test_messages_of_every_qos_arrive(mosquitto: Mosquitto, way: Way, version: str) -> None:
    sub = mosquitto.sub(way, version, "-q", "2", "-t", way.topic("report"))
    for qos in "012":
        mosquitto.sent(way, version, "-q", qos, "-t", way.topic("report"), "-m", qos)
    assert sub.expect(3) == [Got(way.topic("report"), int(qos), False, qos.encode()) for qos in "012"]


def test_large_payload_arrives_unchanged(mosquitto: Mosquitto, way: Way, version: str) -> None:
    payload = bytes(range(250)) * 2000
    sub = mosquitto.sub(way, version, "-q", "1", "-t", way.topic("large"))
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("large"), "-s", given=payload)
    assert sub.expect(1)[0].payload == payload


def test_burst_arrives_in_order(mosquitto: Mosquitto, way: Way, version: str) -> None:
    sub = mosquitto.sub(way, version, "-q", "1", "-t", way.topic("burst"))
    lines = "".join(f"{number}\n" for number in range(COUNT)).encode()
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("burst"), "-M", str(COUNT), "-l", given=lines)
    assert [int(got.payload) for got in sub.expect(COUNT)] == list(range(COUNT))


def test_several_filters_match_their_topics(mosquitto: Mosquitto, way: Way, version: str) -> None:
    """-t may occur several times, with wildcards; -T excludes topics from the output."""
    sub = mosquitto.sub(
        way, version, "-q", "1", "-t", way.topic("a", "+"), "-t", way.topic("b", "#"), "-T", way.topic("a", "quiet")
    )
    sub.says("Subscribed (mid")
    for topic in ("a", "a/quiet", "a/loud", "a/loud/er", "b", "b/c/d", "c", "b/end"):
        mosquitto.sent(way, version, "-q", "1", "-t", way.topic(*topic.split("/")), "-m", topic)
    assert [got.payload for got in sub.expect_last(b"b/end")] == [b"a/loud", b"b", b"b/c/d", b"b/end"]


def test_command_and_report_are_delivered(mosquitto: Mosquitto, core: Way, door: Way, version: str) -> None:
    backend = mosquitto.sub(core, version, "-q", "1", "-t", door.topic("status"))
    vehicle = mosquitto.sub(door, version, "-q", "1", "-t", door.topic("cmd"))
    mosquitto.sent(core, version, "-q", "1", "-t", door.topic("cmd"), "-m", "horn")
    assert vehicle.expect(1) == [Got(door.topic("cmd"), 1, False, b"horn")]
    mosquitto.sent(door, version, "-q", "1", "-t", door.topic("status"), "-m", "done")
    assert backend.expect(1) == [Got(door.topic("status"), 1, False, b"done")]
