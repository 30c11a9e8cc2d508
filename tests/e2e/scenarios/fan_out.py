"""Fan-out: which clients get a message, and how often."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.e2e.checker import check_once
from tests.e2e.fleet import report
from tests.support.client import Client, device
from tests.support.mesh import Mesh, edges
from tests.support.waiting import until

GROUP = 3


async def reports_arrive_once(mesh: Mesh, vehicles: int, messages: int) -> None:
    """A plain subscriber gets each report once; in a shared group each report goes to one member."""
    plain = await Client("plain").connect(mesh.backends)
    await plain.subscribe("vehicles/+/status", qos=2)
    members = [Client(f"member-{number}") for number in range(GROUP)]
    for member in members:
        await member.connect(mesh.backends)
        assert await member.subscribe("$share/group/vehicles/+/status", qos=2) == [2]
    cars = [device(f"fan-{number:02}", number) for number in range(vehicles)]
    await asyncio.gather(*(car.connect(mesh.vehicles) for car in cars))
    owners = mesh.owners([car.name for car in cars])
    assert set(owners.values()) == set(edges(mesh)), "every edge must serve some vehicles"
    await asyncio.gather(*(
        car.publish_all([(report(car.name), str(number)) for number in range(messages)], qos=1 + index % 2)
        for index, car in enumerate(cars)
    ))  # fmt: skip
    published = [message for car in cars for message in car.acked]
    assert len(published) == vehicles * messages
    await until(lambda: len(plain.received) >= len(published), "all reports at the plain subscriber")
    await until(lambda: sum(len(member.received) for member in members) >= len(published), "all reports in the group")
    check_once(published, plain.received, "the plain subscriber")
    shared = Counter((item.topic, item.payload) for member in members for item in member.received)
    assert shared == Counter(published), "the group must get each report once"
    assert all(member.received for member in members), "every member must get some reports"
    await fleet_messages_reach_every_vehicle(plain, cars)
    for client in [plain, *members, *cars]:
        client.leave()


async def fleet_messages_reach_every_vehicle(backend: Client, cars: list[Client]) -> None:
    """A message to a fleet topic reaches every subscribed vehicle once, on all edges."""
    for car in cars:
        assert await car.subscribe("fleet/#") in ([0], [1])
    news = [("fleet/news", str(number)) for number in range(20)]
    await backend.publish_all(news)
    for car in cars:
        await car.until(lambda car=car: len(car.payloads("fleet/news")) >= len(news), "the fleet messages")
        check_once(news, [item for item in car.received if item.topic == "fleet/news"], car.name)
