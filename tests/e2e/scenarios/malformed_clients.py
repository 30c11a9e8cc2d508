"""Clients that send malformed data are disconnected; other clients are not affected."""

from __future__ import annotations

import asyncio

import psutil

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, MQTT311, PINGREQ, Connack, Connect, Disconnect, Ping, Publish
from tests.e2e.fleet import command
from tests.support.bare import Bare
from tests.support.client import Client
from tests.support.mesh import Mesh

HELLO = encode(Connect(MQTT5, "malformed", username="malformed"), MQTT5)
OLD_HELLO = encode(Connect(MQTT311, "malformed", username="malformed"), MQTT311)
GROWTH = 32 << 20  # bytes: far below the 268 MB that each of the 200 clients announces

# the bytes sent, the version of the answer, and the reason code of CONNACK or DISCONNECT; None: no answer
CASES: dict[str, tuple[bytes, int, int | None]] = {
    "garbage": (bytes(range(1, 256)) * 4, MQTT5, None),
    "text": (b"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n", MQTT5, None),
    "a PINGREQ first": (encode(Ping(PINGREQ), MQTT5), MQTT5, None),
    "a PUBLISH first": (encode(Publish("a", b"b"), MQTT311), MQTT311, None),
    "a giant CONNECT": (b"\x10\xff\xff\xff\x7f\x00\x04MQTT", MQTT5, None),
    "a length of five bytes": (b"\x10\xff\xff\xff\xff\x01", MQTT5, None),
    "a wrong protocol name": (HELLO.replace(b"\x00\x04MQTT", b"\x00\x04MQTX"), MQTT311, 1),
    "an unknown version": (OLD_HELLO.replace(b"MQTT\x04", b"MQTT\x09"), MQTT311, 1),
    "a reserved flag": (HELLO.replace(b"MQTT\x05\x82", b"MQTT\x05\x83"), MQTT5, 0x81),
    "CONNECT twice": (HELLO + HELLO, MQTT5, 0x82),
    "a giant PUBLISH": (HELLO + b"\x30\xff\xff\xff\x7f\x00\x01a", MQTT5, 0x95),
    "QoS 3": (HELLO + b"\x36\x06\x00\x01a\x00\x01\x00", MQTT5, 0x81),
    "QoS 3 in 3.1.1": (OLD_HELLO + b"\x36\x05\x00\x01a\x00\x01", MQTT311, None),
}


async def malformed_clients_are_disconnected(mesh: Mesh) -> None:
    """At the front door and at the core: the right code, bounded memory and log, other clients unaffected."""
    car = await Client("bystander").connect(mesh.vehicles)
    await car.subscribe("vehicles/bystander/cmd/#")
    backend = await Client("bystander-backend").connect(mesh.backends)
    for port in (mesh.vehicles, mesh.backends):
        for name, (data, protocol, reason) in CASES.items():
            assert await refusal(port, data, protocol) == reason, f"{name} at port {port}"
    await flood(mesh)
    await backend.publish_all([(command("bystander"), str(number)) for number in range(20)])
    await car.until(lambda: len(car.received) == 20, "all commands")
    assert not car.closes
    assert not backend.closes
    car.leave()
    backend.leave()


async def refusal(port: int, data: bytes, protocol: int) -> int | None:
    """Send bytes and wait for the end of the connection; return the reason code, if there is one."""
    client = await Bare(protocol).connect(port)
    hello = next((hello for hello in (HELLO, OLD_HELLO) if data.startswith(hello)), data)
    client.raw(hello)
    if data != hello:  # the error comes after CONNACK
        await client.wait(Connack)
        client.raw(data[len(hello) :])
    await client.wait_closed()
    assert not client.error, client.error
    said = [
        packet.reason
        for packet in client.packets
        if isinstance(packet, Disconnect) or (isinstance(packet, Connack) and packet.reason)
    ]
    return said[-1] if said else None


async def flood(mesh: Mesh) -> None:
    """Open many connections that send half a CONNECT, or announce a packet and do not send it."""
    half = HELLO[: len(HELLO) // 2]
    before = {name: (len(mesh.log(name)), memory(mesh, name)) for name in ("door", "core")}
    for port in (mesh.vehicles, mesh.backends):
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(200)))
        for number, (_, writer) in enumerate(opened):
            writer.write(half if number % 2 else b"\x10\xff\xff\xff\x7f" + bytes(1000))
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in opened), return_exceptions=True)
    for name, (size, used) in before.items():
        assert len(mesh.log(name)) - size < 10_000, f"the log of {name} grows with every malformed connection"
        assert memory(mesh, name) - used < GROWTH, f"the memory of {name} grows with announced packet sizes"


def memory(mesh: Mesh, name: str) -> int:
    """The resident memory of a node, in bytes."""
    used: int = psutil.Process(mesh.pid(name)).memory_info().rss
    return used
