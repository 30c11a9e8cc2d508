"""The client gmqtt: asyncio with its own protocol code. All gmqtt clients share one event loop in a thread."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

from gmqtt import Client
from gmqtt import Message as GmqttMessage
from gmqtt.mqtt.handler import MQTTConnectError
from gmqtt.storage import PersistentStorage

from tests.stock.peer import PLAIN, QOS1, V5, V311, Greeting, Message, Options, Peer, Props, Refused, Wish
from tests.support.loop import LoopThread
from tests.support.waiting import wait_until

CONNECT = {
    "session_expiry_interval": "expiry",
    "receive_maximum": "receive_maximum",
    "maximum_packet_size": "maximum_packet",
    "topic_alias_maximum": "alias_maximum",
}
PUBLISH = {
    "content_type": "content_type",
    "response_topic": "response_topic",
    "correlation_data": "correlation",
    "message_expiry_interval": "expiry",
    "payload_format_id": "text",
    "topic_alias": "alias",
}
NEVER = -2  # for its reconnect_retries: 0 means one retry, -1 no limit


class GmqttPeer(Peer):
    kind = "gmqtt"
    versions = (V311, V5)

    def __init__(self, loop: LoopThread) -> None:
        super().__init__()
        self._loop = loop
        self._client: Client | None = None
        self._storage = PersistentStorage()
        self._options = Options(0, "")
        self._codes: dict[int, int | None] = {}
        self._free = asyncio.Event()

    # Connections

    def connect(self, options: Options) -> Greeting:
        self._options = options
        greeting = self._loop.run(self._connect(options))
        assert isinstance(greeting, Greeting)
        return greeting

    async def _connect(self, options: Options) -> Greeting:
        client = self._client = Client(
            options.client_id, clean_session=options.clean, optimistic_acknowledgement=not options.hold,
            will_message=_will(options), persistent_storage=self._storage, **_properties(CONNECT, options),
        )  # fmt: skip
        client.set_config({"reconnect_delay": 0.05, "reconnect_retries": -1 if options.reconnect else NEVER})
        if options.user is not None:
            client.set_auth_credentials(options.user, options.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_held_message if options.hold else self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        self._greeting = Greeting(False)
        secure: bool | ssl.SSLContext = False
        if options.tls is not None:
            secure = ssl.create_default_context(cafile=options.tls.ca)
            if options.tls.cert is not None:
                secure.load_cert_chain(options.tls.cert, options.tls.key)
        try:
            await client.connect("127.0.0.1", options.port, ssl=secure, version=options.version)
        except MQTTConnectError as error:
            raise Refused(error._code) from None
        return self._greeting

    def leave(self, expiry: int | None = None) -> None:
        client, self._client = self._client, None
        if client is not None:
            extra = {} if expiry is None else {"session_expiry_interval": expiry}
            self._loop.run(client.disconnect(**extra))

    # Use

    def subscribe(self, filter: str, wish: Wish = QOS1) -> int:
        extra = {"subscription_identifier": wish.identifier} if wish.identifier else {}

        async def send() -> Any:
            return self._library.subscribe(filter, wish.qos, wish.no_local, wish.as_published, wish.handling, **extra)

        code = self._answer(self._loop.run(send()))
        assert code is not None
        return code

    def unsubscribe(self, filter: str) -> int | None:
        async def send() -> Any:
            return self._library.unsubscribe(filter)

        return self._answer(self._loop.run(send()))

    def publish(
        self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, props: Props = PLAIN
    ) -> int | None:
        properties = _properties(PUBLISH, props)
        if props.user:
            properties["user_property"] = list(props.user)

        async def send() -> None:
            self._library.publish(topic, payload, qos, retain, **properties)
            await self._storage.wait_empty()

        self._loop.run(send())
        return None  # the library does not report it

    def send(self, topic: str, payload: bytes) -> None:
        async def send() -> None:
            self._library.publish(topic, payload, 1)

        self._loop.run(send())

    def pipeline(self, topic: str, payloads: Sequence[bytes]) -> None:
        self._loop.run(self._pipeline(topic, payloads))

    async def _pipeline(self, topic: str, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            while not self._try(topic, payload):
                await asyncio.sleep(0)
        await self._storage.wait_empty()

    def _try(self, topic: str, payload: bytes) -> bool:
        """Publish; ``False`` if the server's receive maximum is reached, for which the library raises."""
        try:
            self._library.publish(topic, payload, 1)
        except OverflowError:
            return False
        return True

    def release(self) -> None:
        async def free() -> None:
            self._free.set()

        self._loop.run(free())

    @property
    def _library(self) -> Client:
        assert self._client is not None
        return self._client

    def _answer(self, mid: int) -> int | None:
        wait_until(lambda: mid in self._codes, f"the answer to {mid}")
        return self._codes.pop(mid)

    # Callbacks

    def _on_connect(self, client: Client, flags: int, code: int, properties: dict[str, Any]) -> None:
        own = client._connect_properties  # the library overwrites the server's properties with the client's

        def told(name: str) -> Any:
            return properties[name][0] if name in properties and name not in own else None

        self._greeting = Greeting(
            bool(flags), told("assigned_client_identifier"), told("receive_maximum"), told("maximum_packet_size"),
            told("topic_alias_maximum"),
        )  # fmt: skip
        self.record.connects += 1
        for subscription in client.subscriptions:
            client.resubscribe(subscription)
        if not client.subscriptions:
            for filter in self._options.keeps:
                client.subscribe(filter, 1)

    def _on_disconnect(self, client: Client, packet: bytes, error: object = None) -> None:
        if packet:
            self.record.ends.append(packet[0])
        else:
            self.record.closes += 1

    def _on_message(self, client: Client, topic: str, payload: bytes, qos: int, found: dict[str, Any]) -> None:
        names = {own: found[name][0] for name, own in PUBLISH.items() if name in found}
        user = tuple(found.get("user_property", ()))
        identifiers = tuple(found.get("subscription_identifier", ()))
        props = Props(user=user, identifiers=identifiers, **names)
        self.record.received.append(
            Message(topic, bytes(payload), qos, bool(found["retain"]), bool(found["dup"]), props)
        )

    async def _on_held_message(
        self, client: Client, topic: str, payload: bytes, qos: int, found: dict[str, Any]
    ) -> int:
        self._on_message(client, topic, payload, qos, found)
        await self._free.wait()
        return 0

    def _on_subscribe(self, client: Client, mid: int, codes: tuple[int, ...], properties: Any) -> None:
        self.record.subacks.append(list(codes))
        self._codes[mid] = codes[0]

    def _on_unsubscribe(self, client: Client, mid: int, codes: tuple[int, ...]) -> None:
        self._codes[mid] = codes[0] if codes else None


def _will(options: Options) -> GmqttMessage | None:
    will = options.will
    if will is None:
        return None
    extra = {"will_delay_interval": will.delay} if options.version == V5 else {}
    return GmqttMessage(will.topic, will.payload, will.qos, will.retain, **extra)


def _properties(names: dict[str, str], source: Options | Props) -> dict[str, Any]:
    return {name: getattr(source, own) for name, own in names.items() if getattr(source, own)}
