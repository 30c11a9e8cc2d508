"""Back ends that publish faster than vehicles read."""

from __future__ import annotations

import asyncio
import contextlib

from mesh.wire.packets import MQTT5
from tests.e2e.checker import check_kept, check_repeats
from tests.e2e.fleet import command
from tests.support.client import Client
from tests.support.mesh import Mesh
from tests.support.waiting import until

PACE = 1.0  # seconds between two acknowledgements of the slow vehicle


async def a_flood_is_not_refused(mesh: Mesh, messages: int, window: int) -> None:
    """The vehicle reads as fast as it can; the back end has as many messages in flight as it may."""
    car = await Client("flooded", MQTT5, expiry=60).connect(mesh.vehicles)
    await car.subscribe(f"vehicles/{car.name}/cmd/#")
    backend = await Client("flooding", expiry=60).connect(mesh.backends)
    backend.window = window
    await backend.publish_all((command(car.name), str(number)) for number in range(messages))
    assert not backend.refused, f"{len(backend.refused)} of {messages} were refused"
    await until(lambda: len(car.received) >= messages, "all messages at the vehicle")
    check_kept(backend.acked, car.received, car.name)
    check_repeats(car.received, car.name)
    assert [message.payload for message in car.received] == [str(number) for number in range(messages)]
    for client in (car, backend):
        assert not client.closes
        client.leave()


async def a_slow_vehicle_stalls_no_back_end(mesh: Mesh, cars: int, backends: int, messages: int) -> None:
    """One vehicle acknowledges a message a second. Each back end sends ``messages`` to it, and as many to each of the
    other vehicles. Its window is so small that it would need minutes if each message for the slow vehicle waited for
    the patience."""
    slow = Client("slow", MQTT5, expiry=60, holding=True)
    fast = [Client(f"fast-{number}", MQTT5, expiry=60) for number in range(cars)]
    for car in [slow, *fast]:
        await car.connect(mesh.vehicles)
        await car.subscribe(f"vehicles/{car.name}/cmd/#")
    senders = [await Client(f"sender-{number}", expiry=60).connect(mesh.backends) for number in range(backends)]
    pacer = asyncio.create_task(_acknowledge_slowly(slow))
    try:
        await asyncio.gather(*(_send(sender, [slow, *fast], messages) for sender in senders))
    finally:
        pacer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pacer
    for sender in senders:
        assert {topic for topic, _ in sender.refused} == {command(slow.name)}
    for car in fast:
        await until(lambda car=car: len(car.received) >= backends * messages, f"all messages at {car.name}")  # type: ignore[misc]
        for sender in senders:
            sent = [message for message in sender.acked if message[0] == command(car.name)]
            mine = [message for message in car.received if message.payload.startswith(sender.name + " ")]
            assert [message.payload for message in mine] == [payload for _, payload in sent]
    kept = [message for sender in senders for message in sender.acked if message[0] == command(slow.name)]
    slow.release()
    await until(lambda: len(slow.received) >= len(kept), "the acknowledged messages at the slow vehicle")
    assert sorted(message.payload for message in slow.received) == sorted(payload for _, payload in kept)
    for client in [slow, *fast, *senders]:
        assert not client.closes
        client.leave()


async def _send(sender: Client, cars: list[Client], messages: int) -> None:
    await sender.publish_all(
        (command(car.name), f"{sender.name} {number}") for number in range(messages) for car in cars
    )


async def _acknowledge_slowly(car: Client) -> None:
    while True:
        await asyncio.sleep(PACE)
        car.release_one()
