"""What clients' long texts take: topics, routes, aliases, client ids, names of shared groups."""

from __future__ import annotations

from mesh.broker.principal import VEHICLE
from mesh.broker.quotas import topic_weight
from mesh.broker.subscriptions import Subscriptions
from mesh.wire.packets import Publish
from mesh.wire.properties import Properties
from tests.broker.quota_bench import core, edge, vehicle
from tests.support.bench import Bench, subscribe


def test_the_weight_of_a_topic_covers_its_text_and_its_levels() -> None:
    assert topic_weight("a/b/c") > topic_weight("a/b") > topic_weight("a")
    assert topic_weight("a" * 60_000) > 120_000


def test_the_routes_in_memory_are_bounded_in_bytes() -> None:
    subscriptions = Subscriptions(16_384, (), 1_000_000)
    for number in range(100):
        subscriptions.route(f"{number}" + "x" * 60_000)
    assert 0 < sum(len(topic) for topic in subscriptions._routes) <= 1_000_000


def test_a_route_counts_its_receivers() -> None:
    bench = Bench()
    bench.broker.subscriptions._most_bytes = 10_000
    for number in range(40):
        subscribe(bench.client(f"c{number}"), "fleet/#")
    for number in range(20):
        bench.broker.subscriptions.route(f"fleet/{number}")
    assert len(bench.broker.subscriptions._routes) == 1


def test_a_long_topic_gets_no_alias() -> None:
    bench = Bench()
    properties = Properties()
    properties.topic_alias_maximum = 10
    receiver, sender = bench.client("r", properties=properties), bench.client("s")
    subscribe(receiver, "#")
    for topic in ("a", "a" * 60_000):
        for _ in range(2):
            sender.publish(topic)
    assert receiver.connection.aliases is not None
    assert list(receiver.connection.aliases) == ["a"]
    assert [len(message.topic) for message in receiver.take(Publish)] == [1, 0, 60_000, 60_000]


def test_the_client_id_counts_in_a_session() -> None:
    bench = edge()
    vehicle(bench, client_id="x" * 60_000)
    assert bench.broker.quotas.memory() > 120_000
    before = bench.broker.quotas.memory()
    assert bench.restart().broker.quotas.memory() == before


def test_recovered_messages_of_a_shared_group_share_its_name() -> None:
    bench = edge()
    client = vehicle(bench)
    subscribe(client, "$share/g/vehicles/V1/#")
    client.lose()
    sender = core(bench)
    for _ in range(2):
        sender.publish("vehicles/V1/cmd")
    session = bench.restart().broker.sessions.get((VEHICLE, "V1", "c"))
    assert session is not None
    first, second = session.outbound.waiting
    assert first.group is second.group
    assert first.group == "$share/g/vehicles/V1/#"
