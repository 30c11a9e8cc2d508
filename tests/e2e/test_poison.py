"""A vehicle whose packet ends the process of its edge, and kills from outside, on a mesh of processes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.wire.packets import MQTT5
from tests.e2e.fleet import Fleet
from tests.support.client import Client
from tests.support.mesh import kill_and_wait
from tests.support.processes import Processes
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.long]
RUNNER = str(Path(__file__).parents[1] / "support" / "mortal_runner.py")
POISONED = "mesh_poisoned_connections_total"
KILLS = 20


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("mesh"), ["edge-1"], edge_runner=RUNNER) as running:
        yield running


@pytest.mark.parametrize("payload", ["crash", "hang"])
def test_the_second_death_by_a_packet_closes_its_connection_and_no_other(mesh: Processes, payload: str) -> None:
    async def main() -> None:
        assert mesh.figures("edge-1")[POISONED] == 0
        deaths = mesh.log("edge-1").count("the last process ended while it handled")
        car = await Client(f"{payload}-car", MQTT5).connect(mesh.vehicles)
        other = await Client(f"{payload}-other", MQTT5).connect(mesh.vehicles)
        reader = await Client(f"{payload}-reader", MQTT5).connect(mesh.backends)
        await other.subscribe(f"vehicles/{other.name}/cmd/#")
        await reader.subscribe("vehicles/+/status")
        car.publish(f"vehicles/{car.name}/status", "before")
        await car.settled()
        car.publish(f"vehicles/{car.name}/status", payload)
        await until(lambda: car.closes, f"the end of the connection that sent {payload}")
        assert car.closes[0] == "DISCONNECT 0x83"

        other.publish(f"vehicles/{other.name}/status", "after")
        await other.settled()
        await until(lambda: "after" in reader.payloads(f"vehicles/{other.name}/status"))
        assert "before" in reader.payloads(f"vehicles/{car.name}/status")
        assert payload not in reader.payloads(f"vehicles/{car.name}/status")
        await reader.publish_all([(f"vehicles/{other.name}/cmd/go", "go")])
        await until(lambda: other.payloads(f"vehicles/{other.name}/cmd/go"))
        assert not other.closes
        log = mesh.log("edge-1")
        assert log.count("the last process ended while it handled") == deaths + 1
        assert re.search(rf"vehicle {car.name} refused: .* ended 2 times while it handled the same PUBLISH", log)
        await until(lambda: mesh.figures("edge-1").get(POISONED) == 1)

        again = await Client(car.name, MQTT5).connect(mesh.vehicles)
        again.publish(f"vehicles/{car.name}/status", "sane")
        await again.settled()
        process = mesh.pid("edge-1")
        again.publish(f"vehicles/{car.name}/status", payload)
        await until(lambda: again.closes)
        other.publish(f"vehicles/{other.name}/status", "still there")
        await other.settled()
        assert mesh.pid("edge-1") == process
        await until(lambda: mesh.figures("edge-1")[POISONED] == 2)
        for client in (other, reader):
            client.leave()
        await kill_and_wait(mesh, "edge-1")  # the next test begins with a figure of 0

    asyncio.run(main())


@pytest.mark.parametrize("payload", ["crash", "hang"])
def test_a_command_that_ends_the_edge_twice_goes_to_the_dead_letters(mesh: Processes, payload: str) -> None:
    async def main() -> None:
        car = await Client(f"{payload}-taker", MQTT5).connect(mesh.vehicles)
        topic = f"vehicles/{car.name}/cmd/go"
        await car.subscribe(f"vehicles/{car.name}/cmd/#")
        app = await Client(f"{payload}-app", MQTT5).connect(mesh.backends)
        letters = await Client(f"{payload}-letters", MQTT5).connect(mesh.backends)
        await letters.subscribe("$dead-letters/#")
        await app.publish_all([(topic, "before")])
        await app.publish_all([(topic, payload), (topic, "after")])
        await until(lambda: "after" in car.payloads(topic), "the message behind the one that ends the edge")
        assert payload not in car.payloads(topic)
        await until(lambda: payload in letters.payloads(f"$dead-letters/{topic}"), "the dead letter")
        log = mesh.log("edge-1")
        assert re.search(rf"it handled a PUBLISH on '{topic}' of core\S*, client core\S* \(death 2 of 2\)", log)
        process = mesh.pid("edge-1")
        await app.publish_all([(topic, payload), (topic, "still there")])
        await until(lambda: "still there" in car.payloads(topic))
        assert mesh.pid("edge-1") == process
        assert not car.closes
        for client in (car, app, letters):
            client.leave()
        await kill_and_wait(mesh, "edge-1")

    asyncio.run(main())


def test_kills_from_outside_close_no_connection(mesh: Processes) -> None:
    async def main() -> None:
        fleet = Fleet(mesh, "outside", 30)
        await fleet.connect()
        try:
            async with fleet.traffic():
                for _ in range(KILLS):
                    await fleet.rounds(1)
                    await kill_and_wait(mesh, "edge-1")
                    assert mesh.figures("edge-1")[POISONED] == 0
                await fleet.rounds(2)
            assert not any(vehicle.closes for vehicle in fleet.all_vehicles)
        finally:
            await fleet.leave()

    asyncio.run(main())
