"""Shared subscriptions, and members that leave or stall (MQTT 5.0 section 4.8.2)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, Ack, Publish
from tests.conformance import raw
from tests.conformance.peer import Peer
from tests.conformance.world import SHARED_PATIENCE, World, properties
from tests.support.shows import shows


def group(world: World, members: int, **fields: int) -> tuple[list[Peer], str, str]:
    """The members of a new group, its filter and a topic that it matches."""
    topic = world.topic("x")
    filter = f"$share/g/{topic.replace('/x', '/+')}"
    peers = [world.client(**fields) for _ in range(members)]
    for peer in peers:
        assert peer.subscribe(filter) == [2]
    return peers, filter, topic


def payloads(count: int) -> list[bytes]:
    return [b"%02d" % number for number in range(count)]


def publish(world: World, topic: str, count: int, qos: int = 1) -> None:
    sender = world.client()
    for payload in payloads(count):
        assert sender.publish(topic, payload, qos) == 0


def take(peer: Peer) -> list[Publish]:
    """The messages received so far, not acknowledged."""
    return [packet for packet in peer.sync() if isinstance(packet, Publish)]


@shows(v5="4.8.2-1 4.8.2-2")
@pytest.mark.parametrize(
    "filter",
    [
        b"$share/g", b"$share//a", b"$share/g+/a", b"$share/#/a", b"$share/g/", b"$share/", b"$share/g/a#",
        b"$share/g/#/a", b"$share/g/a+/b",
    ],
)  # fmt: skip
def test_malformed_shared_filter_ends_connection(world: World, filter: bytes) -> None:
    peer = world.client()
    peer.send(raw.subscribe(filter, 5))
    peer.expect_end(0x81)


def test_each_message_goes_to_one_member(world: World) -> None:
    members, _, topic = group(world, 3)
    publish(world, topic, 30)
    got = [take(member) for member in members]
    assert sorted(message.payload for one in got for message in one) == payloads(30)
    assert [len(one) for one in got] == [10, 10, 10]


def test_groups_and_plain_subscribers_each_get_a_copy(world: World) -> None:
    (member,), filter, topic = group(world, 1)
    other = world.client()
    other.subscribe(filter.replace("/g/", "/h/"))
    plain = world.client()
    plain.subscribe(topic)
    publish(world, topic, 1)
    for peer in (member, other, plain):
        assert len(take(peer)) == 1


@shows(v5="4.8.2-3")
def test_message_comes_at_the_members_qos(world: World) -> None:
    topic = world.topic()
    low, high = world.client(), world.client()
    low.subscribe(f"$share/g/{topic}", qos=0)
    high.subscribe(f"$share/g/{topic}", qos=2)
    publish(world, topic, 4, 2)
    assert [message.qos for message in take(low)] == [0, 0]
    assert [message.qos for message in take(high)] == [2, 2]


@pytest.mark.parametrize("how", ["lost", "left", "unsubscribed"])
def test_unacknowledged_messages_go_to_other_members(world: World, how: str) -> None:
    (first, second), filter, topic = group(world, 2)
    publish(world, topic, 10)
    mine = take(first)
    first.send(Ack(PUBACK, mine[0].packet_id))
    first.sync()
    if how == "lost":
        first.lose()
    elif how == "left":
        first.leave()
    else:
        first.unsubscribe(filter)
    got = [second.message() for _ in range(9)]
    assert sorted([mine[0].payload, *(message.payload for message in got)]) == payloads(10)
    assert not any(message.dup for message in got)
    second.expect_nothing()
    if how == "unsubscribed":
        for message in mine[1:]:
            first.send(Ack(PUBACK, message.packet_id))  # a late acknowledgement is accepted
        first.expect_nothing()


def test_messages_of_a_disconnected_session_go_to_other_members(world: World) -> None:
    (first, second), _, topic = group(world, 2, expiry=60)
    publish(world, topic, 10)
    mine = take(first)
    assert mine
    first.lose()
    assert sorted(second.messages(10)) == payloads(10)
    again = world.client(first.client_id, clean=False, expiry=60)
    assert again.connack.session_present
    again.expect_nothing()


@shows(v5="4.8.2-4")
def test_sent_qos_2_message_stays_with_its_receiver(world: World) -> None:
    (first, second), _, topic = group(world, 2, expiry=60)
    publish(world, topic, 2, 2)
    (mine,), (theirs,) = take(first), take(second)
    first.lose()
    second.acknowledge(theirs)
    second.expect_nothing()
    again = world.client(first.client_id, clean=False, expiry=60)
    message = again.message()
    assert (message.packet_id, message.payload, message.dup) == (mine.packet_id, mine.payload, True)


@shows(v5="4.8.2-5")
def test_sent_qos_2_message_ends_with_its_receivers_session(world: World) -> None:
    (first, second), _, topic = group(world, 2)
    publish(world, topic, 2, 2)
    assert len(take(first)) == 1
    second.acknowledge(take(second)[0])
    first.lose()
    second.expect_nothing()


@shows(v5="4.8.2-6")
@pytest.mark.parametrize("qos", [1, 2])
def test_refused_message_goes_to_no_other_member(world: World, qos: int) -> None:
    (first, second), _, topic = group(world, 2)
    publish(world, topic, 2, qos)
    (mine,), (theirs,) = take(first), take(second)
    first.send(Ack(PUBACK if qos == 1 else PUBREC, mine.packet_id, 0x83))
    first.expect_nothing()
    first.lose()
    second.acknowledge(theirs)
    second.expect_nothing()


def test_messages_of_a_stalled_member_go_to_other_members(world: World) -> None:
    (first, second), _, topic = group(world, 2)
    publish(world, topic, 10)
    mine = take(first)
    assert len(mine) == 5
    seen = second.messages(5)
    for _ in range(3):
        world.elapse(SHARED_PATIENCE / 2 + 0.5)
        second.alive()
    seen += second.messages(5)
    assert sorted(seen) == payloads(10)
    publish(world, topic, 4)
    assert sorted(second.messages(4)) == payloads(4)  # the stalled member gets nothing while it acknowledges nothing
    for message in mine:
        first.send(Ack(PUBACK, message.packet_id))
    first.sync()
    world.elapse(1.5)
    second.sync()
    publish(world, topic, 2)
    assert len(take(first)) == 1


def test_returning_member_gets_messages_of_absent_members(world: World) -> None:
    members, _, topic = group(world, 2, expiry=60)
    for member in members:
        member.lose()
    publish(world, topic, 10)
    again = world.client(members[1].client_id, clean=False, expiry=60)
    assert sorted(again.messages(10)) == payloads(10)
    again.expect_nothing()


def test_redistributed_messages_still_fill_the_stalled_window(world: World) -> None:
    """Messages given to others count against its receive maximum until it acknowledges them."""
    (first, second), _, topic = group(world, 2, receive_maximum=3)
    own = world.topic()
    first.subscribe(own)
    publish(world, topic, 6)
    mine = take(first)
    assert len(mine) == 3
    second.messages(3)
    for _ in range(3):
        world.elapse(SHARED_PATIENCE / 2 + 0.5)
        second.alive()
    second.messages(3)
    publish(world, own, 1)
    first.expect_nothing()
    first.send(Ack(PUBACK, mine[0].packet_id))
    assert first.expect(Publish).topic == own


def test_qos_2_exchange_completes_while_a_member_leaves(world: World) -> None:
    (first, second), _, topic = group(world, 2)
    publish(world, topic, 2, 2)
    (mine,) = take(first)
    first.send(Ack(PUBREC, mine.packet_id))
    first.expect(Ack)
    second.lose()
    first.send(Ack(PUBCOMP, mine.packet_id))
    first.expect_nothing()


@shows(v5="4.8.2-3")
def test_member_that_subscribes_again_counts_once(world: World) -> None:
    (first, second), filter, topic = group(world, 2)
    assert first.subscribe(filter, qos=1) == [1]
    publish(world, topic, 4, 2)
    assert [message.qos for message in take(first)] == [1, 1]
    assert [message.qos for message in take(second)] == [2, 2]


@pytest.mark.parametrize("protocol", [3, 4])
def test_client_before_5_0_may_join_a_group(world: World, protocol: int) -> None:
    (modern,), filter, topic = group(world, 1)
    older = world.client(protocol=protocol)
    assert older.subscribe(filter) == [2]
    publish(world, topic, 10)
    mine = take(older)
    assert len(mine) == len(take(modern)) == 5
    older.lose()
    assert sorted(modern.messages(5)) == sorted(message.payload for message in mine)


def test_group_without_members_receives_nothing(world: World) -> None:
    (first, second), filter, topic = group(world, 2)
    first.unsubscribe(filter)
    second.leave()
    assert world.client().publish(topic) == 0x10
    newcomer = world.client()
    newcomer.subscribe(filter)
    newcomer.expect_nothing()


def test_connected_members_are_served_before_absent_ones(world: World) -> None:
    """For every QoS: a disconnected session gets no message while another member is connected."""
    (first, second), _, topic = group(world, 2, expiry=60)
    first.lose()
    for qos in range(3):
        publish(world, topic, 6, qos)
        assert second.messages(6) == payloads(6)
    again = world.client(first.client_id, clean=False, expiry=60)
    again.expect_nothing()
    publish(world, topic, 2)
    assert (len(take(again)), len(take(second))) == (1, 1)


@pytest.mark.parametrize("qos", [1, 2])
def test_unsent_messages_of_a_lost_member_go_to_others(world: World, qos: int) -> None:
    """Of QoS 2 only messages that were not sent: a sent one stays with its receiver."""
    (first, second), _, topic = group(world, 2, expiry=60, receive_maximum=2)
    publish(world, topic, 10, qos)
    mine, seen = take(first), []
    assert len(mine) == 2
    first.lose()
    for _ in range(10 if qos == 1 else 8):
        seen.append(second.message().payload)
    second.expect_nothing()
    again = world.client(first.client_id, clean=False, expiry=60)
    if qos == 2:
        assert again.messages(2) == [message.payload for message in mine]
        seen += [message.payload for message in mine]
    again.expect_nothing()
    assert sorted(seen) == payloads(10)


def test_redistributed_message_is_unchanged(world: World) -> None:
    (first, second), _, topic = group(world, 2)
    fields = {"content_type": "c", "user": [("b", "1"), ("a", "2")], "message_expiry": 100}
    for _ in range(2):
        world.client().publish(topic, b"x", properties=properties(**fields))
    take(first)
    second.message()
    first.lose()
    got = second.message()
    assert (got.topic, got.payload, got.qos, got.dup, got.retain) == (topic, b"x", 1, False, False)
    assert got.properties is not None
    assert (got.properties.content_type, got.properties.user) == (fields["content_type"], fields["user"])
    assert got.properties.message_expiry in (98, 99, 100)


@pytest.mark.parametrize("granted", [0, 1])
def test_redistributed_message_has_its_new_members_qos(world: World, granted: int) -> None:
    topic = world.topic()
    first, second = world.client(receive_maximum=1), world.client()
    first.subscribe(f"$share/g/{topic}", qos=2)
    publish(world, topic, 3, 2)
    (held,) = take(first)
    second.subscribe(f"$share/g/{topic}", qos=granted)
    first.lose()
    got = [second.message() for _ in range(2)]
    assert [(message.payload, message.qos) for message in got] == [(one, granted) for one in payloads(3)[1:]]
    assert held.payload == payloads(3)[0]
    second.expect_nothing()


def test_new_member_gets_messages_of_absent_members(world: World) -> None:
    """The absent members do not get these messages again when they return."""
    members, filter, topic = group(world, 2, expiry=60)
    for member in members:
        member.leave()
    publish(world, topic, 10)
    newcomer = world.client()
    newcomer.subscribe(filter)
    assert sorted(newcomer.messages(10)) == payloads(10)
    newcomer.expect_nothing()
    for member in members:
        world.client(member.client_id, clean=False, expiry=60).expect_nothing()
