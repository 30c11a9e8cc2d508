"""A short-lived MQTT client of a running mesh, for ``mesh pub``, ``mesh sub`` and ``mesh dead-letters``.

It knows which listener and which credentials to use, and how to wait for the answers. It uses paho-mqtt, like a user's
own client, and knows nothing of the mesh's internals. What always holds: every wait has a deadline; a lost connection
is an error, and the client does not reconnect.
"""

from __future__ import annotations

import argparse
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from mesh.policy.identity import CLIENT_ID
from mesh.policy.secrettext import SecretText, SecretUnusable
from mesh.topology.topology import CoreSpec, FrontDoorSpec, Topology
from mesh.wire.reasons import name_of

# Seconds for each answer of the mesh. A vehicle's CONNECT, and a message for an edge, may wait longer for an edge that
# restarts (limits.connect_wait): a command says then that there was no answer yet.
ANSWER_SECONDS: Final = 6.0

_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ClientRefused(Exception):
    """The mesh refused a request of the client, or did not answer; one sentence."""


@final
@dataclass(frozen=True, slots=True)
class ClientTarget:
    """The address of a listener, and the credentials for it."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@final
@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message received. ``properties`` are the user properties; ``retain`` and ``dup`` are the packet's flags;
    ``number`` is its packet identifier, ``all`` are all its properties."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    properties: tuple[tuple[str, str], ...]
    number: int = 0
    all: Properties | None = None


def options(parser: argparse.ArgumentParser) -> None:
    """The arguments that select the identity and the listener."""
    parser.add_argument("-q", "--qos", type=int, choices=(0, 1, 2), default=1, help="quality of service (default 1)")
    parser.add_argument(
        "--vehicle", metavar="ID", help="connect to a front door as this vehicle (default: to a core as a back end)"
    )
    parser.add_argument("--user", metavar="NAME", help="the back end's user name; the topology has its password")
    parser.add_argument("--at", metavar="HOST:PORT", help="the listener to use (default: the first of the topology)")


def target(topology: Topology, vehicle: str | None, user: str | None, at: str | None, purpose: str) -> ClientTarget:
    """The listener and the credentials. Raises ``ClientRefused`` if the mesh would refuse them.

    ``purpose`` becomes part of the client id. The id is new each time, so that it takes over no other client's session.
    """
    client_id = f"mesh-{purpose}-{secrets.token_hex(4)}"
    if vehicle is not None:
        if user is not None:
            raise ClientRefused("--user is for back ends and --vehicle is for vehicles; give one of them")
        return _as_vehicle(topology, vehicle, _place(at, topology.front_doors, _taking_words(topology)), client_id)
    return _as_backend(topology, user, _place(at, topology.cores), client_id)


def backend_target(topology: Topology, core: CoreSpec, user: str | None, purpose: str) -> ClientTarget:
    """The first listener of a core, and the credentials of a back end. Raises ``ClientRefused``."""
    return _as_backend(topology, user, _place(None, (core,)), f"mesh-{purpose}-{secrets.token_hex(4)}")


def _as_vehicle(topology: Topology, vehicle: str, place: tuple[str, int], client_id: str) -> ClientTarget:
    identity = topology.identity
    if not identity.compile().pattern.matches(vehicle):
        raise ClientRefused(f"{vehicle!r} is no vehicle of mesh {topology.mesh!r}: names match {identity.pattern}")
    return ClientTarget(*place, vehicle) if identity.source == CLIENT_ID else ClientTarget(*place, client_id, vehicle)


def _as_backend(topology: Topology, user: str | None, place: tuple[str, int], client_id: str) -> ClientTarget:
    backends = topology.backends
    known = {auth.user: auth.password for auth in backends.users}
    if user is None and not backends.anonymous:
        user = next(iter(known), None)
    if user not in known and not backends.anonymous:
        who = "no back end whose password this command could know" if user is None else f"no back end named {user!r}"
        raise ClientRefused(f"the topology has {who}; its backends.users are {', '.join(sorted(known)) or 'none'}")
    return ClientTarget(*place, client_id, user, _password(user, known.get(user or "")))


def _password(user: str | None, secret: SecretText | None) -> str | None:
    try:
        return None if secret is None else secret.read(f"backends.users.{user}.password")
    except SecretUnusable as error:
        raise ClientRefused(str(error)) from None


def _taking_words(topology: Topology) -> frozenset[str]:
    """The providers of identities that take a vehicle's word. Raises ``ClientRefused`` if there is none."""
    words = frozenset(spec.name for spec in topology.identity.providers if spec.anonymous)
    if not words:
        names = ", ".join(spec.name for spec in topology.identity.providers)
        raise ClientRefused(
            f"the vehicles of mesh {topology.mesh!r} prove who they are (identity.providers: {names}), which this "
            "command cannot; use an MQTT client with what the vehicle has"
        )
    return words


def _place(
    at: str | None, groups: Sequence[FrontDoorSpec | CoreSpec], asking: frozenset[str] = frozenset()
) -> tuple[str, int]:
    """A plain listener, of those that ask one of the providers ``asking`` if there are any."""
    if at is None:
        for listener in [one for group in groups for one in group.listen if one.kind == "mqtt" and not one.proxy]:
            if not listener.identify or not asking or asking & set(listener.identify):
                return _ANY_HOST.get(listener.address.host, listener.address.host), listener.address.port
        named = "; ".join(sorted({str(one.listen()) for group in groups for one in group.listen}))
        raise ClientRefused(
            f"this command speaks plain MQTT, and no listener takes it ({named}); add one on this machine, such as "
            '{mqtt: "127.0.0.1:1885"}, or use an MQTT client with TLS'
        )
    host, colon, port = at.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ClientRefused(f"--at takes HOST:PORT, such as 127.0.0.1:1883, not {at!r}")
    return host.strip("[]"), int(port)


@final
class CommandClient:
    """One MQTT 5 connection; its session ends with it. Use it as a context manager, in one thread."""

    def __init__(self, target: ClientTarget, backlog: int, expiry: int = 0, window: int = 0) -> None:
        """``backlog``: how many messages are kept for ``receive``; with more, the connection is not read. ``expiry``:
        seconds that the session outlives a lost connection. ``window``: the most messages without an acknowledgement,
        which ``acknowledge`` sends; 0: each message is acknowledged when it arrives."""
        self._target = target
        self._expiry = expiry
        self._window = window
        self._backlog = backlog
        self._changed = threading.Condition()
        self._connected: ReasonCode | None = None
        self._lost = ""
        self._answers: dict[int, int] = {}
        self._granted: dict[int, list[int]] = {}
        self._messages: deque[ReceivedMessage] = deque()
        self._closing = False
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            target.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=window > 0,
        )
        if target.username is not None:
            self._client.username_pw_set(target.username, target.password)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> CommandClient:
        """Connect. Raises ``ClientRefused``."""
        try:
            self._client.connect(
                self._target.host, self._target.port, keepalive=30, clean_start=True, properties=self._hello()
            )
        except OSError as error:
            raise ClientRefused(f"cannot connect to {self._target}: {error.strerror or error}") from error
        self._client.loop_start()
        try:
            self._wait(lambda: self._connected is not None, ANSWER_SECONDS, "CONNECT")
            answer = self._connected
            assert answer is not None, "waited for above"
            if answer.is_failure:
                raise ClientRefused(f"{self._target} refused the connection: {said(answer.value)}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._client.disconnect()
        self._client.loop_stop()

    def _hello(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        if self._expiry:
            properties.SessionExpiryInterval = self._expiry
        if self._window:
            properties.ReceiveMaximum = self._window
        return properties

    def acknowledge(self, message: ReceivedMessage) -> None:
        """Acknowledge a message of QoS 1."""
        self._client.ack(message.number, 1)

    def publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, user: Sequence[tuple[str, str]] = (),
        properties: Properties | None = None,
    ) -> int:  # fmt: skip
        """Send a message; returns its number for ``answer``. ``properties`` replace those of ``user``. Raises
        ``ClientRefused`` for an invalid topic."""
        try:
            sent = self._client.publish(topic, payload, qos, retain, properties or _user_properties(user))
        except ValueError as error:
            raise ClientRefused(f"{topic!r} cannot be published to: {error}") from error
        if sent.rc not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE):
            raise ClientRefused(self._lost or f"{self._target}: {mqtt.error_string(sent.rc)}")
        return sent.mid

    def answer(self, number: int, seconds: float) -> int:
        """The reason code of a message; for QoS 0, which has none: success when sent. Raises ``ClientRefused``."""
        self._wait(lambda: number in self._answers, seconds, "the message")
        return self._answers.pop(number)

    def subscribe(self, filters: Sequence[str], qos: int, seconds: float) -> list[int]:
        """Subscribe; returns the reason code for each filter. Raises ``ClientRefused``."""
        try:
            code, number = self._client.subscribe([(filter, qos) for filter in filters])
        except ValueError as error:
            raise ClientRefused(f"{', '.join(filters)} cannot be subscribed to: {error}") from error
        if code is not MQTTErrorCode.MQTT_ERR_SUCCESS or number is None:
            raise ClientRefused(self._lost or f"{self._target}: {mqtt.error_string(code)}")
        self._wait(lambda: number in self._granted, seconds, "SUBSCRIBE")
        return self._granted.pop(number)

    def receive(self, seconds: float | None) -> ReceivedMessage | None:
        """The next message; ``None`` if none arrives within ``seconds``. Raises ``ClientRefused`` if the connection is
        lost."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._messages or self._lost), seconds):
                return None
            if not self._messages:
                raise ClientRefused(self._lost)
            message = self._messages.popleft()
            self._changed.notify_all()
            return message

    def _wait(self, met: Callable[[], bool], seconds: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: met() or bool(self._lost), seconds):
                raise ClientRefused(f"{self._target} did not answer {what} within {seconds:g} s")
            if not met():
                raise ClientRefused(self._lost)

    # The callbacks run in paho's thread.

    def _on_connect(
        self, _client: object, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        with self._changed:
            self._connected = code
            self._changed.notify_all()

    def _on_disconnect(
        self, _client: object, _data: object, _flags: object, code: ReasonCode, _properties: object
    ) -> None:
        with self._changed:
            self._lost = f"the connection to {self._target} was lost: {said(code.value)}"
            self._changed.notify_all()

    def _on_publish(self, _client: object, _data: object, number: int, code: ReasonCode, _properties: object) -> None:
        with self._changed:
            self._answers[number] = code.value
            self._changed.notify_all()

    def _on_subscribe(
        self, _client: object, _data: object, number: int, codes: list[ReasonCode], _properties: object
    ) -> None:
        with self._changed:
            self._granted[number] = [code.value for code in codes]
            self._changed.notify_all()

    def _on_message(self, _client: object, _data: object, packet: mqtt.MQTTMessage) -> None:
        user = () if packet.properties is None else getattr(packet.properties, "UserProperty", ())
        message = ReceivedMessage(
            packet.topic, bytes(packet.payload), packet.qos, packet.retain, packet.dup, tuple(user), packet.mid,
            packet.properties,
        )  # fmt: skip
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages) < self._backlog or self._closing)
            self._messages.append(message)
            self._changed.notify_all()


def _user_properties(pairs: Sequence[tuple[str, str]]) -> Properties | None:
    if not pairs:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.UserProperty = list(pairs)
    return properties


def said(code: int) -> str:
    """A reason code with its name."""
    return f"0x{code:02x} ({name_of(code)})"


@final
class Deadline:
    """A deadline, ``seconds`` from now; ``None``: no deadline."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """The seconds that remain, at least 0; ``None`` without a deadline."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())
