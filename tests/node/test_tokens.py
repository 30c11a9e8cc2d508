"""Tokens and another server as providers of identities, in real nodes: a door, an edge and a core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from mesh.policy.jwt import METHOD
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.topology import Topology
from mesh.wire.packets import (
    MQTT5,
    MQTT311,
    PINGREQ,
    PINGRESP,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Ping,
    Publish,
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import (
    MAXIMUM_CONNECT_TIME,
    NOT_AUTHORIZED,
    RE_AUTHENTICATE,
    SERVER_UNAVAILABLE,
)
from tests.support.bare import Bare
from tests.support.loop import LoopThread
from tests.support.nodes import Nodes, etcd, publish, subscribed, with_nodes
from tests.support.ports import free_port
from tests.support.tokens import AUDIENCE, Keys, claims, key_set, public, token
from tests.support.waiting import until
from tests.support.webserver import Handler, WebServer, never

__all__ = ["etcd"]  # a fixture


def with_keys(etcd: EmbeddedEtcd, keys: Keys, main: Callable[[Nodes], object]) -> None:
    with_nodes(etcd, main, identity=keys.identity, backends=keys.backends)


async def knocked(port: int, connect: Connect) -> Bare:
    client = await Bare(connect.protocol).connect(port)
    client.send(connect)
    return client


async def reason(port: int, connect: Connect) -> int:
    client = await knocked(port, connect)
    return (await client.wait(Connack)).reason


def ends_in(seconds: float, vehicle: str = "V1", id: str = "a", number: int = 0) -> bytes:
    now = time.time()
    return token(claims(vehicle, iat=now - 1, exp=now + seconds), id=id, number=number)


def proof(data: bytes) -> Properties:
    properties = Properties()
    properties.auth_method = METHOD
    properties.auth_data = data
    return properties


def test_a_token_admits_at_the_door_and_at_the_core_and_a_wrong_one_does_not(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    async def main(mesh: Nodes) -> None:
        good, bad = token(claims("V1"), id="a"), token(claims("V1"), id="a", number=1)
        for port in (mesh.vehicles, mesh.backends):
            for protocol, refused in ((MQTT5, NOT_AUTHORIZED), (MQTT311, 5)):
                assert await reason(port, Connect(protocol, "c", username="any", password=good)) == 0
                for password in (bad, token(claims(aud="other"), id="a"), b"secret", None):
                    assert await reason(port, Connect(protocol, "d", username="V1", password=password)) == refused
            assert await reason(port, Connect(MQTT5, "c", properties=proof(good))) == 0
            assert await reason(port, Connect(MQTT5, "d", properties=proof(bad))) == NOT_AUTHORIZED
        # The identity is that of the token, and the pattern of the topology holds for it.
        assert await reason(mesh.vehicles, Connect(MQTT5, "e", password=token(claims("V/#"), id="a"))) == NOT_AUTHORIZED
        app = await knocked(mesh.backends, Connect(MQTT5, "app", password=token(claims("app"), id="a")))
        await app.wait(Connack)
        await subscribed(app, "vehicles/#")
        car = await knocked(mesh.vehicles, Connect(MQTT5, "car", password=token(claims("V7"), id="a")))
        await car.wait(Connack)
        publish(car, "vehicles/V7/state")
        assert (await app.wait(Publish)).topic == "vehicles/V7/state"

    with_keys(etcd, Keys(tmp_path), main)


def test_a_connection_ends_with_its_token_and_its_will_is_published(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        app = await knocked(mesh.backends, Connect(MQTT5, "app", password=token(claims("app"), id="a")))
        await app.wait(Connack)
        await subscribed(app, "vehicles/#")
        will = Will("vehicles/V1/gone", b"", 1, False)
        ending = ends_in(2.5)
        car = await knocked(mesh.vehicles, Connect(MQTT5, "car", password=ending, will=will))
        other = await knocked(mesh.backends, Connect(MQTT5, "other", password=ends_in(2.5, "other")))
        old = await knocked(mesh.vehicles, Connect(MQTT311, "old", username="V2", password=ends_in(2.5, "V2")))
        stays = await knocked(mesh.vehicles, Connect(MQTT5, "stays", password=token(claims("V3"), id="a")))
        for client in (car, other, old, stays):
            assert (await client.wait(Connack)).reason == 0
        for client in (car, other):
            assert (await client.wait(Disconnect)).reason == MAXIMUM_CONNECT_TIME
            await client.wait_closed()
        await old.wait_closed()
        assert (await app.wait(Publish)).topic == "vehicles/V1/gone"
        assert not stays.closed.is_set()
        assert await reason(mesh.vehicles, Connect(MQTT5, "car", password=ending)) == NOT_AUTHORIZED

    with_keys(etcd, Keys(tmp_path), main)


def test_re_authentication_renews_the_token(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        for port in (mesh.vehicles, mesh.backends):
            renewed = await knocked(port, Connect(MQTT5, "renewed", properties=proof(ends_in(3))))
            lapsed = await knocked(port, Connect(MQTT5, "lapsed", properties=proof(ends_in(3, "V2"))))
            changed = await knocked(port, Connect(MQTT5, "changed", properties=proof(ends_in(60, "V3"))))
            for client in (renewed, lapsed, changed):
                assert (await client.wait(Connack)).reason == 0
            renewed.send(Auth(RE_AUTHENTICATE, proof(ends_in(60))))
            assert (await renewed.wait(Auth)).reason == 0
            changed.send(Auth(RE_AUTHENTICATE, proof(ends_in(60, "V4"))))  # another vehicle's token
            assert (await changed.wait(Disconnect)).reason == NOT_AUTHORIZED
            assert (await lapsed.wait(Disconnect)).reason == MAXIMUM_CONNECT_TIME
            renewed.send(Ping(PINGREQ))
            assert (await renewed.wait(Ping)).type == PINGRESP
            renewed.send(Auth(RE_AUTHENTICATE, proof(token(claims(), id="a", number=1))))
            assert (await renewed.wait(Disconnect)).reason == NOT_AUTHORIZED

    with_keys(etcd, Keys(tmp_path), main)


def test_a_key_that_is_taken_away_ends_the_connections_that_rest_on_it_and_no_other(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    keys = Keys(tmp_path)
    keys.give(public("ES256", "a"), public("ES256", "b", 1))

    async def main(mesh: Nodes) -> None:
        async def join(id: str, number: int, n: int) -> Bare:
            password = token(claims(f"V{n}"), id=id, number=number)
            client = await knocked(mesh.vehicles, Connect(MQTT5, f"{id}{n}", keep_alive=0, password=password))
            assert (await client.wait(Connack)).reason == 0
            return client

        going = [await join("a", 0, n) for n in range(500)]
        staying = [await join("b", 1, n) for n in range(500)]
        keys.give(public("ES256", "b", 1), public("ES256", "c", 2))
        await until(lambda: all(client.closed.is_set() for client in going))
        assert not any(client.closed.is_set() for client in staying)
        await join("c", 2, 1000)
        keys.path.write_bytes(b"{")  # a set that cannot be used changes nothing
        await asyncio.sleep(1)
        assert not any(client.closed.is_set() for client in staying)

    with_keys(etcd, keys, main)


def test_other_rules_for_tokens_leave_the_connections_as_they_are(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main(mesh: Nodes) -> None:
        car = await knocked(mesh.vehicles, Connect(MQTT5, "car", password=token(claims("V1"), id="a")))
        assert (await car.wait(Connack)).reason == 0

        def change(topology: Topology) -> Topology:
            (provider,) = topology.identity.providers
            assert provider.jwt is not None
            other = replace(provider, jwt=replace(provider.jwt, audience=("other",)))
            return replace(topology, identity=replace(topology.identity, providers=(other,)))

        await mesh.change(change)
        assert not car.closed.is_set()
        later = [Connect(MQTT5, "later", password=token(claims("V2", aud=one), id="a")) for one in ("other", AUDIENCE)]
        assert [await reason(mesh.vehicles, connect) for connect in later] == [0, NOT_AUTHORIZED]
        car.send(Ping(PINGREQ))
        await car.wait(Ping)

    with_keys(etcd, Keys(tmp_path), main)


def test_a_mesh_that_starts_while_the_issuer_is_away_has_the_keys_from_before(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=key_set(public("ES256", "a")))

    async def main(mesh: Nodes) -> None:
        for port in (mesh.vehicles, mesh.backends):
            for connect in (Connect(MQTT5, "c", password=good), Connect(MQTT5, "c", properties=proof(good))):
                assert await reason(port, connect) == 0

    good = token(claims("V1"), id="a")
    loop, server = LoopThread(), WebServer(handle, tmp_path)
    try:
        loop.run(server.start())
        keys = Keys(tmp_path, f"{server.url!r}, ca: {server.ca}")
        with_keys(etcd, keys, main)
        loop.run(server.stop())
        with_keys(etcd, keys, main)
    finally:
        loop.run(server.stop())
        loop.close()


# Another server


def asking(url: str, more: str = "") -> dict[str, str]:
    http = f"{{name: ours, http: {{url: {url!r}, headers: {{X-Token: of-the-door}}, {more}}}}}"
    return {
        "identity": f'{{from: username, pattern: "[A-Z0-9-]{{1,32}}", providers: [{http}]}}',
        "backends": f"{{providers: [{http}]}}",
    }


async def _by_name(request: web.Request) -> web.StreamResponse:
    """Each client is whom it names if its password is ``right``."""
    assert request.headers["X-Token"] == "of-the-door"
    asked = await request.json()
    if asked.get("password") != "right":
        return web.json_response({"result": "deny"})
    return web.json_response({"result": "allow", "expires": time.time() + 3600})


def with_server(etcd: EmbeddedEtcd, handler: Handler, main: Callable[[Nodes], object], more: str = "") -> None:
    """``main`` with a mesh that asks a server with this handler, which runs in the same loop."""
    server = WebServer(handler)

    server.port = free_port()  # the mesh has to know it before the loop runs

    async def whole(mesh: Nodes) -> None:
        async with server:
            await main(mesh)  # type: ignore[misc]

    with_nodes(etcd, whole, **asking(server.url, more))


def test_another_server_admits_at_the_door_and_at_the_core(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        for port in (mesh.vehicles, mesh.backends):
            for protocol, refused in ((MQTT5, NOT_AUTHORIZED), (MQTT311, 5)):
                assert await reason(port, Connect(protocol, "c", username="V1", password=b"right")) == 0
                assert await reason(port, Connect(protocol, "c", username="V1", password=b"wrong")) == refused

    with_server(etcd, _by_name, main)


async def _slow(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.json_response({"result": "allow"})


@pytest.mark.parametrize("handler", [never, _slow])
def test_vehicles_that_are_connected_are_served_while_the_server_does_not_answer(
    etcd: EmbeddedEtcd, handler: Handler
) -> None:
    current: list[Handler] = [_by_name]

    async def handle(request: web.Request) -> web.StreamResponse:
        return await current[0](request)

    async def main(mesh: Nodes) -> None:
        cars = [
            await knocked(mesh.vehicles, Connect(MQTT5, f"c{n}", username=f"V{n}", password=b"right"))
            for n in range(20)
        ]
        for car in cars:
            assert (await car.wait(Connack)).reason == 0
        current[0] = handler
        waiting = [
            await knocked(mesh.vehicles, Connect(MQTT5, f"w{n}", username=f"W{n}", password=b"right"))
            for n in range(200)
        ]
        for count in range(1, 11):
            for car in cars:
                car.send(Ping(PINGREQ))
            for car in cars:
                await car.wait_all(Ping, count)
            assert not any(client.packets for client in waiting[:50]), "a client that waits was answered early"
        for client in waiting:
            assert (await client.wait(Connack)).reason == SERVER_UNAVAILABLE
        assert not any(car.closed.is_set() for car in cars)

    with_server(etcd, handle, main, "timeout: 4s, cache: 0s")  # long enough for the pings, also on a busy machine
