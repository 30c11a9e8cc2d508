"""Long work is done in slices: no turn does more than a bounded part of it, whatever is stored or asked for."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from mesh.broker.inbox import InboxRules
from mesh.broker.principal import VEHICLE
from mesh.broker.settings import HOLD, Settings
from mesh.broker.work import STEPS
from mesh.session.message import message_of
from mesh.wire import tree
from mesh.wire.packets import (
    Ack,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import is_error
from tests.broker.slice_bench import COUNT, LEVELS, bench, lines, turns
from tests.fakes.store import CountingStore
from tests.support.bench import Bench, Client, subscribe

TOPICS = 300
FILTERS = 60
DROPS = 2 * STEPS  # more than one turn may drop, far less than these tests have


def retain_deep(mesh: Bench, topics: int = TOPICS) -> None:
    """Retain topics of as many levels as a client may use."""
    for number in range(topics):
        topic = f"{number}/" + "/".join("x" * (LEVELS - 1))
        mesh.broker.dispatcher.route(message_of(Publish(topic, b"r", 1, True), mesh.clock(), False), None, None)
    mesh.turn()


@pytest.mark.skipif(not tree.__file__.endswith(".py"), reason="lines are counted in Python only")
def test_a_subscription_to_deep_retained_topics_takes_a_bounded_part_of_each_turn() -> None:
    mesh = bench()
    retain_deep(mesh)
    client = mesh.client()
    other = mesh.client("other")
    subscribe(other, "news")
    filters = [Subscription("/".join("+" * depth), 1) for depth in range(LEVELS - FILTERS, LEVELS)]
    most = lines(lambda: mesh.broker.receive(client.connection, Subscribe(1, filters)))
    more = True
    while more:
        again: list[bool] = []
        most = max(most, lines(lambda: again.append(mesh.broker.end_turn())))  # noqa: B023
        mesh.broker.durable(mesh.store.commit())
        more = again[0]
    assert most < 40 * STEPS
    mesh.turn()
    assert client.take(SubAck)[0].reasons == [1] * FILTERS


def test_the_retained_messages_of_a_long_search_arrive_once_the_oldest_first() -> None:
    mesh = bench()
    retain_deep(mesh)
    client = mesh.client()
    client.send(Subscribe(1, [Subscription("/".join("+" * LEVELS), 1)]))
    found = client.take(Publish)
    assert [message.topic.split("/")[0] for message in found] == [str(number) for number in range(TOPICS)]


def test_a_search_finds_what_was_retained_when_it_began_and_not_what_was_replaced_since() -> None:
    mesh = bench()
    retain_deep(mesh)
    client = mesh.client()
    mesh.auto = False
    mesh.broker.receive(client.connection, Subscribe(1, [Subscription("#", 1)]))
    assert mesh.broker.end_turn()
    rest = "/".join("x" * (LEVELS - 1))
    for number, payload in ((0, b"new"), (1, b""), (TOPICS, b"new")):
        publish = Publish(f"{number}/{rest}", payload, 1, True)
        mesh.broker.dispatcher.route(message_of(publish, mesh.clock(), False), None, None)
    mesh.auto = True
    mesh.turn()
    found = client.take(Publish)
    retained = [message.topic.split("/")[0] for message in found if message.retain]
    live = [(message.topic.split("/")[0], message.payload) for message in found if not message.retain]
    assert retained == [str(number) for number in range(2, TOPICS)]
    assert live == [("0", b"new"), ("1", b""), (str(TOPICS), b"new")]


def test_an_unsubscribe_ends_a_search() -> None:
    mesh = bench()
    retain_deep(mesh)
    client = mesh.client()
    mesh.broker.receive(client.connection, Subscribe(1, [Subscription("#", 1)]))
    (session,) = mesh.broker.sessions.all()
    assert session.retained_backlog
    mesh.broker.catch_up.forget(next(iter(session.retained_backlog)))
    assert session.retained_backlog is None
    mesh.turn()
    assert client.messages() == []


def fill(mesh: Bench, client_id: str, count: int, topic: str = "t", **fields: Any) -> Client:
    """A disconnected client with this many messages in its queue."""
    client = mesh.client(client_id, expiry=100, **fields)
    subscribe(client, topic)
    client.lose()
    put(mesh, count, topic.removeprefix("$share/g/"))
    return client


def put(mesh: Bench, count: int, topic: str = "t", expires: float = 0.0) -> None:
    for _ in range(count):
        properties = Properties()
        if expires:
            properties.message_expiry = int(expires)
        mesh.broker.dispatcher.route(
            message_of(Publish(topic, b"x", 1, False, properties=properties), mesh.clock(), False), None, None
        )
    mesh.turn()
    turns(mesh)


def test_the_end_of_a_session_drops_its_queue_in_slices() -> None:
    mesh = bench(max_queue_messages=COUNT)
    fill(mesh, "c", COUNT)
    mesh.clock.now += 101
    mesh.broker.tick()
    found = turns(mesh)
    assert max(found) <= DROPS
    assert len(found) > COUNT // STEPS
    assert mesh.store.items == {}
    assert mesh.broker.persistence.depth.messages == 0


def test_a_crash_in_the_middle_of_the_end_of_a_session_does_not_bring_it_back() -> None:
    mesh = bench(max_queue_messages=COUNT)
    fill(mesh, "c", COUNT)
    mesh.clock.now += 101
    mesh.broker.tick()
    mesh.broker.end_turn()
    mesh.store.commit()
    assert mesh.store.items
    again = mesh.restart()
    assert again.broker.sessions.all() == []
    again.turn()
    assert again.store.items == {}
    assert again.broker.persistence.lost == 0
    assert again.broker.persistence.depth.messages == 0


def test_a_clean_start_gives_a_new_session_while_the_old_one_ends() -> None:
    mesh = bench(max_queue_messages=COUNT)
    fill(mesh, "c", COUNT)
    client = mesh.client("c", clean=True, expiry=100)
    assert not client.connack().session_present
    subscribe(client, "t")
    put(mesh, 1)
    assert client.messages() == [b"x"]
    assert len(mesh.broker.subscriptions) == 1


def test_a_session_that_has_ended_gets_no_message() -> None:
    mesh = bench(max_queue_messages=COUNT, max_subscriptions=COUNT)
    client = mesh.client("c", expiry=100)
    for number in range(3000):
        client.bench.broker.receive(client.connection, Subscribe(1, [Subscription(f"t/{number}", 1)]))
    mesh.turn()
    client.lose()
    mesh.clock.now += 101
    mesh.broker.tick()
    assert len(mesh.broker.subscriptions) > 0
    route = mesh.broker.subscriptions.route("t/2999")
    assert route.targets == []
    assert max(turns(mesh)) <= DROPS
    assert len(mesh.broker.subscriptions) == 0
    assert mesh.store.items == {}


def test_sessions_that_expire_together_end_in_slices() -> None:
    mesh = bench()
    for number in range(1000):
        client = mesh.client(f"c{number}", expiry=100)
        client.lose()
    turns(mesh)
    mesh.clock.now += 101
    mesh.broker.tick()
    found = turns(mesh)
    assert max(found) <= DROPS // 8
    assert len(mesh.broker.sessions) == 0


def test_retained_messages_that_expire_together_are_removed_in_slices() -> None:
    mesh = bench()
    properties = Properties()
    properties.message_expiry = 10
    for number in range(5000):
        publish = Publish(f"r/{number}", b"x", 1, True, properties=properties)
        mesh.broker.dispatcher.route(message_of(publish, mesh.clock(), False), None, None)
    turns(mesh)
    mesh.clock.now += 11
    client = mesh.client()
    subscribe(client, "r/+")
    assert client.messages() == []  # they are not sent, although they are not removed yet
    mesh.broker.tick()
    found = turns(mesh)
    assert max(found) <= DROPS
    assert len(mesh.broker.retained) == 0
    assert len(mesh.broker.retained._timers) == 0


def test_messages_of_a_member_that_leaves_move_in_slices_and_in_order() -> None:
    mesh = bench(max_queue_messages=COUNT, in_flight=10)
    fill(mesh, "c", 2000, "$share/g/t")
    other = mesh.client("other", expiry=100, auto_ack=False)
    mesh.broker.receive(other.connection, Subscribe(1, [Subscription("$share/g/t", 1)]))
    found = turns(mesh)
    assert max(found) <= DROPS
    assert len(found) > 10
    first, second = sorted(mesh.broker.sessions.all(), key=lambda session: session.id)
    assert (len(first.outbound), len(second.outbound)) == (0, 2000)
    numbers = [delivery.number for delivery in [*second.outbound.in_flight.values(), *second.outbound.waiting]]
    assert numbers == sorted(numbers)


def test_a_member_that_is_attached_while_its_messages_move_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the messages that its client has are sorted out of the queue in which the job has a place."""
    mesh = bench(max_queue_messages=COUNT, in_flight=10, keep_all=True)
    first = mesh.client("v", "V1", VEHICLE, expiry=100, auto_ack=False)
    subscribe(first, "$share/g/vehicles/V1/t")
    for number in range(1000):
        publish = Publish("vehicles/V1/t", b"%d" % number, 1)
        mesh.broker.dispatcher.route(message_of(publish, mesh.clock(), False), None, None)
    mesh.turn()
    unacked = [packet.packet_id for packet in first.take(Publish)]
    mesh = mesh.restart()
    with monkeypatch.context() as patch:
        patch.setattr(mesh, "turn", lambda: None)
        other = mesh.client("w", "V1", VEHICLE, expiry=100, auto_ack=False)
        subscribe(other, "$share/g/vehicles/V1/t")
        first = Client(mesh, "v", "V1", VEHICLE)
        first.auto_ack = False
        first.attach(unacked)
        first.live()
    assert len(mesh.broker.work) == 1
    mesh.turn()
    first.live()
    mesh = mesh.restart()
    payloads = [
        mesh.broker.persistence.load(delivery).payload
        for session in mesh.broker.sessions.all()
        for delivery in session.outbound.waiting
    ]
    assert sorted(payloads, key=int) == [b"%d" % number for number in range(1000)]


def test_a_full_queue_is_searched_for_expired_messages_in_portions() -> None:
    mesh = bench(backend_queue_messages=5000)
    fill(mesh, "c", 1)
    put(mesh, 4999, expires=10)
    mesh.clock.now += 11
    (session,) = mesh.broker.sessions.all()
    before = mesh.broker.counters.dropped_expired
    assert mesh.broker.room.make_room(session, 1)
    assert 0 < mesh.broker.counters.dropped_expired - before <= 1024
    mesh.turn()


def test_expired_messages_of_a_session_that_resumes_are_dropped_in_slices() -> None:
    mesh = bench(max_queue_messages=COUNT)
    client = fill(mesh, "c", 1)
    put(mesh, COUNT - 1, expires=10)
    put(mesh, 1)
    mesh.clock.now += 11
    client.packets.clear()
    mesh.auto = False
    client.connect(clean=False, expiry=100)
    mesh.store.commit()
    mesh.broker.durable(mesh.store.position)
    found = turns(mesh)
    assert max(found) <= DROPS
    mesh.auto = True
    mesh.turn()
    assert len(client.take(Publish)) == 2
    assert mesh.broker.persistence.depth.messages == 0


def test_large_messages_are_sent_in_slices() -> None:
    mesh = bench(max_queue_messages=COUNT)
    client = fill(mesh, "c", 0)
    for _ in range(100):
        publish = Publish("t", bytes(512 << 10), 1)
        mesh.broker.dispatcher.route(message_of(publish, mesh.clock(), False), None, None)
    mesh.turn()
    mesh.auto = False
    client.auto_ack = False
    client.connect(clean=False, expiry=100)
    mesh.broker.durable(mesh.store.commit())
    found = [sum(map(len, client.connection.out))]
    more = True
    while more:
        client.connection.out.clear()
        more = mesh.broker.end_turn()
        found.append(sum(map(len, client.connection.out)))
    assert sum(found) > 50 << 20
    assert max(found) < 16 << 20


def test_figures_reach_many_subscribers_in_slices() -> None:
    mesh = bench(system_interval=10.0)
    clients = [mesh.client(f"c{number}") for number in range(100)]
    for client in clients:
        subscribe(client, "$SYS/#", qos=0)
        client.take(Publish)
    mesh.clock.now += 11
    before = mesh.broker.counters.delivered
    mesh.broker.tick()
    assert 0 < mesh.broker.counters.delivered - before < STEPS
    mesh.turn()
    assert len({len(client.take(Publish)) for client in clients}) == 1


def test_answers_that_waited_for_a_slow_disk_leave_in_slices() -> None:
    mesh = bench()
    mesh.auto = False
    clients = [mesh.client(f"c{number}", expiry=100) for number in range(2000)]
    assert not any(client.connection.accepted for client in clients)
    store = mesh.store
    mesh.broker.durable(store.commit())
    accepted = [client.connection.accepted for client in clients]
    assert 0 < sum(accepted) <= STEPS
    assert mesh.broker.releasing
    while mesh.broker.releasing:
        before = sum(client.connection.accepted for client in clients)
        mesh.broker.end_turn()
        assert sum(client.connection.accepted for client in clients) - before <= STEPS
    assert all(client.connection.accepted for client in clients)


def test_members_of_a_group_get_messages_in_turn_while_others_leave() -> None:
    mesh = bench()
    clients = [mesh.client(f"c{number}") for number in range(5)]
    for client in clients:
        subscribe(client, "$share/g/t")
    (group,) = mesh.broker.subscriptions.groups()
    for client in (clients[1], clients[4], clients[0]):
        client.lose()
        assert [member.place for member in group.members] == list(range(len(group.members)))
    put(mesh, 10)
    assert [len(client.messages()) for client in clients] == [0, 0, 5, 5, 0]


def hold_many(mesh: Bench, protocol: int = 5) -> list[Client]:
    """A back end's queue is full, and 3,000 publishes of three clients wait for it."""
    fill(mesh, "slow", 0)
    senders = [mesh.client(f"s{number}", protocol=protocol) for number in range(3)]
    for sender in senders:
        for number in range(1, 1011):
            mesh.broker.receive(sender.connection, Publish("t", b"x", 1, packet_id=number))
        mesh.turn()
    assert mesh.broker.refusals.held == 3020
    return senders


def held(mesh: Bench) -> list[int]:
    """How many publishers wait at the ends of the next turns, until no work is left."""
    found = [mesh.broker.refusals.held + mesh.broker.letters.waiting]
    while mesh.broker.end_turn():
        found.append(mesh.broker.refusals.held + mesh.broker.letters.waiting)
    return [*found, mesh.broker.refusals.held + mesh.broker.letters.waiting]


def test_publishers_that_wait_for_a_full_queue_are_answered_in_slices() -> None:
    mesh = bench(backend_queue_messages=10, backend_when_full=HOLD, receive_maximum=COUNT)
    senders = hold_many(mesh)
    mesh.settings.backend_queue_messages = COUNT  # as if it was read
    found = held(mesh)
    assert all(before - after <= 1024 for before, after in pairwise(found))
    assert found[-1] == 0
    mesh.turn()
    assert sorted(len(sender.take(Ack)) for sender in senders) == [1010] * 3


def test_publishes_of_lost_connections_leave_a_full_queue_in_slices() -> None:
    mesh = bench(backend_queue_messages=10, backend_when_full=HOLD, receive_maximum=COUNT)
    senders = hold_many(mesh)
    for sender in senders[:2]:
        mesh.broker.lost(sender.connection)
    found = held(mesh)
    assert all(before - after <= 1024 for before, after in pairwise(found))
    mesh.turn()
    assert mesh.broker.refusals.held == 1010
    (session,) = [session for session in mesh.broker.sessions.all() if session.key[2] == "slow"]
    assert len(session.outbound) == 10 + 1010


def test_publishers_that_wait_for_dead_letters_are_answered_in_slices() -> None:
    mesh = bench(backend_queue_messages=10, dead_letter_when_full=HOLD, receive_maximum=COUNT, dead_letter_share=1000)
    fill(mesh, "slow", 0)
    sender = mesh.client("s", protocol=5)
    for number in range(1, 3001):
        mesh.broker.receive(sender.connection, Publish("t", b"x", 1, packet_id=number))
        mesh.turn()
    assert mesh.broker.letters.waiting > 2900
    mesh.settings.dead_letter_share = 1 << 30
    found = held(mesh)
    assert all(before - after <= 1024 for before, after in pairwise(found))
    assert found[-1] == 0


def test_copies_of_dead_letters_are_sent_in_slices() -> None:
    mesh = bench(backend_queue_messages=1, dead_letter_share=1 << 30)
    watchers = [mesh.client(f"w{number}") for number in range(30)]
    for watcher in watchers:
        subscribe(watcher, "$dead-letters/#", qos=0)
        watcher.take(Publish)
    fill(mesh, "slow", 1)
    for _ in range(50):
        mesh.broker.dispatcher.route(message_of(Publish("t", b"x", 1), mesh.clock(), False), None, None)
    before = mesh.broker.counters.delivered
    while mesh.broker.end_turn():
        assert mesh.broker.counters.delivered - before <= 256
        before = mesh.broker.counters.delivered
    mesh.turn()
    assert [len(watcher.take(Publish)) for watcher in watchers] == [50] * 30


@pytest.mark.parametrize("room", [1000, COUNT])
def test_no_newer_message_overtakes_those_of_an_inbox(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client has a session, whose queue may be smaller than what the inbox holds."""
    settings = Settings()
    settings.system_interval, settings.inbox_messages, settings.keep_all = 0.0, COUNT, True
    settings.max_queue_messages = room
    rules = InboxRules(lambda topic: topic.split("/")[1], lambda vehicle: [Subscription(f"vehicles/{vehicle}/#", 1)], 9)
    mesh = Bench(settings, CountingStore(), inbox=rules)
    client = mesh.client("c", "V", VEHICLE, expiry=1000)
    client.lose()
    send(mesh, 0, 3000)
    turns(mesh)
    with monkeypatch.context() as patch:
        patch.setattr(mesh, "turn", lambda: None)
        client = Client(mesh, "c", "V", VEHICLE)
        client.connect(clean=False, expiry=1000)
        client.send(Subscribe(1, [Subscription("vehicles/V/#", 1)]))
        send(mesh, 3000, 3010)
        found = turns(mesh)
    assert max(found) <= DROPS
    assert len(found) > 10
    mesh.store.commit()
    mesh = mesh.restart()
    client = mesh.client("c", "V", VEHICLE, clean=False, expiry=1000)
    arrived = 3010 if room == COUNT else 3000
    assert client.messages() == [b"%d" % number for number in range(arrived)]
    assert len(mesh.broker.letters) == 3010 - arrived
    assert [one.key for one in mesh.broker.sessions.all()] == [(VEHICLE, "V", "c")]


def send(mesh: Bench, first: int, end: int) -> None:
    """A core sends messages for the vehicle V."""
    for number in range(first, end):
        message = message_of(Publish("vehicles/V/x", b"%d" % number, 1), mesh.clock(), True)
        assert not is_error(mesh.broker.dispatcher.route(message, None, None))
