"""The server's own topics beside what clients exchange (MQTT 5.0 and 3.1.1 section 4.7.2)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBREC, Ack, Publish, Subscription
from tests.conformance.clients import PROTOCOLS
from tests.conformance.peer import Peer
from tests.conformance.world import SYS_INTERVAL, World
from tests.support.shows import shows

UPTIME = "$SYS/broker/uptime"


def figure(world: World, peer: Peer) -> Publish:
    """The next figure, which is of QoS 0 whatever was granted. Only the engine's clock has to be told to go on."""
    if world.name == "engine":
        world.elapse(SYS_INTERVAL + 0.5)
    message = peer.find(Publish)
    assert (message.topic, message.qos) == (UPTIME, 0)
    return message


def present(world: World) -> bytes:
    """Make sure that there are figures; how long the server has been up by then."""
    peer = world.client()
    peer.subscribe(UPTIME)
    return figure(world, peer).payload


@PROTOCOLS
def test_present_figures_come_first_and_changes_later(world: World, protocol: int) -> None:
    """The first is marked as retained; what follows is not, for it comes because it has changed."""
    present(world)
    peer = world.client(protocol=protocol)
    assert peer.subscribe(UPTIME, qos=2) == [2]
    first, second = figure(world, peer), figure(world, peer)
    assert (first.retain, second.retain) == (True, False)
    assert first.payload != second.payload


@shows(v5="3.3.1-11 3.3.1-13 3.3.4-3")
def test_options_hold_for_them_too(world: World) -> None:
    """With Retain Handling 2 the first that comes is a change, and marked only because that was asked for."""
    before = present(world)
    peer = world.client()
    peer.subscribe(Subscription(UPTIME, 1, retain_as_published=True, retain_handling=2), identifier=5)
    message = figure(world, peer)
    assert message.retain
    assert message.payload != before
    assert message.properties is not None
    assert message.properties.subscription_ids == [5]


def test_members_of_a_group_share_them(world: World) -> None:
    """None of the present ones, as with all that is retained, and each change once."""
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
def test_no_client_changes_them(world: World, protocol: int, qos: int, topic: str) -> None:
    """Nor makes some of its own; 5.0 has an answer, otherwise the connection ends."""
    present(world)
    peer = world.client(protocol=protocol)
    peer.send(Publish(topic, b"mine", qos, True, False, 9 if qos else 0))
    if protocol == 5 and qos:
        answer = peer.expect(Ack)
        assert (answer.type, answer.reason) == (PUBACK if qos == 1 else PUBREC, 0x87)
    else:
        peer.expect_end(0x87)
    reader = world.client()
    reader.subscribe(topic)
    if topic == "$SYS/broker/version":
        assert reader.expect(Publish).payload != b"mine"
    reader.expect_nothing()


@shows(v5="4.7.2-1", v3="4.7.2-1")
@PROTOCOLS
def test_no_wildcard_at_the_first_level_brings_the_servers_topics(world: World, protocol: int) -> None:
    """They are retained, and change all the time."""
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


def test_monitoring_tools_find_their_figures(world: World) -> None:
    peer = world.client()
    peer.subscribe(Subscription(UPTIME, retain_handling=2))
    figure(world, peer)  # the server has looked since the client came
    assert peer.subscribe("$SYS/#", qos=1) == [1]
    got = {}
    while len(got) < len(FIGURES) or not all(f"$SYS/broker/{name}" in got for name in FIGURES):
        message = peer.message()
        assert message.qos == 0
        got.setdefault(message.topic, (message.payload.decode(), message.retain))
    assert world.name == "engine" or got["$SYS/broker/version"][0].startswith("vehicle-mesh")
    assert int(got["$SYS/broker/clients/connected"][0]) >= 1
    assert all(retain for _, retain in got.values())
