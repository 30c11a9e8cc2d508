"""Proofs whose answer has to wait: at the door and at the endpoint, before CONNACK and on an open connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, Principal, everything
from mesh.transport.admission import Admission
from mesh.transport.authentication import Later, Methods, Proof
from mesh.transport.refusal import Refused
from mesh.transport.stream import StreamGroup
from mesh.transport.wheel import TICK, Wheel
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, PINGREQ, PINGRESP, Auth, Connack, Connect, Disconnect, Ping
from mesh.wire.properties import Properties
from mesh.wire.reasons import CONTINUE_AUTHENTICATION, NOT_AUTHORIZED, PROTOCOL_ERROR, RE_AUTHENTICATE
from tests.fakes.endpoint import EndpointNode
from tests.fakes.mesh import FakeMesh
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until

PLACES = ["door", "endpoint"]


class Waiting(Proof):
    """``now`` proves at once, ``later`` once ``ready`` is done, ``never`` is refused then; ``ask`` asks first."""

    def __init__(self, methods: Slow) -> None:
        super().__init__()
        self._methods = methods
        self._waited = False

    def step(self, data: bytes) -> tuple[bytes, bool]:
        if data == b"ask":
            return b"and?", False
        if data != b"now" and not self._waited:
            self._waited = True
            self._methods.asked += 1
            raise Later(self._methods.ready)
        if data == b"never":
            raise Refused(NOT_AUTHORIZED)
        self.claim = Claim("CAR", "test")
        return b"done", True


class Slow(Methods):
    def __init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = 0

    def begin(self, method: str, peer: Peer) -> Proof | None:
        return Waiting(self)


class Place:
    def __init__(self, port: int, group: StreamGroup, wheel: Wheel, methods: Slow) -> None:
        self.port = port
        self.group = group
        self.wheel = wheel
        self.methods = methods

    async def client(self, data: bytes) -> Bare:
        """A client whose CONNECT has this data."""
        client = await Bare(MQTT5).connect(self.port)
        client.send(Connect(MQTT5, "CAR", keep_alive=0, username="CAR", properties=proof(data)))
        return client

    async def waits(self, count: int = 1) -> None:
        await until(lambda: self.methods.asked == count)


@asynccontextmanager
async def place(kind: str) -> AsyncIterator[Place]:
    methods = Slow()
    admission = Admission(PacketLimits(), 10, "", methods)
    if kind == "door":
        mesh = FakeMesh()
        mesh.admission = admission
        async with mesh:
            yield Place(mesh.port, mesh.door.group, mesh.door.wheel, methods)
    else:

        def authenticate(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
            return Principal("CAR", BACKEND, everything(), claim=proven)

        node = EndpointNode(authenticate)
        node.admission = admission
        async with node:
            yield Place(node.port, node.endpoint.group, node.wheel, methods)


def proof(data: bytes) -> Properties:
    properties = Properties()
    properties.auth_method = "SLOW"
    properties.auth_data = data
    return properties


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("ask", [False, True])
def test_a_client_is_accepted_when_its_proof_is_ready(kind: str, ask: bool) -> None:
    async def main() -> None:
        async with place(kind) as node:
            client = await node.client(b"ask" if ask else b"later")
            if ask:
                assert (await client.wait(Auth)).reason == CONTINUE_AUTHENTICATION
                client.send(Auth(CONTINUE_AUTHENTICATION, proof(b"later")))
            await node.waits()
            assert not [packet for packet in client.packets if isinstance(packet, Connack)]
            client.send(Ping(PINGREQ))  # comes before CONNACK, and is answered after it
            node.methods.ready.set_result(None)
            assert (await client.wait(Connack)).reason == 0
            assert (await client.wait(Ping)).type == PINGRESP

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_packet_behind_a_proof_that_waits_is_not_lost(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            client = await Bare(MQTT5).connect(node.port)
            connect = Connect(MQTT5, "CAR", keep_alive=0, username="CAR", properties=proof(b"later"))
            client.raw(encode(connect, MQTT5) + encode(Ping(PINGREQ), MQTT5))
            await node.waits()
            node.methods.ready.set_result(None)
            assert (await client.wait(Connack)).reason == 0
            assert (await client.wait(Ping)).type == PINGRESP

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_client_is_refused_when_that_is_known(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            client = await node.client(b"never")
            await node.waits()
            node.methods.ready.set_result(None)
            assert (await client.wait(Connack)).reason == NOT_AUTHORIZED
            await client.wait_closed()

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_client_waits_no_longer_than_a_connect_may_take(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            client, gone = await node.client(b"later"), await node.client(b"later")
            await node.waits(2)
            await gone.close()
            node.wheel.stop()
            for _ in range(int(10 / TICK) + 3):
                node.wheel.tick()
            await client.wait_closed()
            await until(lambda: not node.group.streams)
            node.methods.ready.set_result(None)
            await asyncio.sleep(0)
            assert not client.packets

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_re_authentication_is_answered_when_it_is_ready_and_other_packets_before(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            client = await node.client(b"now")
            assert (await client.wait(Connack)).reason == 0
            client.send(Auth(RE_AUTHENTICATE, proof(b"later")))
            client.send(Ping(PINGREQ))
            await client.wait(Ping)
            assert not [packet for packet in client.packets if isinstance(packet, Auth)]
            node.methods.ready.set_result(None)
            assert (await client.wait(Auth)).reason == 0
            client.send(Ping(PINGREQ))
            await client.wait_all(Ping, 2)

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_a_re_authentication_that_fails_ends_the_connection(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            client = await node.client(b"now")
            assert (await client.wait(Connack)).reason == 0
            client.send(Auth(RE_AUTHENTICATE, proof(b"never")))
            await node.waits()
            node.methods.ready.set_result(None)
            assert (await client.wait(Disconnect)).reason == NOT_AUTHORIZED
            await client.wait_closed()

    run(main())


@pytest.mark.parametrize("kind", PLACES)
def test_one_re_authentication_at_a_time(kind: str) -> None:
    async def main() -> None:
        async with place(kind) as node:
            client = await node.client(b"now")
            assert (await client.wait(Connack)).reason == 0
            client.send(Auth(RE_AUTHENTICATE, proof(b"later")))
            client.send(Auth(RE_AUTHENTICATE, proof(b"now")))
            assert (await client.wait(Disconnect)).reason == PROTOCOL_ERROR
            await client.wait_closed()
            await until(lambda: not node.group.streams)
            node.methods.ready.set_result(None)
            await asyncio.sleep(0)

    run(main())
