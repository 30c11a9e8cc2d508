"""The fleet and its back end: ordinary MQTT clients, made with paho-mqtt.

They know topics, and record in the ledger what they send and receive. What always holds: a vehicle answers each command
once, even if it arrives again; a connection that the client itself did not close counts as dropped.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from typing import Final, final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tools.demonstration.ledger import Ledger
from tools.demonstration.setting import HOST

# Longer than the demonstration takes, so that no session expires.
_EXPIRY: Final = 3600
_KEEP_ALIVE: Final = 20
# Commands that wait for their acknowledgement while an edge restarts.
_IN_FLIGHT: Final = 500

ASLEEP: Final = "asleep"
DRIVING: Final = "driving"
OFFLINE: Final = "offline"


def _client(name: str, protocol: MQTTProtocolVersion) -> mqtt.Client:
    clean = None if protocol == MQTTProtocolVersion.MQTTv5 else False
    client = mqtt.Client(CallbackAPIVersion.VERSION2, name, clean_session=clean, protocol=protocol)
    client.reconnect_delay_set(1, 2)
    return client


def _connect(client: mqtt.Client, port: int) -> None:
    """Connect with a session that outlives the connection."""
    if client.protocol != MQTTProtocolVersion.MQTTv5:
        client.connect(HOST, port, _KEEP_ALIVE)
        return
    lasting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    lasting.SessionExpiryInterval = _EXPIRY
    client.connect(HOST, port, _KEEP_ALIVE, clean_start=False, properties=lasting)


@final
class Vehicle:
    """One vehicle. ``state`` is one of the words above."""

    def __init__(self, name: str, protocol: MQTTProtocolVersion, port: int, ledger: Ledger) -> None:
        self.name = name
        self.protocol = protocol
        self.state = OFFLINE
        self._port = port
        self._ledger = ledger
        self._client = _client(name, protocol)
        self._client.username_pw_set(name)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    @property
    def version(self) -> str:
        return "5" if self.protocol == MQTTProtocolVersion.MQTTv5 else "3.1.1"

    def drive(self) -> None:
        """Start to connect; ``state`` changes when the vehicle is connected."""
        self.state = OFFLINE
        _connect(self._client, self._port)
        self._client.loop_start()

    def sleep(self) -> None:
        """Close the connection; the session stays."""
        self.state = ASLEEP
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        if not code.is_failure:
            client.subscribe(f"vehicles/{self.name}/cmd/#", qos=1)

    def _on_subscribe(self, *_: object) -> None:
        self.state = DRIVING

    def _on_disconnect(self, *_: object) -> None:
        if self.state == DRIVING:
            self.state = OFFLINE
            self._ledger.dropped(self.name)

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        command = json.loads(message.payload)
        number = int(command["number"])
        if self._ledger.delivered(self.name, number, str(command["do"])):
            self._ledger.reported(self.name, number)
            client.publish(f"vehicles/{self.name}/report", json.dumps({"done": number}), qos=1)


@final
class BackEnd:
    """An application that sends commands and reads the vehicles' answers."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self.ready = False
        self.unanswered = 0
        self._number = 0
        self._port = port
        self._ledger = ledger
        self._lock = threading.Lock()
        self._client = _client("demo-control", MQTTProtocolVersion.MQTTv5)
        self._client.max_inflight_messages_set(_IN_FLIGHT)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish

    def connect(self) -> None:
        """Start to connect; ``ready`` changes when it is connected."""
        _connect(self._client, self._port)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def command(self, vehicle: str, what: str, user: Sequence[tuple[str, str]] = ()) -> None:
        """Send the next command."""
        self._number += 1
        self._ledger.sent(vehicle, self._number)
        with self._lock:
            self.unanswered += 1
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if user:
            properties.UserProperty = list(user)
        payload = json.dumps({"number": self._number, "do": what})
        self._client.publish(f"vehicles/{vehicle}/cmd", payload, qos=1, properties=properties)

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        if not code.is_failure:
            client.subscribe("vehicles/+/report", qos=1)

    def _on_subscribe(self, *_: object) -> None:
        self.ready = True

    def _on_publish(self, _client: object, _data: object, _number: int, code: ReasonCode, _properties: object) -> None:
        with self._lock:
            self.unanswered -= 1
        if code.value:
            self._ledger.refused(str(code))

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self._ledger.heard(message.topic.split("/")[1], int(json.loads(message.payload)["done"]))


@final
class Fleet:
    """Some vehicles: every second one uses MQTT 3.1.1, the others MQTT 5."""

    def __init__(self, names: Sequence[str], port: int, ledger: Ledger) -> None:
        versions = (MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5)
        self.vehicles = [Vehicle(name, versions[place % 2], port, ledger) for place, name in enumerate(names)]

    def vehicle(self, name: str) -> Vehicle:
        return next(vehicle for vehicle in self.vehicles if vehicle.name == name)

    def all(self, met: Callable[[Vehicle], bool]) -> bool:
        return all(met(vehicle) for vehicle in self.vehicles)

    def close(self) -> None:
        for vehicle in self.vehicles:
            vehicle.sleep()
