"""The client paho-mqtt: calls its callbacks in its own thread."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.stock.peer import PLAIN, QOS1, V5, V31, V311, Greeting, Message, Options, Peer, Props, Refused, Wish
from tests.support.waiting import wait_until

CONNECT = {
    "SessionExpiryInterval": "expiry",
    "ReceiveMaximum": "receive_maximum",
    "MaximumPacketSize": "maximum_packet",
    "TopicAliasMaximum": "alias_maximum",
}
PUBLISH = {
    "ContentType": "content_type",
    "ResponseTopic": "response_topic",
    "CorrelationData": "correlation",
    "MessageExpiryInterval": "expiry",
    "PayloadFormatIndicator": "text",
    "TopicAlias": "alias",
}


class PahoPeer(Peer):
    kind = "paho"
    versions = (V31, V311, V5)

    def __init__(self) -> None:
        super().__init__()
        self._client: paho.Client | None = None
        self._options = Options(0, "")
        self._greeting: Greeting | Refused | None = None
        self._codes: dict[tuple[str, int], int | None] = {}
        self._held: list[tuple[int, int]] = []
        self._hold = False

    # Connections

    def connect(self, options: Options) -> Greeting:
        self._options = options
        self._hold = options.hold
        client = self._client = self._build(options)
        extra: dict[str, Any] = {}
        if options.version == V5:
            extra = {"clean_start": options.clean, "properties": _filled(PacketTypes.CONNECT, CONNECT, options)}
        client.connect("127.0.0.1", options.port, **extra)
        client.loop_start()
        wait_until(lambda: self._greeting is not None, "CONNACK")
        if isinstance(self._greeting, Refused):
            raise self._greeting
        assert self._greeting is not None
        return self._greeting

    def _build(self, options: Options) -> paho.Client:
        kind: dict[str, Any] = {} if options.version == V5 else {"clean_session": options.clean}
        client = paho.Client(
            CallbackAPIVersion.VERSION2, options.client_id, protocol=MQTTProtocolVersion(options.version),
            reconnect_on_failure=options.reconnect, manual_ack=options.hold,
            transport="websockets" if options.web else "tcp", **kind,
        )  # fmt: skip
        client.ws_set_options("/mqtt", lambda headers: _with_origin(headers, options.origin))
        client.reconnect_delay_set(0, 1)
        if options.version != V5:
            client.max_inflight_messages_set(0)  # no limit; in 5.0 its default of 20 keeps to the receive maximum
        if options.user is not None:
            client.username_pw_set(options.user, options.password)
        if options.tls is not None:
            files = options.tls.ca, options.tls.cert, options.tls.key
            client.tls_set(*(None if file is None else str(file) for file in files))
        will = options.will
        if will is not None:
            properties = None
            if options.version == V5:
                properties = Properties(PacketTypes.WILLMESSAGE)
                properties.WillDelayInterval = will.delay
            client.will_set(will.topic, will.payload, will.qos, will.retain, properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        return client

    def leave(self, expiry: int | None = None) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        properties = None
        if expiry is not None:
            properties = Properties(PacketTypes.DISCONNECT)
            properties.SessionExpiryInterval = expiry
        client.disconnect(properties=properties)
        with contextlib.suppress(AttributeError):  # its thread may end, and forget itself, while it is waited for
            client.loop_stop()

    # Use

    def subscribe(self, filter: str, wish: Wish = QOS1) -> int:
        if self._options.version == V5:
            options = SubscribeOptions(wish.qos, wish.no_local, wish.as_published, wish.handling)
            properties = Properties(PacketTypes.SUBSCRIBE)
            if wish.identifier:
                properties.SubscriptionIdentifier = wish.identifier
            _, mid = self._library.subscribe(filter, options=options, properties=properties)
        else:
            _, mid = self._library.subscribe(filter, wish.qos)
        code = self._answer("subscribe", mid)
        assert code is not None
        return code

    def unsubscribe(self, filter: str) -> int | None:
        _, mid = self._library.unsubscribe(filter)
        return self._answer("unsubscribe", mid)

    def publish(
        self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, props: Props = PLAIN
    ) -> int | None:
        properties = None
        if props != PLAIN:
            properties = _filled(PacketTypes.PUBLISH, PUBLISH, props)
            if props.user:
                properties.UserProperty = list(props.user)
        info = self._library.publish(topic, payload, qos, retain, properties)
        return self._answer("publish", info.mid)

    def send(self, topic: str, payload: bytes) -> None:
        self._library.publish(topic, payload, 1)

    def pipeline(self, topic: str, payloads: Sequence[bytes]) -> None:
        mids = [self._library.publish(topic, payload, 1).mid for payload in payloads]
        for mid in mids:
            assert self._answer("publish", mid) == 0

    def release(self) -> None:
        self._hold = False
        held, self._held = self._held, []
        for mid, qos in held:
            self._library.ack(mid, qos)

    @property
    def _library(self) -> paho.Client:
        assert self._client is not None
        return self._client

    def _answer(self, what: str, mid: int) -> int | None:
        wait_until(lambda: (what, mid) in self._codes, f"the answer to {what} {mid}")
        return self._codes.pop((what, mid))

    # Callbacks

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._greeting = Refused(reason.value)
            return
        for filter in self._options.keeps:
            client.subscribe(filter, 1)
        self.record.connects += 1
        self._greeting = Greeting(
            flags.session_present,
            getattr(properties, "AssignedClientIdentifier", None),
            getattr(properties, "ReceiveMaximum", None),
            getattr(properties, "MaximumPacketSize", None),
            getattr(properties, "TopicAliasMaximum", None),
        )

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self.record.closes += 1
        if flags.is_disconnect_packet_from_server:
            self.record.ends.append(reason.value)

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        found = message.properties
        names = {own: getattr(found, name) for name, own in PUBLISH.items() if hasattr(found, name)}
        user = tuple(getattr(found, "UserProperty", ()))
        identifiers = tuple(getattr(found, "SubscriptionIdentifier", ()))
        props = Props(user=user, identifiers=identifiers, **names)
        self.record.received.append(
            Message(message.topic, bytes(message.payload), message.qos, message.retain, message.dup, props)
        )
        if self._hold:
            self._held.append((message.mid, message.qos))
        elif self._options.hold:
            client.ack(message.mid, message.qos)

    def _on_publish(self, client: paho.Client, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._codes["publish", mid] = reason.value

    def _on_subscribe(self, client: paho.Client, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        self.record.subacks.append([reason.value for reason in reasons])
        self._codes["subscribe", mid] = reasons[0].value

    def _on_unsubscribe(self, client: paho.Client, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        self._codes["unsubscribe", mid] = reasons[0].value if reasons else None


def _with_origin(headers: dict[str, str], origin: str) -> dict[str, str]:
    """The library sends the server's own address as the origin, unless it is told otherwise."""
    own = {name: value for name, value in headers.items() if name != "Origin"}
    return own | {"Origin": origin} if origin else own


def _filled(packet: int, names: dict[str, str], source: Options | Props) -> Properties:
    """Properties with the fields that are set in ``source``."""
    properties = Properties(packet)
    for name, own in names.items():
        value = getattr(source, own)
        if value:
            setattr(properties, name, value)
    return properties
