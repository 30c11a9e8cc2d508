"""Topic names and filters (MQTT 5.0 and 3.1.1 section 4.7)."""

from __future__ import annotations

import pytest

from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import World
from tests.support.shows import shows


@shows(v5="4.7.1-1 4.7.1-2 4.7.3-1", v3="4.7.1-2 4.7.1-3 4.7.3-1")
@PROTOCOLS
@pytest.mark.parametrize("filter", [b"a#", b"a/#/b", b"#/a", b"a+", b"+a/b", b"a/+b/c", b"##", b"++", b""])
def test_misplaced_wildcard_ends_connection(world: World, protocol: int, filter: bytes) -> None:
    for packet in (raw.subscribe(filter, protocol), raw.unsubscribe(filter, protocol)):
        peer = world.client(protocol=protocol)
        peer.send(packet)
        peer.expect_end(0x81)


MATCHES = [
    ("a/#", ["a", "a/b", "a/b/c", "a/"], ["A", "ab", "b/a"]),
    ("a/+", ["a/b", "a/"], ["a", "a/b/c"]),
    ("+/b", ["a/b", "/b"], ["b", "a/b/c"]),
    ("a/+/c", ["a/b/c", "a//c"], ["a/c", "a/b/b/c"]),
    ("/+", ["/a"], ["a", "/a/b"]),
    ("a/b", ["a/b"], ["a/b/", "/a/b", "A/b"]),
    ("+/+/#", ["a/b", "a/b/c", "/"], ["a"]),
]


@shows(v5="3.3.2-3 4.7.1-1 4.7.1-2", v3="3.3.2-3 4.7.1-2 4.7.1-3")
@PROTOCOLS
@pytest.mark.parametrize(("filter", "those", "others"), MATCHES)
def test_filter_matches_its_topics_only(
    world: World, protocol: int, filter: str, those: list[str], others: list[str]
) -> None:
    receiver, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    prefix = world.topic()
    receiver.subscribe(f"{prefix}/{filter}", qos=1)
    for topic in [*others, *those]:
        sender.publish(f"{prefix}/{topic}", topic.encode(), 1)
    assert [message.decode() for message in receiver.messages(len(those))] == those
    receiver.expect_nothing()


def test_topic_with_many_levels_is_accepted(world: World) -> None:
    deep = "/".join("x" * 128)
    peer = world.client()
    assert peer.subscribe(deep) == [2]
    peer.send(raw.publish(b"/" * 120, 5))  # fits into a small packet and is below the limit
    peer.alive()


@shows(v5="3.9.3-2 3.8.4-7", v3="3.9.3-2 3.8.4-5")
@PROTOCOLS
@pytest.mark.parametrize("group", ["", "$share/g/"])
@pytest.mark.parametrize("filter", ["refused", "refused/x", "refused/+", "refused/#", "refused/x/#"])
def test_filter_below_a_refused_one_is_refused(world: World, protocol: int, group: str, filter: str) -> None:
    peer = world.client(protocol=protocol)
    good = world.topic()
    assert peer.subscribe(group + filter, good, qos=1) == [0x87 if protocol == 5 else 0x80, 1]
    assert peer.unsubscribe(group + filter) == ([0x11] if protocol == 5 else [])


@pytest.mark.parametrize("topic", ["refused", "refused/x", "refused/x/y", "refused/"])
@pytest.mark.parametrize("retain", [False, True])
def test_topic_below_a_refused_filter_is_refused(world: World, topic: str, retain: bool) -> None:
    peer = world.client()
    assert peer.publish(topic, b"mine", 1, retain) == 0x87
    assert peer.publish(topic, b"mine", 2, retain) == 0x87
    assert peer.publish(f"x{topic}", b"mine", 1) == 0x10  # a similar name is not refused


@shows(v5="4.7.3-4", v3="4.7.3-4")
@PROTOCOLS
def test_similar_topic_names_are_different_topics(world: World, protocol: int) -> None:
    """They differ in case, white space, the encoding of an accent, or empty levels."""
    peer, prefix = world.client(protocol=protocol), world.topic()
    cafe = "caf\u00e9"
    for name in (cafe, "cafe\u0301", "CAF\u00c9", f"{cafe} ", f" {cafe}", f"{cafe}/", f"/{cafe}", f"{cafe}//"):
        peer.subscribe(f"{prefix}/{name}", qos=1)
        peer.publish(f"{prefix}/{name}", name.encode())
        message = peer.message()
        assert (message.topic, message.payload) == (f"{prefix}/{name}", name.encode())
        peer.expect_nothing()
        peer.unsubscribe(f"{prefix}/{name}")
