"""Bans and kicks in a mesh of real nodes: two doors, two edges, a core, and a real etcd."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import pytest

from mesh.core.node import CoreNode
from mesh.edge.node import EdgeNode
from mesh.frontdoor.node import DoorNode
from mesh.frontdoor.status import DoorStatus
from mesh.node.revocation import read_bans
from mesh.private import write_own
from mesh.registry.audit import act
from mesh.registry.bans import Ban, BanStore, Kick, normal
from mesh.registry.embedded import EmbeddedEtcd
from mesh.wire.encode import encode
from mesh.wire.packets import (
    MQTT5,
    MQTT311,
    PUBACK,
    Connack,
    Connect,
    Disconnect,
    SubAck,
    Subscribe,
    Subscription,
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import ADMINISTRATIVE_ACTION, BANNED
from tests.support.bare import Bare
from tests.support.nodes import Nodes, at_once, publish, with_nodes
from tests.support.nodes import etcd as etcd
from tests.support.waiting import until

DOORS: Final = "[{name: door, listen: [{mqtt: '127.0.0.1:0'}]}, {name: door-2, listen: [{mqtt: '127.0.0.1:0'}]}]"
POOLS: Final = (
    "[{name: other, match: {prefix: OTHER-}, edges: [{name: edge-2}]}, {name: standard, edges: [{name: edge-1}]}]"
)


_TOLD: Final = encode(Disconnect(ADMINISTRATIVE_ACTION), MQTT5)


def _delayed(seconds: int) -> Properties | None:
    if not seconds:
        return None
    properties = Properties()
    properties.will_delay = seconds
    return properties


class Mesh:
    """``Nodes``, another door and another edge, which owns the vehicles OTHER-…"""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.edge = EdgeNode(nodes.config("edge-2"))
        self.door = DoorNode(nodes.config("door-2"))
        self.client = nodes.door._services.client  # type: ignore[union-attr]
        self.store = BanStore(self.client, nodes.topology.mesh)

    async def ban(self, kind: str, value: str, seconds: float = 0.0) -> None:
        now = time.time()
        made = Ban(kind, normal(kind, value), "a test", "me@here", now, now + seconds if seconds else 0.0)
        await self.store.add(made, act("test", str(made)))

    async def lift(self, kind: str, value: str) -> None:
        assert await self.store.remove(kind, normal(kind, value), act("test", value))

    async def kick(self, kind: str, value: str) -> dict[str, int]:
        """Kick; returns the connections that each node has ended."""
        kick = Kick(kind, value, "me@here", f"{kind}-{value}")
        await self.store.kick(kick, act("test", str(kick)))
        found: dict[str, int] = {}
        async with asyncio.timeout(30):
            while len(found) < 3:
                await asyncio.sleep(0.02)
                found = await self.store.answers(kick)
        return found

    def port(self, second: bool = False) -> int:
        door = (self.door if second else self.nodes.door)._door
        assert door is not None
        return door.ports[0]

    async def vehicle(
        self, name: str, protocol: int = MQTT5, second: bool = False, client_id: str = "", delay: int = 0,
        source: str = "",
    ) -> Bare:
        """A vehicle with a will and a session that lasts; not necessarily accepted."""
        client = Bare(protocol)
        client.source = source
        await client.connect(self.port(second))
        self.nodes.clients.append(client)
        properties = Properties()
        properties.session_expiry = 3600
        client.send(Connect(
            protocol, client_id or name, username=name, clean_start=False,
            will=Will(f"vehicles/{name}/will", b"gone", 1, False, _delayed(delay)),
            properties=properties if protocol == MQTT5 else None,
        ))  # fmt: skip
        return client

    async def accepted(
        self, name: str, protocol: int = MQTT5, second: bool = False, client_id: str = "", delay: int = 0,
        source: str = "",
    ) -> Bare:
        client = await self.vehicle(name, protocol, second, client_id, delay, source)
        assert (await client.wait(Connack)).reason == 0
        return client

    async def refused(self, name: str, protocol: int = MQTT5, second: bool = False, client_id: str = "") -> int:
        client = await self.vehicle(name, protocol, second, client_id)
        reason = (await client.wait(Connack)).reason
        await client.wait_closed()
        return reason

    async def refused_soon(self, name: str, reason: int = BANNED, **where: bool) -> None:
        """Ban or its end are on their way to a door."""
        async with asyncio.timeout(30):
            while True:
                client = await self.vehicle(name, **where)  # type: ignore[arg-type]
                found = (await client.wait(Connack)).reason
                if found == reason:
                    return
                await client.close()


@asynccontextmanager
async def second(nodes: Nodes) -> AsyncIterator[Mesh]:
    mesh = Mesh(nodes)
    for ban in await mesh.store.bans():
        await mesh.lift(ban.kind, ban.value)
    try:
        with at_once():
            await mesh.edge.start()
            await mesh.door.start()
        await until(lambda: nodes.core._links["edge-2"].up, "the link of the core")
        yield mesh
    finally:
        for ban in await mesh.store.bans():
            await mesh.lift(ban.kind, ban.value)
        for client in nodes.clients:
            await client.close()
        await mesh.door.stop(0.2)
        await mesh.edge.stop(0.2)


def with_mesh(etcd: EmbeddedEtcd, main: Callable[[Mesh], Awaitable[None]], **sections: str) -> None:
    async def whole(nodes: Nodes) -> None:
        async with second(nodes) as mesh:
            await main(mesh)

    with_nodes(etcd, whole, front_doors=DOORS, pools=POOLS, **sections)


def wills(client: Bare) -> set[str]:
    return {packet.topic.split("/")[1] for packet in client.publishes()}


def connections(door: DoorNode) -> int:
    status = door.status()
    assert isinstance(status, DoorStatus)
    return status.connections


def test_banned_clients_are_refused_at_every_door_in_their_own_protocol(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        await mesh.accepted("WARM")
        await mesh.ban("vehicle", "CAR")
        await mesh.ban("client_id", "tablet/1")
        for other in (False, True):
            await mesh.refused_soon("CAR", second=other)
            assert await mesh.refused("CAR", second=other, client_id="another") == BANNED
            assert await mesh.refused("CAR", MQTT311, other) == 5
            await until(lambda: mesh.nodes.door._bans.status().bans == 2)
            assert await mesh.refused("OTHER-1", second=other, client_id="tablet/1") == BANNED
            await mesh.accepted("FREE", second=other)
        await mesh.lift("vehicle", "CAR")
        await mesh.refused_soon("CAR", 0)

    with_mesh(etcd, main)


@pytest.mark.parametrize("protocol", [MQTT311, MQTT5])
def test_a_ban_ends_live_connections_without_their_wills_and_keeps_what_was_acknowledged(
    etcd: EmbeddedEtcd, protocol: int
) -> None:
    async def main(mesh: Mesh) -> None:
        watcher = await mesh.nodes.backend("watcher", "vehicles/+/will")
        sender = await mesh.nodes.backend("sender")
        names = [f"{prefix}GONE-{protocol}-{number}" for prefix in ("", "OTHER-") for number in range(2)]
        banned = [await mesh.accepted(name, protocol, bool(index % 2)) for index, name in enumerate(names)]
        stays = await mesh.accepted("STAYS", protocol)
        leaves = await mesh.accepted("LEAVES", protocol)
        for client, name in zip(banned, names, strict=True):
            await _subscribe(client, f"vehicles/{name}/cmd")
        for name in names:
            await mesh.ban("vehicle", name)
        for client in banned:
            await client.wait_closed()
            said = [packet.reason for packet in client.packets if isinstance(packet, Disconnect)]
            assert said == ([ADMINISTRATIVE_ACTION] if protocol == MQTT5 else [])
        # A command for a banned vehicle is acknowledged and kept.
        for number, name in enumerate(names, 1):
            publish(sender, f"vehicles/{name}/cmd", b"command", number)
        await sender.acked(PUBACK, range(1, len(names) + 1))
        await leaves.close()
        await until(lambda: "LEAVES" in wills(watcher))
        assert wills(watcher) == {"LEAVES"}
        assert not stays.closed.is_set()
        for name in names:
            await mesh.lift("vehicle", name)
            await mesh.refused_soon(name, 0)
            back = mesh.nodes.clients[-1]
            await back.until(lambda back=back: b"command" in [one.payload for one in back.publishes()], "the command")
        ended = mesh.nodes.door._bans.status().ended + mesh.door._bans.status().ended
        assert ended == len(names)

    with_mesh(etcd, main)


async def _subscribe(client: Bare, filter: str) -> None:
    client.send(Subscribe(1, [Subscription(filter, 1)]))
    assert (await client.wait(SubAck)).reasons == [1]


def test_an_edge_that_was_away_publishes_no_will_of_a_vehicle_that_was_banned_meanwhile(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        watcher = await mesh.nodes.backend("watcher", "vehicles/+/will")
        banned = await mesh.accepted("OTHER-BANNED")
        dropped = await mesh.accepted("OTHER-DROPPED", second=True)
        await mesh.edge.stop(0.2)
        await mesh.ban("vehicle", "OTHER-BANNED")
        await banned.wait_closed()
        assert [packet.reason for packet in banned.packets if isinstance(packet, Disconnect)] == [ADMINISTRATIVE_ACTION]
        await dropped.close()
        await until(lambda: connections(mesh.door) == 0)
        mesh.edge = EdgeNode(mesh.nodes.config("edge-2"))
        with at_once():
            await mesh.edge.start()
        await until(lambda: "OTHER-DROPPED" in wills(watcher))
        door = mesh.nodes.door._door
        assert door is not None
        await until(lambda: not door.links.held(), "all is confirmed")
        publish(await mesh.accepted("OTHER-LAST"), "vehicles/OTHER-LAST/will", b"the end")
        await until(lambda: "OTHER-LAST" in wills(watcher))
        assert wills(watcher) == {"OTHER-DROPPED", "OTHER-LAST"}

    with_mesh(etcd, main)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("vehicle", "OTHER-BANNED"), ("client_id", "c/1"), ("address", "127.9.0.1"), ("address", "127.9.0.0/24")],
)
def test_no_will_of_a_banned_vehicle_is_published_although_its_door_ends_before_its_edge_is_back(
    etcd: EmbeddedEtcd, kind: str, value: str
) -> None:
    async def main(mesh: Mesh) -> None:
        watcher = await mesh.nodes.backend("watcher", "vehicles/+/will")
        banned = await mesh.accepted("OTHER-BANNED", second=True, client_id="c/1", source="127.9.0.1")
        lost = await mesh.accepted("OTHER-LOST", second=True)
        await mesh.edge.stop(0.2)
        await mesh.ban(kind, value)
        await banned.wait_closed()
        await mesh.door.stop(0.2)
        await lost.wait_closed()
        mesh.edge, mesh.door = EdgeNode(mesh.nodes.config("edge-2")), DoorNode(mesh.nodes.config("door-2"))
        with at_once():
            await mesh.edge.start()
            await mesh.door.start()
        await until(lambda: "OTHER-LOST" in wills(watcher))
        publish(await mesh.accepted("OTHER-LAST"), "vehicles/OTHER-LAST/will", b"the end")
        await until(lambda: "OTHER-LAST" in wills(watcher))
        assert wills(watcher) == {"OTHER-LOST", "OTHER-LAST"}

    with_mesh(etcd, main, limits="{attach_grace: 1s}")


def test_a_will_with_a_delay_is_not_published_if_its_client_is_banned_meanwhile(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        watcher = await mesh.nodes.backend("watcher", "vehicles/+/will")
        for name in ("BANNED", "OTHER-FREE"):
            client = await mesh.accepted(name, delay=3)
            await client.close()
        await mesh.ban("client_id", "BANNED")
        await until(lambda: mesh.nodes.edge._bans.status().bans == 1)
        await until(lambda: "OTHER-FREE" in wills(watcher))
        publish(await mesh.accepted("LAST"), "vehicles/LAST/will", b"the end")
        await until(lambda: "LAST" in wills(watcher))
        assert wills(watcher) == {"OTHER-FREE", "LAST"}

    with_mesh(etcd, main)


def test_a_back_end_is_banned_by_its_user_name_and_by_its_client_id(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        nodes = mesh.nodes
        watcher = await nodes.backend("watcher", "wills/#")
        app = Bare(MQTT5)
        await app.connect(nodes.backends)
        app.send(Connect(MQTT5, "one", username="app", password=b"right", will=Will("wills/app", b"gone", 1)))
        assert (await app.wait(Connack)).reason == 0
        other = await nodes.backend("other")
        await mesh.ban("user", "app")
        assert (await app.wait(Disconnect)).reason == ADMINISTRATIVE_ACTION
        await app.wait_closed()
        again = await nodes.knock("two", "app", b"right")
        assert (await again.wait(Connack)).reason == BANNED
        old = await nodes.knock("three", "app", b"right", MQTT311)
        assert (await old.wait(Connack)).reason == 5
        publish(other, "wills/other", b"last")
        await watcher.until(lambda: watcher.publishes(), "the last message")
        assert [packet.topic for packet in watcher.publishes()] == ["wills/other"]
        await mesh.ban("client_id", "other")
        assert (await other.wait(Disconnect)).reason == ADMINISTRATIVE_ACTION
        assert nodes.core._bans.status().ended == 2
        assert not watcher.closed.is_set()

    with_mesh(etcd, main)


@pytest.mark.parametrize(("kind", "value"), [("user", "app"), ("client_id", "one"), ("address", "127.9.0.1")])
def test_a_core_that_was_away_publishes_no_will_of_a_back_end_that_was_banned_meanwhile(
    etcd: EmbeddedEtcd, kind: str, value: str
) -> None:
    async def main(mesh: Mesh) -> None:
        nodes = mesh.nodes
        for client_id, user, source in (("one", "app", "127.9.0.1"), ("two", "old", "")):
            client = Bare(MQTT5)
            client.source = source
            nodes.clients.append(await client.connect(nodes.backends))
            properties = Properties()
            properties.session_expiry = 1000
            will = Will(f"wills/{user}/{kind}", b"gone", 1, True)
            client.send(Connect(MQTT5, client_id, True, 60, user, b"right", will, properties))
            assert (await client.wait(Connack)).reason == 0
        await nodes.core.stop(0.2)
        await mesh.ban(kind, value)
        nodes.core = CoreNode(nodes.config("core"))
        with at_once():
            await nodes.core.start()
        watcher = await nodes.backend("watcher", f"wills/+/{kind}")
        await until(lambda: "old" in wills(watcher))
        publish(await nodes.backend("last"), f"wills/last/{kind}")
        await until(lambda: "last" in wills(watcher))
        assert wills(watcher) == {"old", "last"}

    with_mesh(etcd, main, limits="{attach_grace: 1s}")


def test_a_kick_ends_connections_once_and_publishes_their_wills(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        watcher = await mesh.nodes.backend("watcher", "vehicles/+/will")
        first = await mesh.accepted("KICKED", client_id="a")
        other = await mesh.accepted("KICKED", MQTT311, second=True, client_id="b")
        stays = await mesh.accepted("STAYS")
        assert await mesh.kick("vehicle", "KICKED") == {"door": 1, "door-2": 1, "core": 0}
        assert (await first.wait(Disconnect)).reason == ADMINISTRATIVE_ACTION
        await first.wait_closed()
        await other.wait_closed()
        await until(lambda: wills(watcher) == {"KICKED"})
        assert not stays.closed.is_set()
        await mesh.accepted("KICKED", client_id="a")
        assert await mesh.kick("client_id", "watcher") == {"door": 0, "door-2": 0, "core": 1}
        assert (await watcher.wait(Disconnect)).reason == ADMINISTRATIVE_ACTION

    with_mesh(etcd, main)


def test_a_client_id_that_the_edge_assigned_can_be_banned(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        client = await Bare(MQTT5).connect(mesh.port())
        client.send(Connect(MQTT5, "", username="NAMELESS"))
        properties = (await client.wait(Connack)).properties
        assert properties is not None
        assert properties.assigned_client_id
        await mesh.ban("client_id", properties.assigned_client_id)
        assert (await client.wait(Disconnect)).reason == ADMINISTRATIVE_ACTION

    with_mesh(etcd, main)


def test_a_ban_ends_with_its_time(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        car = await mesh.accepted("CAR")
        await mesh.ban("vehicle", "CAR", 2.0)
        await car.wait_closed()
        await mesh.refused_soon("CAR", 0)
        await until(lambda: mesh.nodes.door._bans.status().bans == 0)

    with_mesh(etcd, main)


def test_bans_hold_while_etcd_is_away_and_at_a_door_that_starts_meanwhile(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        await mesh.accepted("WARM")
        await mesh.accepted("OTHER-WARM")
        await mesh.door.stop(0.2)
        await mesh.ban("vehicle", "WHILE-DOWN")
        mesh.door = DoorNode(mesh.nodes.config("door-2"))
        with at_once():
            await mesh.door.start()
        assert await mesh.refused("WHILE-DOWN", second=True) == BANNED  # the first that it accepts
        kept = mesh.nodes.config("door-2").folder / "bans.json"
        await until(lambda: kept.exists() and b"WHILE-DOWN" in kept.read_bytes())
        await etcd.stop()
        try:
            await until(lambda: not mesh.door._services.members.live)  # type: ignore[union-attr]
            assert await mesh.refused("WHILE-DOWN") == BANNED
            await mesh.door.stop(0.2)
            mesh.door = DoorNode(mesh.nodes.config("door-2"))
            with at_once():
                await mesh.door.start()
            assert await mesh.refused("WHILE-DOWN", second=True) == BANNED
        finally:
            await etcd.start()

    with_mesh(etcd, main)


def test_a_file_of_bans_that_is_damaged_keeps_the_lines_that_are_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bans.json"
    assert read_bans(path) == []
    one = Ban("vehicle", "CAR", "why", "me@here", 1.0, 2.0)
    write_own(path, json.dumps(asdict(one)).encode() + b'\n{"kind": "vehicle"}\nnothing\n')
    assert read_bans(path) == [one]
    assert "line 2 of" in caplog.text
    path.chmod(0o644)
    assert read_bans(path) == []
    assert "has mode 0644" in caplog.text


class Peer(asyncio.Protocol):
    """A vehicle of few bytes, from an address of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data = b""
        self.closed = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        assert self.transport is not None
        self.transport.write(encode(Connect(MQTT5, self.name, username=self.name, keep_alive=0), MQTT5))

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True


def test_a_banned_network_ends_half_of_a_thousand_connections_and_no_other(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Mesh) -> None:
        loop = asyncio.get_running_loop()
        peers: list[Peer] = []
        for number in range(1000):
            peer = Peer(f"V{number}")
            peers.append(peer)
            address = f"127.{1 + number % 2}.{number // 250}.{1 + number % 250}"
            await loop.create_connection(
                lambda peer=peer: peer, "127.0.0.1", mesh.port(number % 4 > 1), local_addr=(address, 0)
            )
        await until(lambda: all(peer.data for peer in peers), "all are accepted", 60)
        assert not any(peer.closed for peer in peers)
        await mesh.ban("address", "127.1.0.0/16")
        await until(lambda: all(peer.closed for peer in peers[::2]), "all that should go are gone", 30)
        assert not any(peer.closed for peer in peers[1::2])
        assert all(peer.data.endswith(_TOLD) for peer in peers[::2])
        assert (mesh.nodes.door._bans.status().ended, mesh.door._bans.status().ended) == (250, 250)
        late = Peer("LATE")
        await loop.create_connection(lambda: late, "127.0.0.1", mesh.port(), local_addr=("127.1.9.9", 0))
        await until(lambda: late.closed)
        assert late.data[:1] == b"\x20"
        assert late.data[3] == BANNED
        for peer in peers:
            if peer.transport is not None:
                peer.transport.abort()

    with_mesh(etcd, main)
