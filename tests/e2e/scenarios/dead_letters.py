"""What was acknowledged to a publisher of MQTT 3.1.1 and found a full queue is in the dead letters, after any kill."""

from __future__ import annotations

from mesh.broker.letter import ALL, PREFIX
from mesh.wire.packets import MQTT311
from tests.e2e.fleet import command
from tests.support.client import Client
from tests.support.mesh import Mesh, kill_and_wait
from tests.support.waiting import until


async def commands_survive_kills(mesh: Mesh, queue: int, kills: int) -> None:
    """A vehicle is away and its queue of ``queue`` messages is full. Core and edge are killed right after a PUBACK."""
    car = await Client("full-1", clean=False, expiry=3600).connect(mesh.vehicles)
    topic = command(car.name)
    await car.subscribe(topic)
    car.leave()
    backend = await Client("old-control", MQTT311, clean=False).connect(mesh.backends)
    backend.window = 1
    await backend.publish_all((topic, str(number)) for number in range(queue))
    for number in range(kills):
        await backend.publish_all([(topic, f"kept-{number}")])
        assert not backend.closes
        await kill_and_wait(mesh, "core", mesh.where(car.name))
        backend.closes.clear()  # its core was killed
        await backend.reconnect(mesh.backends)
    reader = await Client("reader", expiry=3600).connect(mesh.backends)
    await reader.subscribe(ALL)
    await until(lambda: len(set(reader.payloads(PREFIX + topic))) == kills, "the letters of all kills")
    await car.connect(mesh.vehicles)
    await until(lambda: len(car.payloads(topic)) == queue, "the messages of the queue")
    assert backend.acked == [(topic, text) for text in car.payloads(topic) + reader.payloads(PREFIX + topic)]
    assert {dict(one.user)["reason"] for one in reader.received} == {"queue full"}
    for client in (car, backend, reader):
        client.leave()


async def reports_survive_kills(mesh: Mesh, reports: int) -> None:
    """The core is killed, and the edge's queue for it is full; then the edge is killed, too."""
    reader = await Client("collector", clean=False, expiry=3600).connect(mesh.backends)
    await reader.subscribe("vehicles/+/status", ALL)
    car = await Client("old-car", MQTT311, clean=False).connect(mesh.vehicles)
    topic = f"vehicles/{car.name}/status"
    await car.publish_all([(topic, "first")])
    core = {"core": mesh.pid("core")}
    mesh.kill("core")
    await car.publish_all((topic, str(number)) for number in range(reports))
    assert not car.closes
    await kill_and_wait(mesh, mesh.where(car.name))
    assert not car.closes, "a vehicle notices nothing"
    await until(lambda: mesh.pid("core") not in (0, core["core"]) and bool(mesh.figures("core")), "the core")
    await reader.reconnect(mesh.backends)
    wanted = {"first", *(str(number) for number in range(reports))}
    await until(lambda: {one.payload for one in reader.received} >= wanted, "every acknowledged report")
    assert reader.payloads(PREFIX + topic), "some of them must have been letters"
    for client in (car, reader):
        client.leave()
