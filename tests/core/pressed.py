"""A vehicle whose queue is full, and the back ends that publish to it."""

from __future__ import annotations

import asyncio

from mesh.core.owners import Owners
from mesh.wire.packets import PUBACK, PUBREC, Ack, Publish
from tests.core.harness import Mesh, acks
from tests.support.bench import Client

QUEUE = 10  # messages that the queue of a vehicle holds
FLIGHT = 2  # messages that a vehicle has in flight
WINDOW = 20  # messages that a core has in flight


class SlowOwners(Owners):
    """The map does not answer before ``answer`` is set."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    def cached(self, vehicle: str) -> str | None:
        return None

    async def find(self, vehicle: str) -> str | None:
        await self.answer.wait()
        return "edge-1"


def numbers(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last)]


def flood(mesh: Mesh, backend: Client, first: int, last: int, vehicle: str = "V1", qos: int = 1) -> None:
    for payload in numbers(first, last):
        backend.publish(f"vehicles/{vehicle}/cmd", payload, qos)
    mesh.run()


def read(mesh: Mesh, vehicle: Client, count: int = 1 << 30) -> list[bytes]:
    """Acknowledge up to ``count`` messages one by one; returns their payloads."""
    found: list[bytes] = []
    while len(found) < count:
        packets = [packet for packet in vehicle.packets if isinstance(packet, Publish)]
        if not packets:
            break
        vehicle.packets.remove(packets[0])
        found.append(packets[0].payload)
        vehicle.send(Ack(PUBACK, packets[0].packet_id))
        mesh.run()
    return found


def tick(mesh: Mesh, seconds: float) -> None:
    mesh.clock.now += seconds
    for link in mesh.links.values():
        link.tick()
    mesh.run()


def codes(backend: Client) -> list[int]:
    return [reason for _, reason in acks(backend)]


def read_all(mesh: Mesh, vehicle: Client) -> list[bytes]:
    """Acknowledge all messages, those of QoS 2 too; returns their payloads."""
    vehicle.auto_ack = True
    got = vehicle.take(Publish)
    for packet in got:
        vehicle.send(Ack(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id))
    mesh.run()
    return [packet.payload for packet in got] + vehicle.messages()


def full_vehicle(mesh: Mesh) -> Client:
    """V1, whose queue is full with the messages 0 to 9 and those of the overshoot up to 19."""
    vehicle = mesh.vehicle(1, "cmd", auto_ack=False)
    filler = mesh.core.client("filler", "app")
    flood(mesh, filler, 0, WINDOW)
    assert codes(filler) == [0] * WINDOW
    assert mesh.links["edge-1"].status("").pressed == 1
    return vehicle
