"""Vehicles with the paho client, a third-party library."""

from __future__ import annotations

import threading
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.support.client import Received
from tests.support.waiting import PATIENCE


class Stock:
    """Keeps the same records as ``Client``: ``received``, ``acked`` in publishing order, ``closes``."""

    def __init__(self, name: str, protocol: int, clean: bool) -> None:
        self.name = name
        self.received: list[Received] = []
        self.closes: list[str] = []
        self._order: list[tuple[int, tuple[str, str]]] = []
        self._done: set[int] = set()
        self._connected = threading.Event()
        self._subscribed = threading.Event()
        self._v5 = protocol == paho.MQTTv5
        self._clean = clean
        kind: dict[str, Any] = {} if self._v5 else {"clean_session": clean}
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion(protocol), **kind
        )
        self._client.username_pw_set(name)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe

    def connect(self, port: int) -> None:
        """Connect; return when accepted."""
        self._connected.clear()
        if self._v5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = 0 if self._clean else 3600
            self._client.connect("127.0.0.1", port, 60, clean_start=self._clean, properties=properties)
        else:
            self._client.connect("127.0.0.1", port, 60)
        self._client.loop_start()
        assert self._connected.wait(PATIENCE), f"{self.name} was not accepted"

    def subscribe(self, filter: str, qos: int) -> None:
        """Subscribe; return when acknowledged."""
        self._subscribed.clear()
        self._client.subscribe(filter, qos)
        assert self._subscribed.wait(PATIENCE), f"{self.name} was not subscribed"

    def publish(self, topic: str, payload: str, qos: int = 1) -> None:
        """Publish now."""
        info = self._client.publish(topic, payload, qos)
        self._order.append((info.mid, (topic, payload)))

    @property
    def published(self) -> list[tuple[str, str]]:
        """All publishes, in order."""
        return [message for _, message in self._order]

    @property
    def acked(self) -> list[tuple[str, str]]:
        """The acknowledged publishes, in publishing order."""
        return [message for identifier, message in self._order if identifier in self._done]

    def leave(self) -> None:
        """Send DISCONNECT and end the thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if not reason.is_failure:
            self._connected.set()

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self.closes.append(str(reason))

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self.received.append(
            Received(message.topic, message.payload.decode(), message.qos, message.dup, message.retain, [])
        )

    def _on_publish(self, client: paho.Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._done.add(mid)

    def _on_subscribe(self, client: paho.Client, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._subscribed.set()
