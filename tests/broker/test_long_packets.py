"""Packets that take several turns: SUBSCRIBE with many filters, PUBLISH whose topic leads through many filters."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from mesh.broker.principal import VEHICLE
from mesh.broker.work import STEPS
from mesh.wire import tree
from mesh.wire.packets import (
    PINGREQ,
    Ack,
    Disconnect,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from mesh.wire.properties import Properties
from tests.broker.slice_bench import COUNT, LEVELS, bench, lines
from tests.support.bench import Bench, subscribe


def wide_filters(prefix: str, count: int, depth: int) -> Iterator[str]:
    """Filters that all match the topic ``prefix`` + ``a/a/…``, and share few nodes of the tree."""
    dice = Random(1)
    for _ in range(count):
        yield prefix + "/".join(dice.choice("+a") for _ in range(depth))


@pytest.mark.skipif(not tree.__file__.endswith(".py"), reason="lines are counted in Python only")
def test_a_topic_leads_through_a_bounded_part_of_the_filters() -> None:
    """One vehicle with a thousand filters that all match: a PUBLISH took 50 ms, and a turn may bring hundreds."""
    mesh = bench(max_subscriptions=COUNT)
    client = mesh.client("c", "V", VEHICLE)
    codes: list[int] = []
    for filter in wide_filters("vehicles/V/", 400, LEVELS):
        client.send(Subscribe(1, [Subscription(filter, 1)]))
        codes += client.take(SubAck)[0].reasons
    assert codes[0] == 1
    assert codes[-1] == 0x97
    routes = mesh.broker.subscriptions
    most = lines(lambda: routes.route("vehicles/V/" + "/".join("a" * LEVELS)))
    assert most < 16 * mesh.settings.match_nodes
    # The filters that clients really use are accepted all the same, of this vehicle and of others.
    subscribe(client, "vehicles/V/+/b/+/d/+/#")
    other = mesh.client("d", "W", VEHICLE)
    subscribe(other, "vehicles/W/" + "/".join("a" * LEVELS))


def test_a_thousand_filters_of_the_most_levels_are_accepted() -> None:
    mesh = bench()
    client = mesh.client("c", "V", VEHICLE)
    deep = "/".join("+" * (LEVELS - 4))
    for number in range(1000):
        subscribe(client, f"vehicles/V/{number}/{deep}/x")
    assert len(mesh.broker.subscriptions) == 1000


def test_a_message_has_the_identifiers_of_all_subscriptions_that_match() -> None:
    mesh = bench()
    client = mesh.client("c", "V", VEHICLE)
    for number, filter in enumerate(("a/b", "a/+", "+/b", "#"), 1):
        properties = Properties()
        properties.subscription_ids = [number]
        no_local = filter == "#"
        client.send(Subscribe(1, [Subscription(f"vehicles/V/{filter}", 1, no_local)], properties))
    client.take(SubAck)
    for source, expected in ((client, [1, 2, 3]), (mesh.client("other"), [1, 2, 3, 4])):
        source.send(Publish("vehicles/V/a/b", b"x", 1, packet_id=1))
        (found,) = client.take(Publish)
        assert found.properties is not None
        assert sorted(found.properties.subscription_ids) == expected


# Packets with many filters, and messages whose receivers take long to find


MANY = [Subscription(f"a/{number}/" + "/".join("b" * 98), 1) for number in range(1000)]


def grown(mesh: Bench) -> list[int]:
    """By how many the subscriptions change in each turn until no work is left."""
    found: list[int] = []
    more = True
    while more:
        before = len(mesh.broker.subscriptions)
        more = mesh.broker.end_turn()
        mesh.broker.durable(mesh.store.commit())
        found.append(abs(len(mesh.broker.subscriptions) - before))
    return found


def test_a_packet_with_a_thousand_filters_takes_several_turns() -> None:
    mesh = bench()
    client = mesh.client("c", expiry=100)
    mesh.auto = False
    mesh.broker.receive(client.connection, Subscribe(1, MANY))
    assert 0 < len(mesh.broker.subscriptions) <= STEPS // 100
    mesh.broker.receive(client.connection, Unsubscribe(2, [MANY[0].filter]))
    mesh.broker.receive(client.connection, Subscribe(3, MANY[:1]))
    found = grown(mesh)
    assert max(found) <= STEPS // 100
    assert len(mesh.broker.subscriptions) == 1000
    mesh.turn()
    answers = client.take(SubAck)
    assert [answer.packet_id for answer in answers] == [1, 2, 3]  # in the order of the client
    assert [answer.reasons for answer in answers] == [[1] * 1000, [0], [1]]
    mesh.broker.receive(client.connection, Unsubscribe(2, [one.filter for one in MANY]))
    assert max(grown(mesh)) <= STEPS // 100
    assert len(mesh.broker.subscriptions) == 0
    mesh.turn()
    assert client.take(SubAck)[-1].reasons == [0] * 1000
    assert mesh.store.crash().items.keys() == mesh.store.items.keys()


def test_a_client_that_goes_while_its_filters_are_added_leaves_a_whole_session() -> None:
    mesh = bench()
    client = mesh.client("c", expiry=100)
    mesh.auto = False
    mesh.broker.receive(client.connection, Subscribe(1, MANY))
    client.lose()
    mesh.auto = True
    mesh.turn()
    (session,) = mesh.broker.sessions.all()
    assert 0 < len(session.interests) < 1000
    assert len(mesh.broker.subscriptions) == len(session.interests)
    client.connect(clean=False, expiry=100)
    subscribe(client, *[one.filter for one in MANY])
    assert len(mesh.restart().broker.subscriptions) == 1000


def test_a_session_that_ends_while_its_filters_are_added_gets_no_more() -> None:
    mesh = bench()
    client = mesh.client("c")
    mesh.broker.receive(client.connection, Subscribe(1, MANY))
    client.lose()
    mesh.turn()
    assert len(mesh.broker.subscriptions) == 0
    assert mesh.broker.sessions.all() == []
    assert mesh.store.items == {}


def test_retained_messages_for_many_filters_arrive_also_after_a_crash() -> None:
    mesh = bench()
    for number in range(0, 100, 7):
        mesh.client("p").publish(f"r/{number}", b"%d" % number, retain=True)
    wanted = [f"r/{number}" for number in range(100)]
    client = mesh.client("c", expiry=100)
    subscribe(client, *wanted)
    expected = [b"%d" % number for number in range(0, 100, 7)]
    assert sorted(client.messages(), key=int) == expected
    other = mesh.client("d", expiry=100)
    mesh.auto = False
    mesh.broker.receive(other.connection, Subscribe(1, [Subscription(filter, 1) for filter in wanted]))
    for _ in range(5):
        mesh.broker.end_turn()
    mesh.store.commit()
    again = mesh.restart()
    again.auto = True
    other = again.client("d", clean=False, expiry=100)
    assert sorted(set(other.messages()), key=int) == expected
    client = again.client("c", clean=False, expiry=100)
    assert client.messages() == []


def test_a_disconnect_behind_many_filters_counts() -> None:
    mesh = bench()
    listener = mesh.client("listener")
    subscribe(listener, "will")
    client = mesh.client("c", will=Will("will", b"gone", 1))
    mesh.broker.receive(client.connection, Subscribe(1, MANY))
    mesh.broker.receive(client.connection, Disconnect())
    client.lose()
    mesh.turn()
    assert listener.messages() == []
    client = mesh.client("c", will=Will("will", b"gone", 1))
    mesh.broker.receive(client.connection, Subscribe(1, MANY))
    mesh.broker.receive(client.connection, Disconnect())
    mesh.turn()
    assert listener.messages() == []
    assert client.closed


@pytest.mark.skipif(not tree.__file__.endswith(".py"), reason="compiled methods cannot be replaced")
def test_a_fault_in_the_middle_of_a_long_packet_ends_its_connection_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mesh = bench()
    client, other = mesh.client("c"), mesh.client("other")
    mesh.broker.receive(client.connection, Subscribe(1, MANY))

    def fails(_interest: object) -> None:
        raise ValueError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(mesh.broker.subscriber, "add", lambda *_: fails(None))
        with pytest.raises(ExceptionGroup):
            mesh.broker.end_turn()
    mesh.turn()
    assert client.closed
    assert subscribe(other, "a") == [1]
    assert len(mesh.broker.subscriptions) == 1


def test_messages_whose_receivers_take_long_to_find_wait_for_their_turn() -> None:
    mesh = bench(max_subscriptions=COUNT, in_flight=10, match_nodes=1024)
    vehicle = mesh.client("c", "V", VEHICLE)
    subscribe(vehicle, *wide_filters("vehicles/V/", 200, LEVELS))
    busy, quick = mesh.client("busy", "V", VEHICLE), mesh.client("quick", "W", VEHICLE)
    mesh.turn()
    mesh.auto = False
    mesh.broker.end_turn()
    counters = mesh.broker.counters
    before = counters.published
    deep = "vehicles/V/" + "/".join("a" * (LEVELS - 1))
    for number in range(100):
        mesh.broker.receive(busy.connection, Publish(f"{deep}/{number}", b"%d" % number, 1, packet_id=number + 1))
    mesh.broker.receive(busy.connection, Ping(PINGREQ))
    begun = counters.published - before
    assert 0 < begun * mesh.broker.subscriptions._tree.visited <= STEPS + 1536
    mesh.broker.receive(quick.connection, Publish("vehicles/W/t", b"x", 1, packet_id=1))
    assert counters.published - before == begun + 1  # others do not wait
    turns = [begun]
    while len(busy.connection.inbound.receipts) or busy.connection.later is not None:
        done = counters.published
        mesh.broker.end_turn()
        mesh.broker.durable(mesh.store.commit())
        turns.append(counters.published - done)
    assert sum(turns) == 100
    assert max(turns) <= begun + 1
    mesh.auto = True
    mesh.turn()
    assert [packet.packet_id for packet in busy.take(Ack)] == list(range(1, 101))
    assert len(busy.take(Ping)) == 1
