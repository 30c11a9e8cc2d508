"""Claims that end: the connection of a door or an endpoint ends with its claim, in whatever state it is, unless the
client proves its identity again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, Principal, everything
from mesh.transport.admission import Admission
from mesh.transport.authentication import Methods, Proof
from mesh.transport.expiry import LOOK, Expiry
from mesh.transport.stream import StreamGroup
from mesh.transport.wheel import TICK, Wheel
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, MQTT311, Auth, Connack, Connect, Disconnect
from mesh.wire.properties import Properties
from mesh.wire.reasons import MAXIMUM_CONNECT_TIME, NOT_AUTHORIZED, RE_AUTHENTICATE
from tests.fakes.endpoint import EndpointNode
from tests.fakes.mesh import FakeMesh
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until

PLACES = ["door", "endpoint"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock: its only entry is the time."""
    now = [time.time()]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


class Place:
    """A node with clients whose claims end at ``expires``; time passes by ``seconds`` only."""

    def __init__(self, port: int, group: StreamGroup, wheel: Wheel, outlived: Callable[[], int]) -> None:
        self.port = port
        self.group = group
        self.wheel = wheel
        self.outlived = outlived
        wheel.stop()

    def seconds(self, clock: list[float], count: float) -> None:
        for _ in range(int(count / TICK)):
            clock[0] += TICK
            self.wheel.tick()


class Renewal(Proof):
    """The data is the moment at which the claim ends."""

    def step(self, data: bytes) -> tuple[bytes, bool]:
        self.claim = Claim("CAR", "test", expires=float(data))
        return b"", True


class Renewals(Methods):
    def begin(self, method: str, peer: Peer) -> Proof | None:
        return Renewal()


@asynccontextmanager
async def place(kind: str, expires: float) -> AsyncIterator[Place]:
    if kind == "door":
        mesh = FakeMesh()
        mesh.expires = expires
        mesh.admission = Admission(PacketLimits(), 10, "", Renewals())
        async with mesh:
            yield Place(mesh.port, mesh.door.group, mesh.door.wheel, lambda: mesh.door.status().clients.outlived)
    else:

        def authenticate(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
            claim = proven or Claim("CAR", "test", expires=expires)
            return Principal(claim.name, BACKEND, everything(), claim=claim)

        node = EndpointNode(authenticate)
        node.admission = Admission(PacketLimits(), 10, "", Renewals())
        async with node:
            yield Place(node.port, node.endpoint.group, node.wheel, lambda: node.endpoint.status("client").outlived)


def proof(moment: float) -> Properties:
    properties = Properties()
    properties.auth_method = "RENEW"
    properties.auth_data = str(moment).encode()
    return properties


@pytest.mark.parametrize("kind", PLACES)
def test_a_connection_ends_with_its_claim_and_a_client_of_5_0_is_told(kind: str, clock: list[float]) -> None:
    moment = clock[0] + 100

    async def main() -> None:
        async with place(kind, moment) as node:
            new, old = (
                await Bare(MQTT5).hello(node.port, "CAR", keep_alive=0),
                await Bare(MQTT311).hello(node.port, "OLD", keep_alive=0),
            )
            node.seconds(clock, 99.5)
            assert node.outlived() == 0
            node.seconds(clock, 2)
            assert (await new.wait(Disconnect)).reason == MAXIMUM_CONNECT_TIME
            await new.wait_closed()
            await old.wait_closed()
            assert not [packet for packet in old.packets if not isinstance(packet, Connack)]
            assert node.outlived() == 2

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_claim_without_an_end_has_no_timer(kind: str, clock: list[float]) -> None:
    async def main() -> None:
        async with place(kind, 0.0) as node:
            car = await Bare(MQTT5).hello(node.port, "CAR", keep_alive=0)
            node.seconds(clock, 3600)
            assert not car.closed.is_set()
            assert node.outlived() == 0

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_client_that_proves_its_identity_again_stays(kind: str, clock: list[float]) -> None:
    start = clock[0]

    async def main() -> None:
        async with place(kind, 0.0) as node:
            car = await Bare(MQTT5).connect(node.port)
            car.send(Connect(MQTT5, "CAR", keep_alive=0, username="CAR", properties=proof(start + 100)))
            assert (await car.wait(Connack)).reason == 0
            node.seconds(clock, 90)
            car.send(Auth(RE_AUTHENTICATE, proof(start + 300)))
            assert (await car.wait(Auth)).reason == 0
            node.seconds(clock, 200)
            assert not car.closed.is_set()
            node.seconds(clock, 12)
            assert (await car.wait(Disconnect)).reason == MAXIMUM_CONNECT_TIME

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_client_may_renew_a_claim_with_one_that_has_no_end(kind: str, clock: list[float]) -> None:
    start = clock[0]

    async def main() -> None:
        async with place(kind, 0.0) as node:
            car = await Bare(MQTT5).connect(node.port)
            car.send(Connect(MQTT5, "CAR", keep_alive=0, username="CAR", properties=proof(start + 100)))
            assert (await car.wait(Connack)).reason == 0
            car.send(Auth(RE_AUTHENTICATE, proof(0)))
            assert (await car.wait(Auth)).reason == 0
            node.seconds(clock, 3600)
            assert not car.closed.is_set()

    run(main())


def test_a_claim_that_ends_while_the_client_waits_refuses_it(clock: list[float]) -> None:
    async def main() -> None:
        async with place("door", clock[0] + 5) as node:
            # The edge is not asked: the claim ends before the vehicle's edge is found.
            car = await Bare(MQTT5).connect(node.port)
            car.send(Connect(MQTT5, "CAR", keep_alive=0, username="CAR"))
            await until(lambda: len(node.group.streams) == 1 and node.group.bytes_in > 0)
            node.seconds(clock, 7)
            await car.wait_closed()
            reasons = [packet.reason for packet in car.packets if isinstance(packet, (Connack, Disconnect))]
            assert reasons[-1] in (NOT_AUTHORIZED, MAXIMUM_CONNECT_TIME)

    run(main())


def test_nothing_is_left_of_a_connection_that_ended_before_its_claim(clock: list[float]) -> None:
    async def main() -> None:
        async with place("endpoint", clock[0] + 100) as node:
            car = await Bare(MQTT5).hello(node.port, "CAR", keep_alive=0)
            await car.close()
            await until(lambda: not node.group.streams)
            assert not any(isinstance(entry, Expiry) for slot in node.wheel._slots for entry in slot)
            node.seconds(clock, 200)
            assert node.outlived() == 0

    run(main())


def test_a_wall_clock_that_is_set_is_noticed(clock: list[float]) -> None:
    async def main() -> None:
        wheel = Wheel(asyncio.get_running_loop())
        told: list[float] = []
        Expiry(wheel, clock[0] + 7200, lambda: told.append(clock[0]))
        clock[0] += 7200  # a jump; the loop's time has not passed
        for _ in range(int(LOOK / TICK) + 3):
            wheel.tick()
        assert told == [clock[0]]
        back = Expiry(wheel, clock[0] + 10, lambda: told.append(clock[0]))
        clock[0] -= 3600
        for _ in range(100):
            wheel.tick()
        assert len(told) == 1
        back.cancel()
        clock[0] += 7200
        for _ in range(300):
            wheel.tick()
        assert len(told) == 1

    run(main())
