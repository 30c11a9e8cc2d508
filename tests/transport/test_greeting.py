"""The same tests of CONNECT at a front door and at a core's endpoint, over real sockets: both use one state machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.frontdoor.context import DoorSettings
from mesh.transport.admission import Admission
from mesh.transport.authentication import Methods, Proof
from mesh.transport.refusal import Refused
from mesh.transport.status import CLIENT, Held
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    MQTT311,
    PINGREQ,
    PINGRESP,
    PUBACK,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Ping,
    Publish,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import (
    BAD_AUTHENTICATION_METHOD,
    CONTINUE_AUTHENTICATION,
    KEEP_ALIVE_TIMEOUT,
    NOT_AUTHORIZED,
    PROTOCOL_ERROR,
    RE_AUTHENTICATE,
    SERVER_BUSY,
    SERVER_SHUTTING_DOWN,
    SERVER_UNAVAILABLE,
    USE_ANOTHER_SERVER,
)
from tests.fakes.endpoint import PRINCIPAL, EndpointNode
from tests.fakes.mesh import FakeMesh
from tests.support.bare import Bare
from tests.support.exchange import exchange
from tests.support.loop import run
from tests.support.waiting import until


class Password(Proof):
    """One challenge; its answer is the identity, unless it is ``wrong``."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def step(self, data: bytes) -> tuple[bytes, bool]:
        if not self.asked:
            self.asked = True
            return b"who?", False
        if data == b"wrong":
            raise Refused(NOT_AUTHORIZED, "a wrong answer")
        self.claim = Claim(data.decode(), "word")
        return b"", True


class Passwords(Methods):
    def begin(self, method: str, peer: Peer) -> Proof | None:
        return Password() if method == "word" else None


class World:
    """One listener. ``gate`` is open unless a test delays the look-up of clients."""

    def __init__(self, most: int = 10, redirect: str = "", connect_timeout: float = 10.0) -> None:
        self.admission = Admission(PacketLimits(), most, redirect, Passwords())
        self.connect_timeout = connect_timeout
        self.gate = asyncio.Event()
        self.gate.set()
        self.port = 0

    async def __aenter__(self) -> World:
        raise NotImplementedError

    async def __aexit__(self, *error: object) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        """The node stops."""
        raise NotImplementedError

    def opened(self) -> list[str]:
        """Client ids whose CONNECT has reached the broker."""
        raise NotImplementedError

    def refused(self) -> int:
        """The figure of connections that ended before CONNACK."""
        raise NotImplementedError

    def held(self) -> Held:
        """Why sockets are not read."""
        raise NotImplementedError


class DoorWorld(World):
    async def __aenter__(self) -> World:
        self._mesh = FakeMesh(DoorSettings(connect_timeout=self.connect_timeout, attach_timeout=self.connect_timeout))
        self._mesh.admission = self.admission
        self._mesh.map.gate = self.gate
        await self._mesh.__aenter__()
        self.port = self._mesh.port
        return self

    async def __aexit__(self, *error: object) -> None:
        self.gate.set()
        await self._mesh.__aexit__()

    async def stop(self) -> None:
        await self._mesh.door.stop(1.0)

    def opened(self) -> list[str]:
        return self._mesh.engine.opened

    def refused(self) -> int:
        return self._mesh.door.status().clients.with_refused()

    def held(self) -> Held:
        return self._mesh.door.status().clients.held


class EndpointWorld(World):
    async def __aenter__(self) -> World:
        self._node = EndpointNode(self._authenticate)
        self._node.admission = self.admission
        self._node.connect_timeout = self.connect_timeout
        await self._node.__aenter__()
        self.port = self._node.port
        return self

    def _authenticate(self, connect: Connect, peer: Peer, proven: Claim | None) -> Awaitable[Principal] | Principal:
        if proven is not None:
            return PRINCIPAL
        if connect.username in (None, "nobody"):
            raise Refused(NOT_AUTHORIZED)
        return self._later()

    async def _later(self) -> Principal:
        await self.gate.wait()
        return PRINCIPAL

    async def __aexit__(self, *error: object) -> None:
        await self._node.__aexit__()

    async def stop(self) -> None:
        await self._node.endpoint.stop(1.0)

    def opened(self) -> list[str]:
        return self._node.engine.opened

    def refused(self) -> int:
        return self._node.endpoint.status(CLIENT).with_refused()

    def held(self) -> Held:
        return self._node.endpoint.status(CLIENT).held


Make = Callable[..., World]
BOTH = pytest.mark.parametrize("make", [DoorWorld, EndpointWorld], ids=["door", "endpoint"])


def asking(client_id: str, method: str = "word") -> Connect:
    properties = Properties()
    properties.auth_method = method
    return Connect(MQTT5, client_id, username=client_id, properties=properties)


def auth(data: bytes, reason: int = CONTINUE_AUTHENTICATION) -> Auth:
    properties = Properties()
    properties.auth_method, properties.auth_data = "word", data
    return Auth(reason, properties)


async def refusal(world: World, connect: Connect) -> Connack:
    """The CONNACK of a refused client, after which the connection is closed."""
    client = await Bare(connect.protocol).connect(world.port)
    client.send(connect)
    connack = await client.wait(Connack)
    await client.wait_closed()
    return connack


BAD = [
    (b"GET / HTTP/1.1\r\n\r\n", b""),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
    (b"\x20\x02\x00\x00", b""),
    (b"\x10\xff\xff\xff\x7f", b""),
    (b"\x10\xff\xff\xff\xff\xff", b""),
    (b"\x10\x0c\x00\x04MQTX\x04\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),
    (b"\x10\x0c\x00\x04MQTT\x07\x02\x00\x3c\x00\x00", b"\x20\x02\x00\x01"),
    (b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x00", b"\x20\x03\x00\x81\x00"),
    (b"\x10\x0c\x00\x04MQTT\x04\x03\x00\x3c\x00\x00", b""),
]


@BOTH
@pytest.mark.parametrize(("sent", "answer"), BAD)
def test_invalid_connect_is_answered_and_closed(make: Make, sent: bytes, answer: bytes) -> None:
    async def main() -> None:
        async with make() as world:
            assert await exchange(world.port, sent) == answer
            await until(lambda: world.refused() == 1)
            assert world.opened() == []

    run(main())


@BOTH
def test_connect_after_its_deadline_ends_the_connection(make: Make) -> None:
    async def main() -> None:
        async with make(connect_timeout=0.5) as world:
            clients = [await Bare(MQTT5).connect(world.port) for _ in range(3)]
            clients[1].raw(encode(Connect(MQTT5, "car"), MQTT5)[:-1])
            clients[2].send(asking("car"))
            for client in clients:
                await client.wait_closed()
            assert [len(client.packets) for client in clients] == [0, 0, 1]
            assert world.refused() == 3

    run(main())


@BOTH
def test_client_whose_look_up_times_out_is_refused(make: Make) -> None:
    async def main() -> None:
        async with make(connect_timeout=0.5) as world:
            world.gate.clear()
            assert (await refusal(world, Connect(MQTT5, "car", username="car"))).reason == SERVER_UNAVAILABLE
            assert (await refusal(world, Connect(MQTT311, "car", username="car"))).reason == 3
            assert world.opened() == []

    run(main())


@BOTH
def test_unauthorized_client_is_refused(make: Make) -> None:
    async def main() -> None:
        async with make() as world:
            assert (await refusal(world, Connect(MQTT5, "car", username="nobody"))).reason == NOT_AUTHORIZED
            assert (await refusal(world, Connect(MQTT311, "car", username="nobody"))).reason == 5
            assert world.refused() == 2

    run(main())


@BOTH
def test_connection_over_the_limit_and_redirected_one_are_refused(make: Make) -> None:
    async def main() -> None:
        async with make(most=1) as world:
            first = await Bare(MQTT5).hello(world.port, "first")
            assert (await refusal(world, Connect(MQTT5, "second", username="second"))).reason == SERVER_BUSY
            await first.close()
        async with make(redirect="other:1883") as world:
            connack = await refusal(world, Connect(MQTT5, "car", username="car"))
            assert connack.reason == USE_ANOTHER_SERVER
            assert connack.properties is not None
            assert connack.properties.server_reference == "other:1883"

    run(main())


@BOTH
def test_packets_after_connect_keep_their_order_and_wait_for_connack(make: Make) -> None:
    async def main() -> None:
        async with make() as world:
            world.gate.clear()
            car = await Bare(MQTT5).connect(world.port)
            numbers = range(1, 1501)  # more than any client sends at once
            car.send(Connect(MQTT5, "car", username="car"), Ping(PINGREQ))
            car.send(*[Publish("vehicles/car/t", b"", 1, packet_id=number) for number in numbers])
            await until(lambda: world.held() == Held(identity=1))
            assert car.packets == []
            world.gate.set()
            await car.acked(PUBACK, numbers)
            assert isinstance(car.packets[0], Connack)
            assert any(isinstance(packet, Ping) and packet.type == PINGRESP for packet in car.packets)

    run(main())


@BOTH
def test_client_authenticates_and_re_authenticates(make: Make) -> None:
    async def main() -> None:
        async with make() as world:
            car = await Bare(MQTT5).connect(world.port)
            car.send(asking("car"))
            assert (await car.wait(Auth)).reason == CONTINUE_AUTHENTICATION
            car.send(auth(b"car"))
            assert (await car.wait(Connack)).reason == 0
            car.send(auth(b"", RE_AUTHENTICATE), auth(b"car"))
            assert [packet.reason for packet in await car.wait_all(Auth, 3)] == [24, 24, 0]
            car.send(auth(b"", RE_AUTHENTICATE), auth(b"wrong"))
            assert (await car.wait(Disconnect)).reason == NOT_AUTHORIZED
            await car.wait_closed()

    run(main())


@BOTH
@pytest.mark.parametrize(
    ("packets", "reason"),
    [
        ([asking("car", "other")], BAD_AUTHENTICATION_METHOD),
        ([asking("car"), auth(b"wrong")], NOT_AUTHORIZED),
        ([asking("car"), Publish("t")], PROTOCOL_ERROR),
        ([asking("car"), Disconnect()], None),
    ],
)
def test_client_that_fails_its_authentication_is_refused(
    make: Make, packets: list[Connect | Auth | Publish | Disconnect], reason: int | None
) -> None:
    async def main() -> None:
        async with make() as world:
            car = await Bare(MQTT5).connect(world.port)
            car.send(*packets)
            await car.wait_closed()
            assert [packet.reason for packet in car.packets if isinstance(packet, Connack)] == (
                [] if reason is None else [reason]
            )
            assert world.opened() == []
            assert world.refused() == 1

    run(main())


@BOTH
def test_silent_client_is_closed_and_pinging_client_is_not(make: Make) -> None:
    async def main() -> None:
        async with make() as world:
            silent = await Bare(MQTT5).hello(world.port, "silent", keep_alive=1)
            alive = await Bare(MQTT5).hello(world.port, "alive", keep_alive=1)
            while not silent.closed.is_set():
                alive.send(Ping(PINGREQ))
                await asyncio.sleep(0.2)
            assert (await silent.wait(Disconnect)).reason == KEEP_ALIVE_TIMEOUT
            assert not alive.closed.is_set()

    run(main())


@BOTH
def test_stopping_node_tells_each_client_in_its_protocol(make: Make) -> None:
    async def main() -> None:
        async with make() as world:
            new, old = await Bare(MQTT5).hello(world.port, "new"), await Bare().hello(world.port, "old")
            world.gate.clear()
            waiting, unconnected = await Bare(MQTT5).connect(world.port), await Bare(MQTT5).connect(world.port)
            waiting.send(Connect(MQTT5, "waiting", username="waiting"))
            await until(lambda: world.held() == Held(identity=1))
            await world.stop()
            for client in (new, old, waiting, unconnected):
                await client.wait_closed()
            assert (await new.wait(Disconnect)).reason == SERVER_SHUTTING_DOWN
            assert [type(packet) for packet in old.packets] == [Connack]
            assert [packet.reason for packet in waiting.packets if isinstance(packet, Connack)] == [SERVER_UNAVAILABLE]
            assert unconnected.packets == []

    run(main())
