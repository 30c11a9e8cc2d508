"""Dead letters in a running mesh, for tests of the ``mesh`` command."""

from __future__ import annotations

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mesh.topology.load import load
from mesh.topology.units import Address
from tests.support.waiting import wait_until

ROOM = 2
"""``limits.queue_messages`` of the mesh."""


def client(address: Address, name: str, vehicle: bool, came: list[bytes] | None = None) -> mqtt.Client:
    """A 3.1.1 client with a durable session. ``came`` gets the messages for it."""
    made = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion.MQTTv311, clean_session=False)
    if came is not None:
        made.on_message = lambda _client, _data, message: came.append(message.payload)
    if vehicle:
        made.username_pw_set(name)
    made.connect(address.host, address.port)
    made.loop_start()
    wait_until(made.is_connected)
    return made


def fill(mesh: str, vehicle: str, count: int) -> None:
    """Publish to a vehicle that is away, until ``count`` messages had no room."""
    topology = load(mesh)
    topic = f"vehicles/{vehicle}/other"
    car = client(topology.front_doors[0].listen[0].address, vehicle, True)
    granted: list[object] = []
    car.on_subscribe = lambda *answer: granted.append(answer)
    car.subscribe(topic, 1)
    wait_until(lambda: bool(granted))
    car.disconnect()
    car.loop_stop()
    sender = client(topology.cores[0].listen[0].address, f"to-{vehicle}", False)
    sent = [sender.publish(topic, f"{number}", 1) for number in range(ROOM + count)]
    wait_until(lambda: all(one.is_published() for one in sent))
    assert sender.is_connected()
    sender.disconnect()
    sender.loop_stop()
