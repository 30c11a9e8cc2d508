"""The retained backlog: more retained messages for a new subscription than the session's queue holds."""

from __future__ import annotations

import pytest

from mesh.broker.settings import Settings
from mesh.session.message import message_of
from mesh.wire.packets import PUBACK, Ack, Publish, SubAck, Subscribe, Subscription, Unsubscribe
from mesh.wire.properties import Properties
from mesh.wire.reasons import SUCCESS
from tests.support.bench import Bench, Client

QUEUE, WINDOW = 10, 3
COUNT = 200
ALL = [b"%d" % number for number in range(COUNT)]


def bench() -> Bench:
    settings = Settings()
    settings.max_queue_messages = settings.backend_queue_messages = QUEUE
    settings.in_flight, settings.system_interval = WINDOW, 0.0
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
    """A client that acknowledges only in ``get``."""
    return mesh.client("slow", auto_ack=False, expiry=expiry, clean=clean)


def get(client: Client, most: int = 10 * COUNT) -> list[bytes]:
    """Receive and acknowledge up to ``most`` messages, one after the other."""
    found: list[bytes] = []
    while len(found) < most and (came := [one for one in client.packets if isinstance(one, Publish)]):
        client.packets.remove(came[0])
        found.append(came[0].payload)
        if came[0].qos:
            client.send(Ack(PUBACK, came[0].packet_id))
    return found


@pytest.mark.parametrize("expiry", [0, 100])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_all_retained_messages_arrive_the_oldest_first(qos: int, expiry: int) -> None:
    mesh = bench()
    retain(mesh)
    client = mesh.client(expiry=expiry)
    assert subscribe(client, qos=qos) == qos
    messages = client.take(Publish)
    assert [message.payload for message in messages] == ALL
    assert all(message.retain for message in messages)
    assert mesh.broker.counters.rejected == mesh.broker.counters.dropped_full == 0


def test_retained_messages_in_flight_stop_at_the_window() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    subscribe(client)
    assert len([one for one in client.packets if isinstance(one, Publish)]) == WINDOW
    (session,) = [one for one in mesh.broker.sessions.all() if one.connection is client.connection]
    assert len(session.outbound.waiting) <= QUEUE // 2
    assert get(client) == ALL


def test_live_messages_are_queued_between_portions_of_the_backlog() -> None:
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


def test_a_client_that_does_not_read_gets_the_backlog_when_it_reads() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    mesh.broker.pause(client.connection)
    subscribe(client, qos=0)
    assert client.messages() == []
    mesh.broker.resume(client.connection)
    mesh.turn()
    assert client.messages() == ALL


def test_retained_messages_replaced_or_removed_meanwhile_are_skipped() -> None:
    mesh = bench()
    sender = retain(mesh)
    client = slow(mesh)
    subscribe(client)
    sender.publish(f"r/{COUNT - 1}", b"newer", retain=True)
    sender.publish(f"r/{COUNT - 2}", b"", 0, retain=True)
    found = get(client)
    assert found.count(b"newer") == 1
    assert [one for one in found if one not in (b"newer", b"")] == ALL[:-2]


def test_an_unsubscribe_ends_the_backlog() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    subscribe(client)
    client.send(Unsubscribe(2, ["r/+"]))
    client.take(SubAck)
    assert len(get(client)) <= WINDOW + QUEUE // 2
    assert subscribe(client) == 1
    assert get(client) == ALL  # a new subscription brings all of them again


def test_a_repeated_subscription_restarts_the_backlog() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    subscribe(client)
    subscribe(client)
    found = get(client)
    assert found[-COUNT:] == ALL
    assert len(found) <= COUNT + WINDOW + QUEUE // 2


def test_a_client_that_reconnects_gets_the_rest_of_the_backlog() -> None:
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
def test_a_crash_loses_no_part_of_the_backlog(before: int) -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh, expiry=100)
    subscribe(client)
    first = get(client, before)
    mesh = mesh.restart()
    client = slow(mesh, expiry=100, clean=False)
    second = get(client)
    assert sorted(set(first + second)) == sorted(ALL)
    assert len(first + second) == COUNT  # an acknowledged message does not come again


def test_an_acknowledged_backlog_is_not_due_after_a_crash() -> None:
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


def test_a_backlog_whose_messages_were_removed_is_dropped_after_a_crash() -> None:
    mesh = bench()
    sender = retain(mesh)
    client = slow(mesh, expiry=100)
    subscribe(client)
    client.lose()
    for number in range(COUNT):
        sender.publish(f"r/{number}", b"", 0, retain=True)
    mesh = mesh.restart()
    client = mesh.client("slow", clean=False, expiry=100)
    assert len(client.messages()) <= WINDOW + QUEUE // 2  # those that were in its queue already
    (session,) = mesh.broker.sessions.all()
    assert not session.retained_backlog
    assert [interest.due_until for interest in session.interests.values()] == [0]


def test_the_backlogs_of_several_subscriptions_come_one_after_the_other() -> None:
    mesh = bench()
    retain(mesh)
    client = slow(mesh)
    filters = [Subscription("r/+", 1), Subscription("r/#", 1), Subscription("r/1", 1), Subscription("none", 1)]
    client.send(Subscribe(1, filters))
    (answer,) = client.take(SubAck)
    assert answer.reasons == [1, 1, 1, 1]
    (session,) = [one for one in mesh.broker.sessions.all() if one.connection is client.connection]
    assert session.retained_backlog is not None
    assert [len(part.topics) for part in session.retained_backlog.values()] == [COUNT, 0, 0]  # one list at a time
    assert get(client) == [*ALL, *ALL, b"1"]
    assert session.retained_backlog is None


def test_retained_messages_from_an_edge_wait_for_a_full_queue() -> None:
    """A core's subscriber gets an edge's retained messages one by one, as the edge sends them."""
    mesh = bench()
    client = slow(mesh, expiry=100)
    subscribe(client)
    for number, payload in enumerate(ALL):
        properties = Properties()
        message = message_of(Publish(f"r/{number}", payload, 1, True, properties=properties), mesh.clock(), True)
        assert mesh.broker.dispatcher.refresh_retained(message, None, "r/+") == SUCCESS
        mesh.turn()
    (session,) = mesh.broker.sessions.all()
    assert session.retained_backlog is not None
    (retained_backlog,) = session.retained_backlog.values()
    assert len(retained_backlog.topics) - retained_backlog.at > QUEUE
    assert get(client) == ALL
    assert mesh.broker.counters.rejected == 0


def test_retained_messages_from_edges_stop_at_the_limit_of_the_backlog() -> None:
    mesh = bench()
    client = slow(mesh)
    subscribe(client)
    mesh.settings.max_retained = 20
    for payload in ALL:  # one topic, with another payload each time
        message = message_of(Publish("r/1", payload, 1, True), mesh.clock(), True)
        assert mesh.broker.dispatcher.refresh_retained(message, None, "r/+") == SUCCESS
    (session,) = mesh.broker.sessions.all()
    assert session.retained_backlog is not None
    (retained_backlog,) = session.retained_backlog.values()
    assert len(retained_backlog.topics) - retained_backlog.at == 20
    assert mesh.broker.counters.rejected > 0
