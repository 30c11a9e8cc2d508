"""Keep alive at the front door and at the endpoint: which bytes are a sign of life [MQTT-3.1.2-22].

The test lets the time pass: the wheel's own timer is stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.transport.client import PACKET_RATE, STALL
from mesh.transport.stream import StreamGroup
from mesh.transport.wheel import TICK, Wheel
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, PINGREQ, PUBACK, Disconnect, Ping, Publish
from tests.fakes.endpoint import EndpointNode
from tests.fakes.mesh import FakeMesh
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.shows import shows
from tests.support.waiting import until

BIG = encode(Publish("vehicles/CAR/t", bytes(100_000), 1, packet_id=7), MQTT5)
KEEP_ALIVE = 60
PATIENCE = int(1.5 * KEEP_ALIVE / TICK) + 1  # ticks after which a silent client is closed

PLACES = ["door", "endpoint"]


class Place:
    """A node with clients; time passes by ``ticks`` only."""

    def __init__(self, port: int, group: StreamGroup, wheel: Wheel) -> None:
        self.port = port
        self.group = group
        self.wheel = wheel
        wheel.stop()

    async def client(self, keep_alive: int, name: str = "CAR") -> Bare:
        return await Bare(MQTT5).hello(self.port, name, keep_alive=keep_alive)

    async def take(self, client: Bare, data: bytes) -> None:
        """Send bytes and wait until the node has read them."""
        before = self.group.bytes_in
        client.raw(data)
        await until(lambda: self.group.bytes_in == before + len(data))

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.wheel.tick()


@asynccontextmanager
async def place(kind: str) -> AsyncIterator[Place]:
    if kind == "door":
        async with FakeMesh() as mesh:
            yield Place(mesh.port, mesh.door.group, mesh.door.wheel)
    else:
        async with EndpointNode() as node:
            yield Place(node.port, node.endpoint.group, node.wheel)


@shows(v5="3.1.2-22", v3="3.1.2-24")
@pytest.mark.parametrize("kind", PLACES)
def test_bytes_that_trickle_are_no_sign_of_life(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            car = await node.client(KEEP_ALIVE)
            for n in range(PATIENCE // 10 + 1):
                await node.take(car, BIG[n : n + 1])
                node.ticks(10)
            assert (await car.wait(Disconnect)).reason == 0x8D
            await car.wait_closed()

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_packet_that_stops_midway_is_no_sign_of_life(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            car = await node.client(KEEP_ALIVE)
            await node.take(car, BIG[:50_000])
            node.ticks(PATIENCE)  # enough came in this time
            await node.take(car, BIG[50_000:50_100])
            node.ticks(PATIENCE)
            assert (await car.wait(Disconnect)).reason == 0x8D

    run(main())


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("keep_alive", [KEEP_ALIVE, 0])
def test_a_big_packet_on_a_slow_network_keeps_the_connection(kind: str, keep_alive: int) -> None:
    async def main() -> None:
        async with place(kind) as node:
            car = await node.client(keep_alive)
            portion = int(PACKET_RATE * 5 * 1.1)  # of 5 s
            for start in range(0, len(BIG), portion):
                await node.take(car, BIG[start : start + portion])
                if start + portion < len(BIG):
                    node.ticks(int(5 / TICK))
            await car.acked(PUBACK, [7])
            await node.take(car, BIG[:1])  # the next one begins with a measure of its own
            if keep_alive:
                node.ticks(PATIENCE - 1)
                await node.take(car, BIG[1:])
                await until(lambda: car.acks(PUBACK) == [7, 7])

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_whole_packets_renew_the_deadline_also_with_a_part_behind_them(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            car, ping = await node.client(KEEP_ALIVE), encode(Ping(PINGREQ), MQTT5)
            await node.take(car, ping[:1])
            for _ in range(5):
                node.ticks(PATIENCE - 2)
                await node.take(car, ping[1:] + ping[:1])
            await car.wait_all(Ping, 5)
            assert not car.closed.is_set()

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_without_keep_alive_an_idle_client_stays_and_a_trickle_does_not(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            idle, slow, stopped = [await node.client(0, name) for name in ("IDLE", "SLOW", "STOPPED")]
            await node.take(stopped, encode(Ping(PINGREQ), MQTT5) + BIG[:50_000])
            ticks = int(STALL / TICK) + 2
            await node.take(slow, BIG[:1])
            for _ in range(6):
                await node.take(idle, encode(Ping(PINGREQ), MQTT5))
                node.ticks(ticks // 2)
            for client in (slow, stopped):
                assert (await client.wait(Disconnect)).reason == 0x8D
            node.ticks(100 * ticks)
            await node.take(idle, encode(Ping(PINGREQ), MQTT5))
            await idle.wait_all(Ping, 7)

    run(main())
