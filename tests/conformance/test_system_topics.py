"""The server's own topics below ``$SYS`` (MQTT 5.0 and 3.1.1 section 4.7.2)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBREC, Ack, Publish, Subscription
from tests.conformance.clients import PROTOCOLS
from tests.conformance.peer import Peer
from tests.conformance.world import SYS_INTERVAL, World
from tests.support.shows import shows

UPTIME = "$SYS/broker/uptime"


def figure(world: World, peer: Peer) -> Publish:
    """The next figure, always with QoS 0. In the world without sockets, advance the clock first."""
    if world.name == "broker":
        world.elapse(SYS_INTERVAL + 0.5)
    message = peer.find(Publish)
    assert (message.topic, message.qos) == (UPTIME, 0)
    return message


def present(world: World) -> bytes:
    """Wait until the server has published its figures; return its uptime."""
    peer = world.client()
    peer.subscribe(UPTIME)
    return figure(world, peer).payload


@PROTOCOLS
def test_current_figures_come_retained_and_changes_live(world: World, protocol: int) -> None:
    """The first has RETAIN set; the next does not, because it is a change."""
    present(world)
    peer = world.client(protocol=protocol)
    assert peer.subscribe(UPTIME, qos=2) == [2]
    first, second = figure(world, peer), figure(world, peer)
    assert (first.retain, second.retain) == (True, False)
    assert first.payload != second.payload


@shows(v5="3.3.1-11 3.3.1-13 3.3.4-3")
def test_subscription_options_apply_to_system_topics(world: World) -> None:
    """With Retain Handling 2 the first figure is a change; it has RETAIN set due to Retain As Published."""
    before = present(world)
    peer = world.client()
    peer.subscribe(Subscription(UPTIME, 1, retain_as_published=True, retain_handling=2), identifier=5)
    message = figure(world, peer)
    assert message.retain
    assert message.payload != before
    assert message.properties is not None
    assert message.properties.subscription_ids == [5]


def test_group_members_share_system_topics(world: World) -> None:
    """A group gets no current figures, as with all retained messages, and each change once."""
    before = present(world)
    peers = [world.client() for _ in range(2)]
    for peer in peers:
        assert peer.subscribe(f"$share/g/{UPTIME}", qos=1) == [1]
    got = [figure(world, peer) for peer in (*peers, *peers)]
    assert not any(message.retain for message in got)
    assert len({before, *(message.payload for message in got)}) == 5


@shows(v5="4.7.2-1", v3="4.7.2-1 3.3.5-2")
@PROTOCOLS
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("topic", ["$SYS/broker/version", "$SYS/mine", "$other/x"])
def test_client_cannot_publish_to_system_topics(world: World, protocol: int, qos: int, topic: str) -> None:
    """Neither existing topics nor new ones. 5.0 gets a reason code for QoS 1 and 2; all other messages are dropped."""
    present(world)
    peer = world.client(protocol=protocol)
    peer.send(Publish(topic, b"mine", qos, True, False, 9 if qos else 0))
    if qos:
        answer = peer.expect(Ack)
        assert (answer.type, answer.reason) == (PUBACK if qos == 1 else PUBREC, 0x87 if protocol == 5 else 0)
    peer.expect_nothing()
    reader = world.client()
    reader.subscribe(topic)
    if topic == "$SYS/broker/version":
        assert reader.expect(Publish).payload != b"mine"
    reader.expect_nothing()


@shows(v5="4.7.2-1", v3="4.7.2-1")
@PROTOCOLS
def test_wildcard_at_the_first_level_matches_no_system_topic(world: World, protocol: int) -> None:
    """System topics are retained and change continuously, so a match would be noticed."""
    knowing, peer = world.client(), world.client(protocol=protocol)
    peer.subscribe("#", "+/#", "+/broker/uptime", "+/broker/#", "+/+/uptime", "$share/g/#", "$share/g/+/broker/uptime")
    first = present(world)
    knowing.subscribe(UPTIME)
    assert figure(world, knowing).retain
    assert figure(world, knowing).payload != first
    topics = [getattr(packet, "topic", "") for packet in peer.sync()]
    assert not [topic for topic in topics if topic.startswith("$")]


FIGURES = [
    "version", "uptime", "clients/connected", "clients/disconnected", "clients/total", "clients/maximum",
    "clients/expired", "messages/received", "messages/sent", "messages/stored", "publish/messages/received",
    "publish/messages/sent", "publish/messages/dropped", "bytes/received", "bytes/sent", "subscriptions/count",
    "retained messages/count", "store/messages/count", "load/messages/received/1min", "load/connections/15min",
]  # fmt: skip


def test_monitoring_figures_are_published(world: World) -> None:
    peer = world.client()
    peer.subscribe(Subscription(UPTIME, retain_handling=2))
    figure(world, peer)  # the server has updated its figures since the client connected
    assert peer.subscribe("$SYS/#", qos=1) == [1]
    got = {}
    while len(got) < len(FIGURES) or not all(f"$SYS/broker/{name}" in got for name in FIGURES):
        message = peer.message()
        assert message.qos == 0
        got.setdefault(message.topic, (message.payload.decode(), message.retain))
    assert world.name == "broker" or got["$SYS/broker/version"][0].startswith("vehicle-mesh")
    assert int(got["$SYS/broker/clients/connected"][0]) >= 1
    assert all(retain for _, retain in got.values())
