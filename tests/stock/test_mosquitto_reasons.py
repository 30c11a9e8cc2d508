"""The output of Mosquitto's programs when the server refuses a request or ends the connection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.stock.mosquitto import FORMAT, V5, VERSIONS, Mosquitto
from tests.stock.way import Way

pytestmark = pytest.mark.e2e
FOREIGN = "vehicles/another/status"


@pytest.mark.parametrize("qos", ["1", "2"])
def test_vehicle_cannot_publish_for_another(mosquitto: Mosquitto, core: Way, door: Way, version: str, qos: str) -> None:
    """5.0 gets a reason code; before 5.0 the message is acknowledged and dropped."""
    watcher = mosquitto.sub(core, version, "-q", "1", "-t", "vehicles/+/status")
    done = mosquitto.pub(door, version, "-q", qos, "-t", FOREIGN, "-m", "forged")
    if version == V5:
        assert "Publish 1 failed: Not authorized" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    mosquitto.sent(door, version, "-q", "1", "-t", door.topic("status"), "-m", "true")
    assert [got.payload for got in watcher.expect_last(b"true")] == [b"true"]


@pytest.mark.parametrize("filter", [FOREIGN, "#"])
def test_vehicle_cannot_subscribe_to_another(mosquitto: Mosquitto, door: Way, version: str, filter: str) -> None:
    run = mosquitto.run("mosquitto_sub", door, version, "-q", "1", "-t", filter)
    run.ended()
    assert run.count("All subscription requests were denied") == 1
    assert f"Subscribed (mid: 1): {0x87 if version == V5 else 0x80}" in run.said


def test_vehicle_without_user_name_is_refused(mosquitto: Mosquitto, door: Way, version: str) -> None:
    done = mosquitto.pub(replace(door, user=None), version, "-q", "1", "-t", door.topic("t"), "-m", "x")
    assert done.returncode != 0
    assert "not authorised" in done.stderr.lower().replace("authorized", "authorised")


def test_second_connection_takes_over_the_session(mosquitto: Mosquitto, way: Way) -> None:
    own = ["-i", f"{way.prefix}/same", "-q", "1", "-t", way.topic("t")]
    first = mosquitto.sub(way, V5, *own)
    second = mosquitto.sub(way, V5, *own)
    first.says("Received DISCONNECT (142)")  # 0x8E
    mosquitto.sent(way, V5, "-q", "1", "-t", way.topic("t"), "-m", "x")
    assert [got.payload for got in second.expect(1)] == [b"x"]
    assert first.got == []


@pytest.mark.parametrize("older", [version for version in VERSIONS if version != V5])
def test_too_large_packet_ends_connection(mosquitto: Mosquitto, way: Way, older: str) -> None:
    """In 5.0 the program keeps to the server's maximum packet size and ends without output."""
    done = mosquitto.pub(way, older, "-q", "1", "-t", way.topic("t"), "-s", given=bytes(2 << 20))
    assert done.returncode != 0
    assert "The connection was lost" in done.stderr


def test_server_assigns_a_client_id(mosquitto: Mosquitto, way: Way) -> None:
    """In 5.0 without -i the server assigns a client id, which the program logs."""
    run = mosquitto.run("mosquitto_sub", way, V5, "-t", way.topic("t"), "-F", FORMAT)
    run.says("Subscribed (mid")
    named = [line for line in run.said if "received CONNACK" in line]
    assert len(named) == 1
    assert named[0].split()[1] != "(null)"
