"""Settings of a core that change while it serves: its links, its back ends, and what reaches the edges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.core.recovery import CoreItems
from mesh.policy.scram import make_verifier, write_line
from mesh.policy.secrettext import SecretText
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.provider import ProviderSpec
from mesh.topology.topology import AccessRule, BackendRule, BackendUser, LimitsSpec, ListenerSpec, Topology
from mesh.topology.units import Address
from mesh.transport.endpoint import EndpointClient
from mesh.wire import reasons
from mesh.wire.packets import MQTT5, MQTT311, PUBACK, Ack, Auth, Connack, Connect, Disconnect, Publish
from mesh.wire.properties import Properties
from tests.core.harness import Mesh, acks, retained, say
from tests.core.pressed import FLIGHT, QUEUE, WINDOW, codes, flood, full_vehicle, tick
from tests.support.bare import Bare
from tests.support.effects import effect_of
from tests.support.nodes import Nodes, etcd, publish, with_nodes
from tests.support.ports import free_ports
from tests.support.scram_client import ScramClient
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture

LIMITS = LimitsSpec()


def take(mesh: Mesh, fleet: tuple[str, ...] = ("fleet/#",), **values: float) -> None:
    """Change the values of all links."""
    limits = replace(LIMITS, **values)  # type: ignore[arg-type]
    mesh.router.fleet = fleet
    for link in mesh.links.values():
        link.take(limits.owner_timeout, limits.queue_patience, limits.spool_messages, limits.spool_bytes, fleet)
    mesh.run()


@effect_of("limits.spool_messages", "limits.spool_bytes")
@pytest.mark.parametrize("bound", [{"spool_messages": 2}, {"spool_bytes": 7000}])
def test_bounds_of_the_spool(bound: dict[str, int]) -> None:
    mesh = Mesh(1)
    backend = mesh.backend()
    for _ in range(2):
        backend.publish("vehicles/V1/cmd", b"x" * 3000)
    mesh.run()
    assert [reason for _, reason in acks(backend)] == [0, 0]
    take(mesh, **bound)
    backend.publish("vehicles/V1/cmd", b"x" * 3000)
    mesh.run()
    assert [reason for _, reason in acks(backend)] == [reasons.QUOTA_EXCEEDED]
    take(mesh)
    backend.publish("vehicles/V1/cmd", b"x" * 3000)
    mesh.run()
    assert [reason for _, reason in acks(backend)] == [0]


@effect_of("limits.owner_timeout")
def test_time_that_an_edge_has_to_answer() -> None:
    mesh = Mesh(1)
    mesh.connect()
    backend = mesh.backend()
    mesh.pipes["edge-1"].mute = True
    backend.publish("vehicles/V1/cmd")
    mesh.run()
    mesh.clock.now += 3
    mesh.links["edge-1"].tick()
    mesh.run()
    assert acks(backend) == []
    take(mesh, owner_timeout=2.0)
    mesh.links["edge-1"].tick()
    mesh.run()
    assert [reason for _, reason in acks(backend)] == [0]


@effect_of("limits.queue_patience")
def test_patience_with_a_full_queue() -> None:
    mesh = Mesh(1)
    settings = mesh.edges["edge-1"].settings
    settings.max_queue_messages, settings.in_flight, settings.receive_maximum = QUEUE, FLIGHT, WINDOW
    mesh.connect()
    full_vehicle(mesh)
    backend = mesh.backend()
    flood(mesh, backend, 0, 5)
    take(mesh, queue_patience=60.0)
    for _ in range(30):
        tick(mesh, 1)
    assert codes(backend) == []
    take(mesh, queue_patience=20.0)
    tick(mesh, 0)
    assert codes(backend) == [reasons.QUOTA_EXCEEDED] * 5


@effect_of("fleet")
def test_a_fleet_filter_that_is_added_brings_its_retained_messages_to_the_edges() -> None:
    mesh = Mesh(2)
    mesh.connect("edge-1")
    backend = mesh.backend()
    say(backend, mesh, "fleet/news", b"1")
    say(backend, mesh, "site/map", b"2")
    say(backend, mesh, "other", b"3")
    assert mesh.edges["edge-1"].broker.retained.get("site/map") is None
    take(mesh, fleet=("fleet/#", "site/#"))
    mesh.connect("edge-2")
    say(backend, mesh, "site/rules", b"4")
    for edge in mesh.edges.values():
        assert retained(edge) == {"fleet/news": b"1"}
        assert [topic for topic, _ in edge.broker.retained.items("#")] != []
        assert sorted(topic for topic, _ in edge.broker.retained.items("site/#")) == ["site/map", "site/rules"]
        assert edge.broker.retained.get("other") is None
    take(mesh, fleet=("site/#",))
    say(backend, mesh, "fleet/news", b"5")
    assert retained(mesh.edges["edge-1"]) == {"fleet/news": b"1"}
    mesh = mesh.restart_core()
    mesh.router.fleet = ("site/#",)
    mesh.connect()
    assert mesh.links["edge-1"].spool.messages == 0


def test_fleet_filters_that_change_while_messages_are_given_lose_none() -> None:
    mesh = Mesh(1)
    backend = mesh.backend()
    for number in range(300):
        say(backend, mesh, f"fleet/{number}", b"x")
        say(backend, mesh, f"site/{number}", b"x")
    mesh.pipes["edge-1"] = mesh.pipe(mesh.links["edge-1"], mesh.edges["edge-1"])
    mesh.edges["edge-1"].turn()
    mesh.core.turn()
    mesh.links["edge-1"].advance()
    take(mesh, fleet=("fleet/#", "site/#"))
    for _ in range(20):
        mesh.run()
        mesh.links["edge-1"].tick()
    edge = mesh.edges["edge-1"].broker.retained
    assert (len(edge.items("fleet/#")), len(edge.items("site/#"))) == (300, 300)


@pytest.mark.parametrize("connected", [True, False])
def test_an_edge_that_is_removed_leaves_nothing_behind(connected: bool) -> None:
    mesh = Mesh(2)
    mesh.connect()
    backend = mesh.backend("app", "vehicles/+/up")
    say(backend, mesh, "fleet/news", b"1")
    assert "edge-2" in CoreItems(mesh.core.store.live()).links
    if not connected:
        mesh.pipes["edge-2"].cut()
    else:
        mesh.pipes["edge-2"].mute = True
    backend.publish("fleet/now")
    backend.publish("vehicles/V2/cmd", qos=2)
    mesh.run()
    depths = len(mesh.core.broker.quotas.depths)
    link = mesh.links.pop("edge-2")
    link.abort()
    mesh.core.broker.work.add(link.discard())
    mesh.run()
    assert [reason for _, reason in acks(backend)][-2:] == [0, 0]
    assert (link.spool.messages, link.spool.bytes, len(mesh.core.broker.work)) == (0, 0, 0)
    assert "edge-2" not in CoreItems(mesh.core.store.crash().live()).links
    assert len(mesh.core.broker.letters) == 1  # of the vehicle
    assert len(mesh.core.broker.quotas.depths) == depths - 1
    for _ in range(12):
        for _ in range(100):  # together more than the spool takes
            backend.publish("fleet/more")
        mesh.run()
    assert [reason for _, reason in acks(backend)] == [reasons.NO_MATCHING_SUBSCRIBERS] * 1200


# Real nodes


def rule(topology: Topology, *users: tuple[str, str], anonymous: bool = True) -> Topology:
    made = tuple([BackendUser(user=user, password=SecretText(text=password)) for user, password in users])
    return replace(topology, backends=BackendRule(anonymous=anonymous, users=made))


async def closed_with(client: Bare) -> list[int]:
    await client.wait_closed()
    return [packet.reason for packet in client.packets if isinstance(packet, Disconnect)]


@effect_of("backends.users", "backends.anonymous")
def test_users_and_anonymous(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        app = await mesh.knock("a", "app", b"right")
        old = await mesh.knock("o", "old", b"right")
        old3 = await mesh.knock("o3", "old", b"right", MQTT311)
        free, squatter = await mesh.knock("f", None), await mesh.knock("s", "fresh")
        for client in (app, old, old3, free, squatter):
            assert (await client.wait(Connack)).reason == 0
        await mesh.change(lambda topology: rule(topology, ("app", "new"), ("fresh", "right")))
        assert await closed_with(old) == [reasons.NOT_AUTHORIZED]
        assert await closed_with(old3) == []
        assert await closed_with(squatter) == [reasons.NOT_AUTHORIZED]  # its name needs a password now
        for client, name, password, reason in (
            ("a1", "app", b"right", 0x86), ("a2", "app", b"new", 0), ("b", "fresh", b"right", 0),
            ("c", "fresh", None, 0x86), ("d", "old", None, 0),
        ):  # fmt: skip
            assert (await (await mesh.knock(client, name, password)).wait(Connack)).reason == reason
        publish(app, "still/here")
        await app.acked(PUBACK, [1])
        await mesh.change(lambda topology: rule(topology, ("app", "new"), ("fresh", "right"), anonymous=False))
        assert await closed_with(free) == [reasons.NOT_AUTHORIZED]
        assert (await (await mesh.knock("e", None)).wait(Connack)).reason == 0x86
        publish(app, "still/here", packet_id=2)
        await app.acked(PUBACK, [1, 2])
        await mesh.change(lambda topology: rule(topology, anonymous=True))
        assert await closed_with(app) == [reasons.NOT_AUTHORIZED]
        assert (await (await mesh.knock("e", None)).wait(Connack)).reason == 0

    with_nodes(etcd, main)


@effect_of("backends.providers")
def test_providers_of_back_ends(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    file = tmp_path / "apps.scram"
    file.write_text(f"{write_line('prover', make_verifier('right'))}\n")

    async def prove(mesh: Nodes) -> Bare:
        client, exchange = await Bare(MQTT5).connect(mesh.backends), ScramClient("prover", "right")
        mesh.clients.append(client)
        client.send(Connect(MQTT5, "p", properties=scram(exchange.first())))
        await client.until(lambda: bool(client.packets), "an answer")
        if isinstance(client.packets[0], Auth):
            asked = client.packets[0].properties
            assert asked is not None
            client.send(Auth(reasons.CONTINUE_AUTHENTICATION, scram(exchange.final(asked.auth_data or b""))))
        await client.wait(Connack)
        return client

    def scram(data: bytes) -> Properties:
        properties = Properties()
        properties.auth_method, properties.auth_data = "SCRAM-SHA-256", data
        return properties

    def asking(*providers: ProviderSpec) -> Callable[[Topology], Topology]:
        return lambda topology: replace(topology, backends=replace(topology.backends, providers=providers))

    async def main(mesh: Nodes) -> None:
        app = await mesh.knock("a", "app", b"right")
        assert (await app.wait(Connack)).reason == 0
        assert (await (await prove(mesh)).wait(Connack)).reason == reasons.NOT_AUTHORIZED  # among the users it is not
        await mesh.change(asking(ProviderSpec(name="apps", scram=file)))
        assert (await (await prove(mesh)).wait(Connack)).reason == 0  # SCRAM is that of the users, too
        await mesh.change(lambda topology: replace(topology, backends=replace(topology.backends, users=())))
        assert await closed_with(app) == [reasons.NOT_AUTHORIZED]
        prover = await prove(mesh)
        assert (await prover.wait(Connack)).reason == 0
        await mesh.change(asking())
        assert await closed_with(prover) == [reasons.NOT_AUTHORIZED]

    with_nodes(etcd, main)


@effect_of("access.backends.publish", "access.backends.subscribe")
def test_access_of_back_ends(etcd: EmbeddedEtcd) -> None:
    def allowing(*filters: str) -> Callable[[Topology], Topology]:
        granted = AccessRule(publish=filters, subscribe=filters)
        return lambda topology: replace(topology, access=replace(topology.access, backends=granted))

    async def main(mesh: Nodes) -> None:
        before = await mesh.backend("before", "vehicles/+/up", "news", expiry=100)
        away = await mesh.backend("away", "vehicles/+/up", "news", expiry=100)
        await away.close()
        assert mesh.edge._broker_host is not None
        edge = mesh.edge._broker_host.broker
        await until(lambda: "vehicles/+/up" in edge.subscriptions.filters(), "the filter at the edge")
        await mesh.change(allowing("news"))
        await until(lambda: "vehicles/+/up" not in edge.subscriptions.filters(), "no filter at the edge")
        after = await mesh.backend("after", "news")
        for client in (before, after):
            publish(client, "orders")
            publish(client, "news", packet_id=2)
            await client.acked(PUBACK, [1, 2])
            assert [ack.reason for ack in client.packets if isinstance(ack, Ack)] == [reasons.NOT_AUTHORIZED, 0]
        vehicle = await mesh.vehicle("V1")
        publish(vehicle, "vehicles/V1/up")
        await vehicle.acked(PUBACK, [1])
        assert {packet.topic for packet in before.publishes()} == {"news"}
        await mesh.change(allowing("#"))
        for number, client in enumerate((before, after), 3):
            publish(client, "orders", packet_id=number)
            await client.acked(PUBACK, [1, 2, number])
            codes = [ack.reason for ack in client.packets if isinstance(ack, Ack)]
            assert codes[-1] == reasons.NO_MATCHING_SUBSCRIBERS
        assert mesh.core._broker_host is not None
        sessions = mesh.core._broker_host.broker.sessions.all()
        kept = {one.key[2]: list(one.interests) for one in sessions if one.interests}
        assert kept == {"before": ["news"], "away": ["news"], "after": ["news"]}

    with_nodes(etcd, main)


@effect_of("limits.wrong_passwords")
def test_wrong_passwords(etcd: EmbeddedEtcd) -> None:
    async def guess(mesh: Nodes, count: int) -> list[int]:
        return [(await (await mesh.knock("g", "app", b"wrong")).wait(Connack)).reason for _ in range(count)]

    async def main(mesh: Nodes) -> None:
        assert await guess(mesh, 3) == [0x86] * 3
        await mesh.limits(wrong_passwords=4)  # one for one user from one address
        assert await guess(mesh, 1) == [reasons.CONNECTION_RATE_EXCEEDED]
        await mesh.limits(wrong_passwords=1000)
        assert await guess(mesh, 3) == [0x86] * 3

    with_nodes(etcd, main)


@effect_of("cores.listen")
def test_listeners_are_added_and_removed(etcd: EmbeddedEtcd) -> None:
    ports = free_ports(2)

    def listening(*chosen: int) -> Callable[[Topology], Topology]:
        listen = tuple([ListenerSpec(kind="mqtt", address=Address("127.0.0.1", port)) for port in chosen])
        return lambda topology: replace(topology, cores=(replace(topology.cores[0], listen=listen),))

    async def main(mesh: Nodes) -> None:
        await mesh.change(listening(0, ports[0]))  # the first is there already
        first = await mesh.backend("first", "news")
        second = Bare(MQTT5)
        await second.hello(ports[0], "second")
        await mesh.change(listening(*ports))
        assert await closed_with(first) == [reasons.SERVER_SHUTTING_DOWN]
        third = Bare(MQTT5)
        await third.hello(ports[1], "third")
        for client in (second, third):
            publish(client, "news")
            await client.acked(PUBACK, [1])
            await client.close()
        with pytest.raises(OSError, match=str(mesh.vehicles)):
            await mesh.change(listening(ports[0], mesh.vehicles))

    with_nodes(etcd, main)


@effect_of("limits.connections", "cores.redirect")
def test_connections_and_redirect(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        first = await mesh.backend("a")
        await mesh.limits(connections=1)
        assert (await (await mesh.knock("b", None)).wait(Connack)).reason == reasons.SERVER_BUSY
        await mesh.limits(connections=10)
        second = await mesh.backend("b")

        def redirected(topology: Topology) -> Topology:
            return replace(topology, cores=(replace(topology.cores[0], redirect="elsewhere:1883"),))

        await mesh.change(redirected)
        assert (await (await mesh.knock("c", None)).wait(Connack)).reason == reasons.USE_ANOTHER_SERVER
        for number, client in enumerate((first, second), 1):
            publish(client, "still/here", packet_id=number)
            await client.acked(PUBACK, [number])

    with_nodes(etcd, main)


def test_more_connections_than_the_process_may_have_are_refused_and_change_nothing(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        with pytest.raises(OSError, match=r"limits\.connections"):
            await mesh.limits(connections=10_000_000)
        await mesh.backend("a")

    with_nodes(etcd, main)


@effect_of("limits.connect_timeout")
def test_time_for_connect(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        opened = await mesh.backend("a")
        await mesh.limits(connect_timeout=1.0)
        silent = await Bare(MQTT5).connect(mesh.backends)
        await silent.wait_closed()
        assert not opened.closed.is_set()

    with_nodes(etcd, main)


@effect_of("limits.packet_rate")
def test_rate_of_packets(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        opened = await mesh.backend("a")
        await mesh.limits(packet_rate=100_000)
        later = await mesh.backend("b")
        assert mesh.core._clients is not None
        assert mesh.core._clients._endpoint is not None
        for client in (opened, later):
            client.raw(b"\x30\xff\xff\x03" + b"\0\1x\0" + b"x" * 1000)  # a PUBLISH of 64 KiB of which a part comes
        streams = [one for one in mesh.core._clients._endpoint.group.streams if isinstance(one, EndpointClient)]
        await until(lambda: all(one.progress() > 0 for one in streams), "a part of a packet")
        for client in (opened, later):
            client.raw(b"x" * 1000)
        await asyncio.sleep(0.05)
        for stream in streams:
            stream.expired()
        for client in (opened, later):
            assert await closed_with(client) == [reasons.KEEP_ALIVE_TIMEOUT]

    with_nodes(etcd, main)


@effect_of("limits.topic_levels")
def test_levels_of_topics(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        clients = [await mesh.backend("a"), await mesh.backend("b"), await mesh.vehicle("V1")]
        topics = ["a/b/c/d/e", "a/b/c/d/e", "vehicles/V1/c/d/e"]
        await mesh.limits(topic_levels=5)
        for client, topic in zip(clients, topics, strict=True):
            publish(client, topic)
            await client.acked(PUBACK, [1])
        await mesh.limits(topic_levels=4)
        clients += [await mesh.backend("c"), await mesh.vehicle("V2")]
        topics += ["a/b/c/d/e", "vehicles/V2/c/d/e"]
        for client, topic in zip(clients, topics, strict=True):
            publish(client, topic, packet_id=2)
            await client.wait_closed()

    with_nodes(etcd, main)


@effect_of("limits.max_packet_size")
def test_larger_packets_reach_vehicles_and_back_ends_through_links_that_were_open_before(etcd: EmbeddedEtcd) -> None:
    size = 4 << 20

    async def main(mesh: Nodes) -> None:
        before = await mesh.backend("before", "news")
        vehicle = await mesh.vehicle("V1", "vehicles/V1/down")
        await mesh.limits(max_packet_size=8 << 20)
        after = await mesh.backend("after", "news")
        for number, topic in enumerate(("vehicles/V1/down", "news"), 1):
            publish(after, topic, b"x" * size, number)
        await after.acked(PUBACK, [1, 2])
        assert [ack.reason for ack in after.packets if isinstance(ack, Ack)] == [0, 0]
        for client in (before, after, vehicle):
            assert len((await client.wait(Publish)).payload) == size
        publish(before, "vehicles/V1/down", b"x" * size)  # its CONNACK said less
        assert await closed_with(before) == [reasons.PACKET_TOO_LARGE]
        link = mesh.core._links["edge-1"]
        assert link.up
        assert link.status("").rejected == 0

    with_nodes(etcd, main)


def test_a_revision_that_is_withdrawn_changes_nothing(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        client = await mesh.backend("a", "news")
        topology = mesh.topology
        mesh.topology = rule(
            replace(topology, access=replace(topology.access, backends=replace(topology.access.backends, publish=()))),
            anonymous=False,
        )
        for node, name in ((mesh.edge, "edge-1"), (mesh.core, "core")):
            (await node.prepare(mesh.config(name))).withdraw()
        publish(client, "news")
        await client.acked(PUBACK, [1])
        await client.wait(Publish)
        await mesh.backend("b")

    with_nodes(etcd, main)
