"""Settings of a door that change while it serves: a vehicle that was connected before, and one that comes after.

Door, edge and core are real, over real sockets.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mesh.edge.node import EdgeNode
from mesh.frontdoor import door as room
from mesh.frontdoor.context import DoorSettings
from mesh.frontdoor.door import FrontDoor
from mesh.frontdoor.node import DoorNode
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.topology import ListenerSpec
from mesh.topology.units import Address
from mesh.transport.rates import BURST
from mesh.transport.wheel import TICK
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    PUBACK,
    Connack,
    Connect,
    Disconnect,
    Publish,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import (
    CONNECTION_RATE_EXCEEDED,
)
from tests.fakes.mesh import FakeMesh
from tests.frontdoor.live_door import alive, doors
from tests.support.bare import Bare
from tests.support.effects import effect_of
from tests.support.loop import run
from tests.support.nodes import Nodes, at_once, etcd, publish, with_nodes
from tests.support.ports import free_port
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture


def door_of(mesh: Nodes) -> FrontDoor:
    assert mesh.door._door is not None
    return mesh.door._door


def told(client: Bare) -> Properties:
    connack = next(packet for packet in client.packets if isinstance(packet, Connack))
    assert connack.properties is not None
    return connack.properties


def aliased(topic: str, alias: int, packet_id: int, payload: bytes = b"x") -> Publish:
    properties = Properties()
    properties.topic_alias = alias
    return Publish(topic, payload, 1, False, False, packet_id, properties)


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(("old", "new"), [(4096, 8192), (8192, 4096)])
@effect_of("limits.max_packet_size")
def test_the_largest_packet_is_the_one_that_was_told(
    etcd: EmbeddedEtcd, old: int, new: int, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SETTLING", 0.0 if settled else 3600.0)

    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1")
        await mesh.limits(max_packet_size=new)
        await until(lambda: (door_of(mesh)._settling is None) == settled)
        after = await mesh.vehicle("V2")
        other = await mesh.vehicle("V3")
        for client, name, most in ((before, "V1", old), (after, "V2", new)):
            assert told(client).maximum_packet_size == most
            topic = f"vehicles/{name}/x"
            room_left = most - len(encode(Publish(topic, b"x" * 300, 1, False, False, 1), MQTT5)) + 300
            publish(client, topic, b"x" * room_left, packet_id=1)
            await client.acked(PUBACK, [1])
        for client, name, most in ((before, "V1", old), (after, "V2", new if settled else max(old, new))):
            publish(client, f"vehicles/{name}/x", b"x" * most, packet_id=2)
            assert (await client.wait(Disconnect)).reason == 0x95
        await alive(other)

    with_nodes(etcd, main, f"limits: {{max_packet_size: {old}B}}\n")


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(("old", "new"), [(2, 4), (4, 2), (0, 2), (2, 0)])
@effect_of("limits.topic_aliases")
def test_the_aliases_are_those_that_were_told(
    etcd: EmbeddedEtcd, old: int, new: int, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SETTLING", 0.0 if settled else 3600.0)

    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1")
        await mesh.limits(topic_aliases=new)
        await until(lambda: (door_of(mesh)._settling is None) == settled)
        after = await mesh.vehicle("V2")
        for client, name, most in ((before, "V1", old), (after, "V2", new)):
            assert (told(client).topic_alias_maximum or 0) == most
            for alias in range(1, most + 1):
                client.send(aliased(f"vehicles/{name}/{alias}", alias, alias))
            for alias in range(1, most + 1):
                client.send(aliased("", alias, 100 + alias))
            await client.acked(PUBACK, [*range(1, most + 1), *range(101, 101 + most)])
            await alive(client)

    with_nodes(etcd, main, f"limits: {{topic_aliases: {old}}}\n")


@effect_of("limits.max_packet_size")
def test_aliases_of_an_open_connection_are_bounded_by_its_own_packets(etcd: EmbeddedEtcd) -> None:
    """The topic of an alias may be longer than a whole packet of a connection that opens now."""

    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1")
        topic = "vehicles/V1/" + "x" * 3000
        before.send(aliased(topic, 1, 1))
        await before.acked(PUBACK, [1])
        await mesh.limits(max_packet_size=1024)
        before.send(aliased("", 1, 2))
        await before.acked(PUBACK, [1, 2])
        await alive(before)

    with_nodes(etcd, main)


def test_a_door_takes_what_an_edge_tells_before_and_after_it(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes take a change one after another, and a vehicle may connect between two of them."""
    monkeypatch.setattr(room, "SETTLING", 3600.0)

    async def main(mesh: Nodes) -> None:
        async def uses(name: str, size: int, aliases: int) -> None:
            client = await mesh.vehicle(name)
            assert told(client).maximum_packet_size == size
            assert told(client).topic_alias_maximum == aliases
            topic = f"vehicles/{name}/x"
            client.send(aliased(topic, aliases, 1))
            publish(client, topic, b"x" * (size - 100), packet_id=2)
            await client.acked(PUBACK, [1, 2])

        async def both(size: int, aliases: int) -> tuple[Callable[[], None], Callable[[], None]]:
            limits = replace(mesh.topology.limits, max_packet_size=size, topic_aliases=aliases)
            mesh.topology = replace(mesh.topology, limits=limits)
            door = await mesh.door.prepare(mesh.config("door"))
            edge = await mesh.edge.prepare(mesh.config("edge-1"))
            return door.commit, edge.commit

        door, edge = await both(8192, 8)
        await uses("V1", 4096, 4)
        edge()
        await uses("V2", 8192, 8)
        door()
        await uses("V3", 8192, 8)
        door, edge = await both(2048, 2)
        door()
        await uses("V4", 8192, 8)
        edge()
        await uses("V5", 2048, 2)
        assert door_of(mesh)._settling is not None
        door_of(mesh)._settled()
        await uses("V6", 2048, 2)
        in_force: Any = door_of(mesh).in_force()
        assert (in_force["topic_aliases"], in_force["packets"]["max_packet_size"]) == (2, 2048)

    with_nodes(etcd, main, "limits: {max_packet_size: 4096B, topic_aliases: 4}\n")


def test_a_withdrawn_change_leaves_the_door_as_it_was(etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "SETTLING", 0.0)

    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1")
        was = mesh.door.in_force()
        limits = replace(
            mesh.topology.limits, max_packet_size=1 << 21, topic_aliases=9, held_bytes=5000, connections=3,
            connect_timeout=2.0, connect_wait=2.0, packet_rate=999, wrong_passwords=3, topic_levels=9,
        )  # fmt: skip
        other = ListenerSpec(kind="mqtt", address=Address("127.0.0.1", free_port()))
        changed = replace(doors(redirect="other.example", listen=(other,))(mesh.topology), limits=limits)
        mesh.topology = changed
        (await mesh.door.prepare(mesh.config("door"))).withdraw()
        await until(lambda: door_of(mesh)._settling is None)
        assert mesh.door.in_force() == was
        await alive(before)

    with_nodes(etcd, main)


def test_more_connections_than_a_process_may_have_files_are_refused(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(mesh: Nodes) -> None:
        was = mesh.door.in_force()
        port = free_port()
        limits = replace(mesh.topology.limits, connections=1_000_000)
        listen = (ListenerSpec(kind="mqtt", address=Address("127.0.0.1", port)),)
        mesh.topology = replace(doors(listen=listen)(mesh.topology), limits=limits)
        monkeypatch.setattr(resource, "getrlimit", lambda what: (4096, 4096))
        with pytest.raises(OSError, match=r"door: limits\.connections"):
            await mesh.door.prepare(mesh.config("door"))
        monkeypatch.undo()
        assert mesh.door.in_force() == was
        mesh.topology = doors(listen=listen)(replace(mesh.topology, limits=replace(limits, connections=0)))
        (await mesh.door.prepare(mesh.config("door"))).commit()
        assert mesh.vehicles == port, "nothing is in the way"

    with_nodes(etcd, main)


@effect_of("front_doors.redirect", "limits.connections")
def test_connections_and_redirect(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        cars = [await mesh.vehicle(f"V{number}") for number in range(3)]

        async def knock() -> Connack:
            car = await Bare(MQTT5).connect(mesh.vehicles)
            mesh.clients.append(car)
            car.send(Connect(MQTT5, "NEW", username="NEW"))
            return await car.wait(Connack)

        await mesh.limits(connections=3)
        assert (await knock()).reason == 0x89
        await mesh.limits(connections=20)
        assert (await knock()).reason == 0
        await mesh.change(doors(redirect="other.example"))
        answer = await knock()
        assert answer.reason == 0x9C
        assert answer.properties is not None
        assert answer.properties.server_reference == "other.example"
        await mesh.change(doors(redirect=""))
        assert (await knock()).reason == 0
        await alive(*cars)

    with_nodes(etcd, main)


async def knocks(mesh: Nodes, times: int, name: str = "NEW") -> list[int]:
    """The reason codes of CONNECTs, one after another."""
    codes = []
    for _ in range(times):
        car = await Bare(MQTT5).connect(mesh.vehicles)
        car.send(Connect(MQTT5, name, username=name))
        codes.append((await car.wait(Connack)).reason)
        await car.close()
    return codes


@effect_of("limits.connects", "limits.network_connects", "limits.address_connects")
@pytest.mark.parametrize("limit", ["connects", "network_connects", "address_connects"])
def test_connects_a_second(etcd: EmbeddedEtcd, limit: str) -> None:
    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1")
        await mesh.limits(**{limit: 1})
        assert CONNECTION_RATE_EXCEEDED in await knocks(mesh, 2 * int(BURST))
        await mesh.limits(**{limit: 1000})
        assert await knocks(mesh, 3) == [0, 0, 0]
        await alive(before)

    with_nodes(etcd, main)


@effect_of("limits.vehicle_connects")
def test_connects_of_one_vehicle(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1")
        await mesh.limits(vehicle_connects=2)
        assert await knocks(mesh, 3) == [0, 0, CONNECTION_RATE_EXCEEDED]
        assert await knocks(mesh, 1, "OTHER") == [0]
        await mesh.limits(vehicle_connects=4)
        assert await knocks(mesh, 3) == [0, 0, CONNECTION_RATE_EXCEEDED]
        await alive(before)

    with_nodes(etcd, main)


@effect_of("limits.pending_connects")
def test_connections_that_hold_their_connect_back(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        before = await mesh.vehicle("V1")
        silent = [await Bare(MQTT5).connect(mesh.vehicles) for _ in range(20)]
        mesh.clients += silent
        pending = door_of(mesh).clients.admission.arrivals.pending
        await until(lambda: len(pending) == 20)
        await mesh.limits(pending_connects=5)
        after = await mesh.vehicle("V2")
        for car in silent[:15]:
            await car.wait_closed()
        assert pending.closed in (15, 16), "the last one came while V2 had not sent its CONNECT"
        assert len(pending) <= 5
        await alive(before, after)

    with_nodes(etcd, main)


@effect_of("front_doors.listen")
def test_listeners_are_added_and_removed(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        stays = await mesh.vehicle("V1")
        first = ListenerSpec(kind="mqtt", address=Address("127.0.0.1", 0))
        second = ListenerSpec(kind="mqtt", address=Address("127.0.0.1", free_port()))
        await mesh.change(doors(listen=(first, second)))
        car = await Bare(MQTT5).hello(second.address.port, "V2")
        mesh.clients.append(car)
        await alive(car)
        await mesh.change(doors(listen=(first,)))
        assert (await car.wait(Disconnect)).reason == 0x8B
        await car.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await Bare().connect(second.address.port)
        back = await mesh.vehicle("V2")
        await alive(stays, back)

    with_nodes(etcd, main)


@effect_of("limits.topic_levels")
def test_the_depth_of_topics_holds_for_all(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        before, deep = await mesh.vehicle("V1"), "/".join("x" * 10)
        publish(before, f"vehicles/V1/{deep}")
        await before.acked(PUBACK, [1])
        await mesh.limits(topic_levels=5)
        after = await mesh.vehicle("V2")
        other = await mesh.vehicle("V3")
        for client, name in ((before, "V1"), (after, "V2")):
            publish(client, f"vehicles/{name}/{deep}", packet_id=2)
            assert (await client.wait(Disconnect)).reason in (0x90, 0x97, 0x81)
        await alive(other)

    with_nodes(etcd, main)


@effect_of("limits.connect_timeout", "limits.packet_rate", "limits.connect_wait", "limits.memory", "limits.held_bytes")
def test_a_revision_reaches_the_parts_of_a_door(etcd: EmbeddedEtcd) -> None:
    """Their effects are tested below, with the times that a topology may not have."""

    async def main(mesh: Nodes) -> None:
        car = await mesh.vehicle("V1")
        await mesh.limits(
            connect_timeout=2.0, packet_rate=777, connect_wait=3.0, memory=256 << 20, held_bytes=4321,
            wrong_passwords=9,
        )  # fmt: skip
        door = door_of(mesh)
        clients = door.clients
        assert (clients.connect_timeout, clients.answer_timeout, clients.packet_rate) == (2.0, 3.0, 777)
        assert clients.buffers.limit == door.links.most == 64 << 20
        assert [link.share for link in door.links._links.values()] == [4321]
        assert [link.limit for link in door.links._links.values()] == [32 << 20]
        await alive(car)

    with_nodes(etcd, main)


def take(mesh: FakeMesh, **values: Any) -> None:
    """Other settings for a door alone."""
    door = mesh.door
    door.take(replace(door._settings, **values), PacketLimits(), door.clients.admission.most, "")


def test_the_time_for_connect_is_that_of_the_turn_in_which_a_client_comes() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            before = await Bare().connect(mesh.port)
            car = await Bare().hello(mesh.port, "CAR")
            take(mesh, connect_timeout=0.3)
            after = await Bare().connect(mesh.port)
            await after.wait_closed()
            assert not before.closed.is_set()
            await alive(car)
            await before.close()

    run(main())


def test_the_wait_for_an_edge_is_that_of_the_turn_in_which_a_connect_comes() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            car = await Bare(MQTT5).hello(mesh.port, "CAR")
            await mesh.edge.kill()
            take(mesh, attach_timeout=0.3)
            after = await Bare(MQTT5).connect(mesh.port)
            after.send(Connect(MQTT5, "NEW", username="NEW"))
            assert (await after.wait(Connack)).reason == 0x88
            await alive(car)
            await mesh.edge.restart()

    run(main())


def test_a_higher_share_lets_vehicles_that_wait_be_read_again() -> None:
    """The edge is away, so nothing else would."""

    async def main() -> None:
        async with FakeMesh(DoorSettings(held_per_vehicle=1000)) as mesh:
            car, other = await Bare().hello(mesh.port, "CAR"), await Bare().hello(mesh.port, "OTHER")
            await mesh.edge.kill()
            link = mesh.door.links.get("edge-1")
            await until(lambda: link.state == "away")
            for number in range(10):
                publish(car, "t", b"x" * 1000, number + 1)
                await asyncio.sleep(0)
            await until(lambda: link.held > 1000)
            await until(lambda: link.held < 5000)
            vehicle = next(path.vehicle for path in link.paths.values() if path.vehicle.name == "CAR")
            await until(lambda: vehicle.holds)
            held = link.held
            take(mesh, held_per_vehicle=100_000)
            await until(lambda: vehicle.holds == 0)
            await until(lambda: link.held > max(held, 10_000))
            take(mesh, held_per_vehicle=1000)
            publish(other, "t", b"x" * 2000, 1)
            watched = next(path.vehicle for path in link.paths.values() if path.vehicle.name == "OTHER")
            await until(lambda: watched.holds)
            assert not car.closed.is_set()
            assert not other.closed.is_set()

    run(main())


def test_a_higher_bound_of_all_held_bytes_lets_vehicles_be_read_again() -> None:
    async def main() -> None:
        settings = DoorSettings(held_per_edge=64 << 20, held=20_000)
        async with FakeMesh(settings) as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            await mesh.edge.kill()
            link = mesh.door.links.get("edge-1")
            await until(lambda: link.state == "away")
            assert link.limit == 10_000
            publish(car, "t", b"x" * 12_000, 1)
            await until(lambda: link.held > 10_000)
            publish(car, "t", b"x", 2)
            await until(lambda: link._blocked)
            take(mesh, held=200_000)
            await until(lambda: not link._blocked)
            publish(car, "t", b"x" * 50_000, 3)
            await until(lambda: link.held > 60_000)
            assert not car.closed.is_set()

    run(main())


def test_a_packet_rate_holds_for_open_connections() -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            cars = [await Bare(MQTT5).hello(mesh.port, f"CAR{number}", keep_alive=1) for number in range(2)]
            take(mesh, packet_rate=1 << 20)
            whole = encode(Publish("t", b"x" * 90_000, 1, False, False, 1), MQTT5)
            for start in range(0, len(whole), 1000):  # two kilobytes a tick
                if any(car.closed.is_set() for car in cars):
                    break
                for car in cars:
                    car.raw(whole[start : start + 1000])
                await asyncio.sleep(TICK / 2)
            for car in cars:
                assert (await car.wait(Disconnect)).reason == 0x8D

    run(main())


LARGE = 700_000  # bytes: more than a frame had room for after the change


def test_a_larger_packet_that_an_edge_has_stored_goes_through_a_door_that_starts_later(etcd: EmbeddedEtcd) -> None:
    """It ended the link of all vehicles, again and again."""

    async def main(mesh: Nodes) -> None:
        await (await mesh.vehicle("V1", "vehicles/V1/#", expiry=3600)).close()
        backend = await mesh.backend("b")
        publish(backend, "vehicles/V1/map", b"x" * LARGE)
        await backend.acked(PUBACK, [1])
        await mesh.limits(max_packet_size=1024)
        await mesh.door.stop(0.2)
        mesh.door = DoorNode(mesh.config("door"))
        with at_once():
            await mesh.door.start()
        other = await mesh.vehicle("V2")
        car = await Bare(MQTT5).connect(mesh.vehicles)
        mesh.clients.append(car)
        car.send(Connect(MQTT5, "V1", clean_start=False, username="V1"))
        assert len((await car.wait(Publish)).payload) == LARGE
        await alive(car, other)
        assert [link.losses for link in door_of(mesh).links._links.values()] == [0]

    with_nodes(etcd, main)


def test_a_larger_packet_of_an_open_connection_ends_no_link_to_an_edge_that_started_later(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        car, other = await mesh.vehicle("V1"), await mesh.vehicle("V2")
        await mesh.limits(max_packet_size=1024)
        await mesh.edge.stop(0.2)
        mesh.edge = EdgeNode(mesh.config("edge-1"))
        await mesh.edge.start()
        (link,) = door_of(mesh).links._links.values()
        await until(lambda: link.state == "up")
        losses = link.losses
        publish(car, "vehicles/V1/map", b"x" * LARGE)
        assert (await car.wait(Disconnect)).reason == 0x95, "the edge no longer knows what it told before"
        publish(other, "vehicles/V2/x")
        await other.acked(PUBACK, [1])
        assert link.losses == losses

    with_nodes(etcd, main)
