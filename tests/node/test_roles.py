"""Roles in real nodes: a door, an edge and a core. They come with tokens and from the settings, reach the edge, and
neither outlive a change nor a restart."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.core.node import CoreNode
from mesh.edge.node import EdgeNode
from mesh.frontdoor.node import DoorNode
from mesh.policy.jwt import METHOD
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.topology import Access, RoleSpec, Topology
from mesh.wire.packets import MQTT5, Ack, Auth, Connack, Connect, Publish, SubAck, Subscribe, Subscription, Will
from mesh.wire.properties import Properties
from mesh.wire.reasons import NO_MATCHING_SUBSCRIBERS, NOT_AUTHORIZED, RE_AUTHENTICATE, SUCCESS
from tests.support.bare import Bare
from tests.support.nodes import Nodes, at_once, etcd, publish, with_nodes
from tests.support.tokens import Keys, claims, token
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture

ROLES = """
access:
  roles:
    fleet: {publish: ["reports/{role}/{vehicle}"], subscribe: ["news/#"]}
    wills: {publish: ["wills"]}
    ops: {publish: ["reports/#"]}
  backends: {publish: ["vehicles/#"], subscribe: ["#"]}
"""
UNREAD = NO_MATCHING_SUBSCRIBERS


def proof(*roles: str, vehicle: str = "V1") -> Properties:
    properties = Properties()
    properties.auth_method = METHOD
    properties.auth_data = token(claims(vehicle, roles=list(roles)), id="a")
    return properties


async def car(mesh: Nodes, *roles: str, port: int = 0, clean: bool = True, will: Will | None = None) -> Bare:
    client = await Bare(MQTT5).connect(port or mesh.vehicles)
    mesh.clients.append(client)
    properties = proof(*roles)
    properties.session_expiry = 1000
    client.send(Connect(MQTT5, "c", clean, properties=properties, will=will))
    assert (await client.wait(Connack)).reason == SUCCESS
    return client


async def answer(client: Bare, topic: str) -> int:
    number = len([one for one in client.packets if isinstance(one, Ack)]) + 1
    publish(client, topic, packet_id=number)
    return (await client.wait_all(Ack, number))[-1].reason


async def subscribe(client: Bare, *filters: str) -> list[int]:
    number = len([one for one in client.packets if isinstance(one, SubAck)]) + 1
    client.send(Subscribe(number, [Subscription(filter, 1) for filter in filters]))
    return (await client.wait_all(SubAck, number))[-1].reasons


async def prove(client: Bare, *roles: str) -> None:
    """Re-authentication."""
    number = len([one for one in client.packets if isinstance(one, Auth)]) + 1
    client.send(Auth(RE_AUTHENTICATE, proof(*roles)))
    assert (await client.wait_all(Auth, number))[-1].reason == SUCCESS


def kept(node: Any) -> list[str]:
    (session,) = [one for one in node._broker_host.broker.sessions.all() if one.key[2] == "c"]
    return sorted(session.interests)


def roles(node: Any, client_id: str = "c") -> tuple[str, ...]:
    (session,) = [one for one in node._broker_host.broker.sessions.all() if one.key[2] == client_id]
    found: tuple[str, ...] = session.roles
    return found


def with_roles(etcd: EmbeddedEtcd, folder: Path, main: Any, **sections: str) -> None:
    keys = Keys(folder)
    users = "users: [{user: app, password: right, roles: [ops]}], anonymous: true"
    backends = f"{keys.backends[:-1]}, {users}}}"
    with_nodes(etcd, main, ROLES, identity=keys.identity, backends=backends, **sections)


def test_roles_of_a_token_hold_at_the_edge_and_at_the_core(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        client = await car(mesh, "fleet", "unknown")
        topics = ("reports/fleet/V1", "reports/fleet/V2", "wills")
        assert [await answer(client, topic) for topic in topics] == [UNREAD, NOT_AUTHORIZED, NOT_AUTHORIZED]
        assert await subscribe(client, "news/#", "other", "vehicles/V1/#") == [1, NOT_AUTHORIZED, 1]
        plain = await car(mesh)
        assert await answer(plain, "reports/fleet/V1") == NOT_AUTHORIZED
        app = await car(mesh, "wills", port=mesh.backends)
        assert [await answer(app, topic) for topic in ("wills", "reports/x")] == [UNREAD, NOT_AUTHORIZED]

    with_roles(etcd, tmp_path, main)


def test_a_proof_with_other_roles_changes_an_open_connection(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        for port, node, topic in ((0, mesh.edge, "reports/fleet/V1"), (mesh.backends, mesh.core, "reports/x")):
            role = "ops" if port else "fleet"
            client = await car(mesh, role, port=port)
            assert await subscribe(client, "news/1", "vehicles/V1/x") == [1, 1]
            assert await answer(client, topic) == UNREAD
            await prove(client)
            assert await answer(client, topic) == NOT_AUTHORIZED
            left = ["news/1", "vehicles/V1/x"] if port else ["vehicles/V1/x"]  # back ends may subscribe to all
            assert kept(node) == left
            await prove(client, role)
            assert await answer(client, topic) == UNREAD
            assert not client.closed.is_set()

    with_roles(etcd, tmp_path, main)


def test_a_restart_of_the_edge_does_not_bring_old_roles_back(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        client = await car(mesh, "fleet")
        assert await subscribe(client, "news/1", "vehicles/V1/x") == [1, 1]
        await mesh.edge.stop(0.1)
        door = mesh.door._door
        assert door is not None
        await until(lambda: not any(link.up for link in door.status().links), "the loss of the link")
        publish(client, "reports/fleet/V1", packet_id=1)  # held by the door, and replayed
        await prove(client)
        publish(client, "vehicles/V1/up", packet_id=2)
        mesh.edge = EdgeNode(mesh.config("edge-1"))
        await mesh.edge.start()
        assert [ack.reason for ack in await client.wait_all(Ack, 2)] == [NOT_AUTHORIZED, UNREAD]
        assert kept(mesh.edge) == ["vehicles/V1/x"]
        await client.close()
        await until(lambda: not door.group.streams, "the end of the connection")
        await mesh.edge.stop(0.1)
        mesh.edge = EdgeNode(mesh.config("edge-1"))
        await mesh.edge.start()
        assert kept(mesh.edge) == ["vehicles/V1/x"]

    with_roles(etcd, tmp_path, main)


def test_a_vehicle_keeps_its_roles_through_a_restart_of_its_edge(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        client = await car(mesh, "fleet")
        assert await subscribe(client, "news/1") == [1]
        await mesh.edge.stop(0.1)
        mesh.edge = EdgeNode(mesh.config("edge-1"))
        await mesh.edge.start()
        assert await answer(client, "reports/fleet/V1") == UNREAD
        assert kept(mesh.edge) == ["news/1"]

    with_roles(etcd, tmp_path, main)


def test_what_was_accepted_for_a_vehicle_stays_when_its_role_goes(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        client = await car(mesh, "fleet")
        assert await subscribe(client, "vehicles/V1/cmd", "news/1") == [1, 1]
        await client.close()
        app = await mesh.knock("app", "app", b"right")
        await app.wait(Connack)
        await until(lambda: kept(mesh.edge) == ["news/1", "vehicles/V1/cmd"], "the end of the connection")
        assert await answer(app, "vehicles/V1/cmd") == SUCCESS

        def without(topology: Topology) -> Topology:
            return replace(topology, access=replace(topology.access, backends=replace(
                topology.access.backends, publish=()
            )))  # fmt: skip

        await mesh.change(without)
        assert await answer(app, "vehicles/V1/cmd") == NOT_AUTHORIZED
        back = await car(mesh, clean=False)
        assert (await back.wait(Publish)).topic == "vehicles/V1/cmd"
        assert kept(mesh.edge) == ["vehicles/V1/cmd"]

    with_roles(etcd, tmp_path, main)


def retained(node: Any) -> list[str]:
    return sorted(topic for topic, _ in node._broker_host.broker.retained.items("#"))


def test_retained_messages_of_a_back_end_go_with_its_right_also_when_a_node_was_away(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    async def main(mesh: Nodes) -> None:
        await car(mesh)  # the vehicle has an edge now
        whole = mesh.topology
        backends = replace(whole.access.backends, publish=("other",))
        narrow = replace(whole, access=replace(whole.access, backends=backends))

        async def app() -> None:
            client = await mesh.knock("app", "app", b"right")
            await client.wait(Connack)
            client.send(Publish("vehicles/V1/state", b"x", 1, True, False, 1))
            assert not (await client.wait(Ack)).reason & 0x80
            await until(lambda: retained(mesh.edge) == ["vehicles/V1/state"], "the copy")
            await client.close()

        await app()
        await mesh.edge.stop(0.1)
        mesh.topology = narrow
        await mesh._prepare("core", "door")
        await until(lambda: retained(mesh.core) == [], "the end at the core")
        mesh.edge = EdgeNode(mesh.config("edge-1"))
        await mesh.edge.start()
        await until(lambda: retained(mesh.edge) == [], "the end at an edge that was away")

        await mesh.change(lambda _: whole)
        await app()
        await mesh.core.stop(0.1)
        mesh.topology = narrow
        await mesh._prepare("edge-1", "door")
        mesh.core = CoreNode(mesh.config("core"))
        with at_once():
            await mesh.core.start()
        await until(lambda: (retained(mesh.core), retained(mesh.edge)) == ([], []), "the end of a core that was away")

    with_roles(etcd, tmp_path, main)


@pytest.mark.parametrize("crash", ["edge", "door", "both"])
def test_a_role_that_was_narrowed_holds_for_frames_queues_and_wills_after_a_node_was_away(
    etcd: EmbeddedEtcd, tmp_path: Path, crash: str
) -> None:
    async def main(mesh: Nodes) -> None:
        sender = await mesh.backend("sender")
        watcher = await mesh.backend("watcher", "wills")
        client = await car(mesh, "fleet", "wills", will=Will("wills", b"not allowed", 1))
        assert await subscribe(client, "news/1", "vehicles/V1/x") == [1, 1]
        door = mesh.door._door
        assert door is not None
        fewer = Access(roles=(), backends=mesh.topology.access.backends)
        mesh.topology = replace(mesh.topology, access=fewer)
        if crash != "door":
            await mesh.edge.stop(0.1)
            await until(lambda: not any(link.up for link in door.status().links), "the loss of the link")
        publish(client, "reports/fleet/V1", packet_id=1)  # with an edge that is away it is held, and replayed
        if crash == "door":
            assert (await client.wait(Ack)).reason == UNREAD
        await mesh._prepare("core", "door", *(() if crash != "door" else ("edge-1",)))
        for topic in ("news/1", "vehicles/V1/x"):
            sender.send(Publish(topic, b"queued", 1, False, False, 1 + (topic == "news/1")))
        await sender.wait_all(Ack, 2)
        if crash != "edge":
            await mesh.door.stop(0.1)
            await client.wait_closed()
        if crash != "door":
            mesh.edge = EdgeNode(mesh.config("edge-1"))
            with at_once():
                await mesh.edge.start()
        if crash == "edge":
            assert (await client.wait(Ack)).reason == NOT_AUTHORIZED
            await client.until(lambda: client.publishes(), "what is allowed")
            assert [one.topic for one in client.publishes()] == ["vehicles/V1/x"]
            await client.close()
        else:
            mesh.door = DoorNode(mesh.config("door"))
            with at_once():
                await mesh.door.start()
        host = mesh.edge._broker_host
        assert host is not None
        await until(lambda: host.broker.counters.forbidden_wills == 1, "the end of the will")
        assert kept(mesh.edge) == ["vehicles/V1/x"]
        back = await car(mesh, "fleet", "wills", clean=False)
        if crash != "edge":
            await back.until(lambda: back.publishes(), "what is allowed")
            assert [one.topic for one in back.publishes()] == ["vehicles/V1/x"]
        assert [await answer(back, topic) for topic in ("reports/fleet/V1", "wills")] == [NOT_AUTHORIZED] * 2
        assert watcher.publishes() == []

    with_roles(etcd, tmp_path, main, limits="{attach_grace: 1s}")


@pytest.mark.parametrize("away", ["vehicle", "vehicle and edge", "door and edge"])
def test_a_vehicle_that_is_away_is_judged_by_the_roles_that_the_settings_give_today(
    etcd: EmbeddedEtcd, away: str
) -> None:
    async def main(mesh: Nodes) -> None:
        watcher = await mesh.backend("watcher", "wills")

        def give(topology: Topology, *roles: str) -> Topology:
            (anyone,) = topology.identity.providers
            return replace(topology, identity=replace(topology.identity, providers=(replace(anyone, roles=roles),)))

        await mesh.change(lambda topology: give(topology, "fleet", "wills"))
        properties, delayed = Properties(), Properties()
        properties.session_expiry = 1000
        delayed.will_delay = 2
        client = await Bare(MQTT5).connect(mesh.vehicles)
        mesh.clients.append(client)
        gone = Will("wills", b"gone", 1, False, delayed)
        client.send(Connect(MQTT5, "c", True, 60, "V1", None, gone, properties))
        assert (await client.wait(Connack)).reason == SUCCESS
        assert await subscribe(client, "news/1", "vehicles/V1/x") == [1, 1]
        client.send(Publish("reports/fleet/V1", b"x", 1, True, False, 1))
        await client.wait(Ack)
        assert retained(mesh.edge) == ["reports/fleet/V1"]
        if away != "door and edge":
            await client.close()
            host = mesh.edge._broker_host
            assert host is not None
            (session,) = [one for one in host.broker.sessions.all() if one.key[2] == "c"]
            await until(lambda: session.connection is None, "the loss")
        mesh.topology = give(mesh.topology, "wills") if away == "vehicle" else give(mesh.topology)
        if away == "vehicle":
            await mesh._prepare("edge-1", "core", "door")
        else:
            await mesh.edge.stop(0.1)
            if away == "door and edge":
                await mesh.door.stop(0.1)
                mesh.door = DoorNode(mesh.config("door"))
            mesh.edge = EdgeNode(mesh.config("edge-1"))
            with at_once():
                await mesh.edge.start()
                if away == "door and edge":
                    await mesh.door.start()
        await until(lambda: (kept(mesh.edge), retained(mesh.edge)) == (["vehicles/V1/x"], []), "the end of the rest")
        host = mesh.edge._broker_host
        assert host is not None
        if away == "vehicle":
            await watcher.until(lambda: watcher.publishes(), "the will that is still allowed")
            await mesh.change(give)
        await until(lambda: not any(one.will for one in host.broker.sessions.all()), "the end of the will")
        assert host.broker.counters.forbidden_wills == (away != "vehicle")
        assert len(watcher.publishes()) == (away == "vehicle")

    with_nodes(etcd, main, ROLES, limits="{attach_grace: 1s}")


NARROWED = {"removed": (), "without roles": ("app",)}


@pytest.mark.parametrize("how", NARROWED)
@pytest.mark.parametrize("away", [False, True])
def test_a_back_end_that_is_away_is_judged_by_the_users_and_roles_of_today(
    etcd: EmbeddedEtcd, tmp_path: Path, how: str, away: bool
) -> None:
    async def main(mesh: Nodes) -> None:
        await car(mesh)
        watcher = await mesh.backend("watcher", "reports/will/#")
        properties = Properties()
        properties.session_expiry = 1000
        delayed = Properties()
        delayed.will_delay = 2
        topics = {"app": "vehicles/V1/app", "other": "vehicles/V1/other"}
        for name, topic in topics.items():
            client = await Bare(MQTT5).connect(mesh.backends)
            mesh.clients.append(client)
            gone = Will(f"reports/will/{name}", b"gone", 1, False, delayed)
            client.send(Connect(MQTT5, name, True, 60, name, b"right", gone, properties))
            assert (await client.wait(Connack)).reason == SUCCESS
            assert await subscribe(client, f"reports/{name}") == [1]
            client.send(Publish(topic, b"x", 1, True, False, 1))
            assert not (await client.wait(Ack)).reason & 0x80
        await until(lambda: retained(mesh.edge) == sorted(topics.values()), "the copies")
        for client in mesh.clients[-2:]:
            await client.close()
        whole = mesh.topology
        users = tuple([
            replace(user, roles=() if user.user == "app" else user.roles)
            for user in whole.backends.users if user.user != "app" or NARROWED[how]
        ])  # fmt: skip
        mesh.topology = replace(whole, backends=replace(whole.backends, users=users))
        if away:
            await mesh.core.stop(0.1)
            mesh.core = CoreNode(mesh.config("core"))
            with at_once():
                await mesh.core.start()
            watcher = await mesh.backend("watcher", "reports/will/#")
        else:
            await mesh._prepare("core", "door")
        await until(lambda: retained(mesh.edge) == [topics["other"]], "the end of the copy of one")
        assert retained(mesh.core) == [topics["other"]]
        host = mesh.core._broker_host
        assert host is not None
        sessions = {one.key[2]: sorted(one.interests) for one in host.broker.sessions.all()}
        assert (sessions["app"], sessions["other"]) == ([], ["reports/other"])
        await until(lambda: [one.topic for one in watcher.publishes()] == ["reports/will/other"], "the other will")
        await until(lambda: host.broker.counters.forbidden_wills == 1, "the end of the will")

    rights = """
access:
  roles: {ops: {publish: ["vehicles/#", "reports/#"], subscribe: ["reports/#"]}}
  backends: {publish: ["news/#"], subscribe: ["reports/will/#"]}
"""
    keys = Keys(tmp_path)
    users = ", ".join(f"{{user: {name}, password: right, roles: [ops]}}" for name in ("app", "other"))
    limits = "{attach_grace: 1s}"
    backends = f"{keys.backends[:-1]}, users: [{users}], anonymous: true}}"
    with_nodes(etcd, main, rights, identity=keys.identity, backends=backends, limits=limits)


def test_a_will_needs_the_right_of_its_time(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        app = await mesh.backend("watcher", "wills")
        for roles, payload in ((("wills",), b"allowed"), ((), b"lost")):
            client = await car(mesh, "wills", will=Will("wills", payload, 1))
            await prove(client, *roles)
            edge = mesh.edge._broker_host
            assert edge is not None
            (session,) = [one for one in edge.broker.sessions.all() if one.key[2] == "c"]
            await until(lambda session=session, roles=roles: session.roles == roles, "the roles")  # type: ignore[misc]
            await client.close()
            await until(lambda session=session: session.connection is None, "the loss")  # type: ignore[misc]
        assert edge.broker.counters.forbidden_wills == 1
        await until(lambda: [one.payload for one in app.publishes()] == [b"allowed"], "the will")

    with_roles(etcd, tmp_path, main)


def test_roles_of_the_settings_change_at_open_connections(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        client = await car(mesh)
        app = await mesh.knock("app", "app", b"right")
        await app.wait(Connack)
        assert await answer(app, "reports/x") == UNREAD
        assert await answer(client, "reports/fleet/V1") == NOT_AUTHORIZED

        def change(topology: Topology) -> Topology:
            (tokens,) = topology.identity.providers
            (user,) = topology.backends.users
            return replace(
                topology,
                identity=replace(topology.identity, providers=(replace(tokens, roles=("fleet",)),)),
                backends=replace(topology.backends, users=(replace(user, roles=()),)),
            )

        await mesh.change(change)
        await until(lambda: (roles(mesh.core, "app"), roles(mesh.edge)) == ((), ("fleet",)), "the roles")
        assert await answer(app, "reports/x") == NOT_AUTHORIZED
        assert await subscribe(client, "news/1") == [1]
        assert await answer(client, "reports/fleet/V1") == UNREAD
        fewer = Access(roles=tuple([RoleSpec(name=name, publish=(), subscribe=()) for name in ("fleet", "ops")]))
        await mesh.change(lambda topology: replace(topology, access=fewer))
        assert await answer(client, "reports/fleet/V1") == NOT_AUTHORIZED
        await until(lambda: kept(mesh.edge) == [], "the end of the subscription")
        for one in (client, app):
            assert not one.closed.is_set()

    with_roles(etcd, tmp_path, main)


def test_a_role_that_changes_under_1000_connections_closes_none(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def one(mesh: Nodes, number: int) -> Bare:
        role = "fleet" if number % 2 else "wills"
        client = await Bare(MQTT5).connect(mesh.vehicles)
        mesh.clients.append(client)
        client.send(Connect(MQTT5, f"c{number}", properties=proof(role, vehicle=f"V{number}")))
        assert (await client.wait(Connack)).reason == SUCCESS
        allowed = [1, 1] if number % 2 else [NOT_AUTHORIZED, 1]
        assert await subscribe(client, "news/1", f"vehicles/V{number}/x") == allowed
        return client

    async def main(mesh: Nodes) -> None:
        clients: list[Bare] = []
        for start in range(0, 1000, 100):
            clients += await asyncio.gather(*(one(mesh, number) for number in range(start, start + 100)))
        host = mesh.edge._broker_host
        assert host is not None

        def subscriptions() -> int:
            return sum(len(one.interests) for one in host.broker.sessions.all() if one.connection is not None)

        before = subscriptions()
        assert before >= 1500  # the core has some, too
        role = RoleSpec(name="fleet", publish=(), subscribe=())
        others = tuple([one for one in mesh.topology.access.roles if one.name != "fleet"])
        await mesh.change(
            lambda topology: replace(topology, access=replace(topology.access, roles=(role, *others)))
        )
        await until(lambda: subscriptions() == before - 500, "the end of what is not allowed")
        assert not any(client.closed.is_set() for client in clients)
        assert await answer(clients[1], "reports/fleet/V1") == NOT_AUTHORIZED
        assert await answer(clients[0], "wills") == UNREAD

    with_roles(etcd, tmp_path, main)


def test_retained_messages_go_with_the_right_of_their_sender(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        client, app = await car(mesh, "fleet"), await mesh.backend("watcher", "reports/#", "vehicles/V1/#")
        for number, topic in enumerate(("reports/fleet/V1", "vehicles/V1/state"), 1):
            client.send(Publish(topic, b"1", 1, True, False, number))
        await client.wait_all(Ack, 2)
        edge, core = mesh.edge._broker_host, mesh.core._broker_host
        assert edge is not None
        assert core is not None

        def topics() -> list[list[str]]:
            return [sorted(topic for topic, _ in host.broker.retained.items("#")) for host in (edge, core)]

        await until(lambda: topics() == [["reports/fleet/V1", "vehicles/V1/state"]] * 2, "both copies")
        await prove(client)
        await until(lambda: topics() == [["vehicles/V1/state"]] * 2, "the end of both copies")
        await until(lambda: len(app.publishes()) == 3, "what tells that the message was deleted")
        assert (app.publishes()[-1].topic, app.publishes()[-1].payload) == ("reports/fleet/V1", b"")
        late = await mesh.backend("late", "reports/#", "vehicles/V1/#")
        await late.wait(Publish)
        assert [one.topic for one in late.publishes()] == ["vehicles/V1/state"]

    with_roles(etcd, tmp_path, main)
