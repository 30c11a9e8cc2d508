"""Retained messages that a new subscription matches and its session's queue does not hold at once."""

from __future__ import annotations

import pytest

from mesh.broker.settings import Settings
from mesh.session.message import message_of
from mesh.wire.packets import PUBACK, Ack, Publish, SubAck, Subscribe, Subscription, Unsubscribe
from mesh.wire.properties import Properties
from mesh.wire.reasons import QUOTA_EXCEEDED, SUCCESS
from tests.support.bench import Bench, Client

QUEUE, WINDOW = 10, 3
COUNT = 200
ALL = [b"%d" % number for number in range(COUNT)]


def bench() -> Bench:
    settings = Settings()
    settings.max_queue_messages, settings.in_flight, settings.system_interval = QUEUE, WINDOW, 0.0
    return Bench(settings)


def retain(mesh: Bench, count: int = COUNT) -> Client:
    sender = mesh.client("sender", "other")
    for number in range(count):
        sender.publish(f"r/{number}", b"%d" % number, retain=True)
    return sender


def subscribe(client: Client, filter: str = "r/+", qos: int = 1) -> int:
    client.send(Subscribe(1, [Subscription(filter, qos)]))
    (answer,) = client.take(SubAck)
    return int(answer.reasons[0])


def slow(mesh: Bench, expiry: int = 0, clean: bool = True) -> Client:
    """A client that acknowledges only when ``get`` has it do so."""
    return mesh.client("slow", auto_ack=False, expiry=expiry, clean=clean)


def get(client: Client, most: int = 10 * COUNT) -> list[bytes]:
    """Acknowledge what comes, one after the other, up to so many."""
    found: list[bytes] = []
    while len(found) < most and (came := [one for one in client.packets if isinstance(one, Publish)]):
        client.packets.remove(came[0])
        found.append(came[0].payload)
        if came[0].qos:
            client.send(Ack(PUBACK, came[0].packet_id))
    return found


@pytest.mark.parametrize("expiry", [0, 100])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_all_of_them_come_the_oldest_first(qos: int, expiry: int) -> None:
    mesh = bench()
    retain(mesh)
    client = mesh.client(expiry=expiry)
    assert subscribe(client, qos=qos) == qos
    messages = client.take(Publish)
    assert [message.payload for message in messages] == ALL
    assert all(message.retain for message in messages)
    assert mesh.broker.counters.rejected == mesh.broker.counters.dropped_full == 0


def test_no_more_are_on_their_way_than_the_client_takes() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    subscribe(client)
    assert len([one for one in client.packets if isinstance(one, Publish)]) == WINDOW
    (session,) = [one for one in mesh.broker.sessions.all() if one.connection is client.connection]
    assert len(session.outbound.waiting) <= QUEUE // 2
    assert get(client) == ALL


def test_new_messages_find_room_in_between() -> None:
    mesh = bench()
    sender = retain(mesh)
    client = slow(mesh)
    subscribe(client)
    client.send(Subscribe(1, [Subscription("news", 1)]))
    client.take(SubAck)
    sender.take(Ack)
    for _ in range(QUEUE // 2):
        sender.publish("news", b"new")
    assert {answer.reason for answer in sender.take(Ack)} == {SUCCESS}
    found = get(client)
    assert [one for one in found if one != b"new"] == ALL
    assert found.index(b"new") < QUEUE + WINDOW
    assert found.count(b"new") == QUEUE // 2


def test_a_client_that_does_not_read_gets_them_when_it_does() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    mesh.broker.pause(client.connection)
    subscribe(client, qos=0)
    assert client.messages() == []
    mesh.broker.resume(client.connection)
    mesh.turn()
    assert client.messages() == ALL


def test_what_was_replaced_or_removed_meanwhile_is_passed_over() -> None:
    mesh = bench()
    sender = retain(mesh)
    client = slow(mesh)
    subscribe(client)
    sender.publish(f"r/{COUNT - 1}", b"newer", retain=True)
    sender.publish(f"r/{COUNT - 2}", b"", 0, retain=True)
    found = get(client)
    assert found.count(b"newer") == 1
    assert [one for one in found if one not in (b"newer", b"")] == ALL[:-2]


def test_unsubscribed_means_no_more_of_them() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    subscribe(client)
    client.send(Unsubscribe(2, ["r/+"]))
    client.take(SubAck)
    assert len(get(client)) <= WINDOW + QUEUE // 2
    assert subscribe(client) == 1
    assert get(client) == ALL  # and anew, they all come again


def test_a_second_subscription_to_the_filter_begins_anew() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    subscribe(client)
    subscribe(client)
    found = get(client)
    assert found[-COUNT:] == ALL
    assert len(found) <= COUNT + WINDOW + QUEUE // 2


def test_who_leaves_gets_the_rest_later() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh, expiry=100)
    subscribe(client)
    first = get(client, 20)
    client.lose()
    client.packets.clear()
    client.connect(clean=False, expiry=100)
    assert first + [one for one in get(client) if one not in first] == ALL


@pytest.mark.parametrize("before", [0, 1, 20, COUNT - 1])
def test_a_crash_leaves_none_of_them_out(before: int) -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh, expiry=100)
    subscribe(client)
    first = get(client, before)
    mesh = mesh.restart()
    client = slow(mesh, expiry=100, clean=False)
    second = get(client)
    assert sorted(set(first + second)) == sorted(ALL)
    assert len(first + second) == COUNT  # what was acknowledged does not come again


def test_what_has_come_is_not_due_again_after_a_crash() -> None:
    mesh = bench()
    retain(mesh)
    client = mesh.client(expiry=100)
    subscribe(client)
    assert client.messages() == ALL
    mesh = mesh.restart()
    client = mesh.client(clean=False, expiry=100)
    assert client.messages() == []
    (interest,) = [one for session in mesh.broker.sessions.all() for one in session.interests.values()]
    assert (interest.due_after, interest.due_until) == (0, 0)


def test_what_is_due_and_gone_after_a_crash_is_forgotten() -> None:
    mesh = bench()
    sender = retain(mesh)
    client = slow(mesh, expiry=100)
    subscribe(client)
    client.lose()
    for number in range(COUNT):
        sender.publish(f"r/{number}", b"", 0, retain=True)
    mesh = mesh.restart()
    assert [session.retained_backlog for session in mesh.broker.sessions.all()] == [()]
    client = mesh.client("slow", clean=False, expiry=100)
    assert len(client.messages()) <= WINDOW + QUEUE // 2  # what was in its queue already


def test_a_session_is_owed_no_more_than_can_be_retained() -> None:
    mesh = bench()
    retain(mesh)
    mesh.settings.max_retained = COUNT + 10
    mesh = mesh.restart()
    client = slow(mesh)
    assert subscribe(client) == 1
    assert subscribe(client, "r/#") == QUOTA_EXCEEDED
    assert subscribe(client, "r/7") == 1
    assert subscribe(client, "#", 0) == QUOTA_EXCEEDED
    found = get(client)
    assert sorted(found) == sorted([*ALL, b"7"])
    assert subscribe(client, "r/#") == 1


def test_several_filters_of_one_packet_count_together() -> None:
    mesh = bench()
    retain(mesh)
    mesh.settings.max_retained = COUNT + 10
    client = slow(mesh.restart())
    client.send(Subscribe(1, [Subscription("r/+", 1), Subscription("r/#", 1), Subscription("r/1", 1)]))
    (answer,) = client.take(SubAck)
    assert answer.reasons == [1, QUOTA_EXCEEDED, 1]


def test_what_an_edge_retains_waits_for_a_full_queue_too() -> None:
    """A core's subscriber gets an edge's retained messages as they come in."""
    mesh = bench()
    client = slow(mesh, expiry=100)
    subscribe(client)
    for number, payload in enumerate(ALL):
        properties = Properties()
        message = message_of(Publish(f"r/{number}", payload, 1, True, properties=properties), mesh.clock(), True)
        assert mesh.broker.dispatcher.refresh_retained(message, None, "r/+") == SUCCESS
        mesh.turn()
    (retained_backlog,) = next(session.retained_backlog for session in mesh.broker.sessions.all())
    assert len(retained_backlog.topics) - retained_backlog.at > QUEUE
    assert get(client) == ALL
    assert mesh.broker.counters.rejected == 0


def test_what_edges_retain_is_owed_within_the_limit() -> None:
    mesh = bench()
    client = slow(mesh)
    subscribe(client)
    mesh.settings.max_retained = 20
    for payload in ALL:  # one topic, whose message is news each time
        message = message_of(Publish("r/1", payload, 1, True), mesh.clock(), True)
        assert mesh.broker.dispatcher.refresh_retained(message, None, "r/+") == SUCCESS
    (retained_backlog,) = next(session.retained_backlog for session in mesh.broker.sessions.all())
    assert len(retained_backlog.topics) - retained_backlog.at == 20
    assert mesh.broker.counters.rejected > 0
