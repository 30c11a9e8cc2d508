"""The control packets of MQTT 3.1, 3.1.1 and 5.0 as values.

One small class for each packet. A packet knows only its fields: ``decode`` and ``encode`` handle its bytes, ``session``
and ``broker`` its meaning. What always holds: a packet from ``decode`` is well formed for its protocol version;
``properties`` is ``None`` if a packet has none, and always for MQTT 3.
"""

from __future__ import annotations

from typing import ClassVar, Final, Union, final

from mesh.wire.properties import Properties

MQTT31: Final = 3
MQTT311: Final = 4
MQTT5: Final = 5

# Control packet types, MQTT 5.0 table 2-1.
CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14
AUTH: Final = 15


def same(left: object, right: object) -> bool:
    """Whether two packets have the same class and equal fields (for tests and tables, not for the hot path)."""
    if type(left) is not type(right):
        return False
    names = type(left).FIELDS  # type: ignore[attr-defined]
    return all(getattr(left, name) == getattr(right, name) for name in names)


def show(packet: object) -> str:
    """A packet as a call of its constructor, for log messages and test reports."""
    names = type(packet).FIELDS  # type: ignore[attr-defined]
    fields = ", ".join(f"{name}={getattr(packet, name)!r}" for name in names)
    return f"{type(packet).__name__}({fields})"


@final
class Will:
    """The message that the broker publishes unless the client ends with a normal DISCONNECT (section 3.1.2.5)."""

    FIELDS: ClassVar[tuple[str, ...]] = ("topic", "payload", "qos", "retain", "properties")
    __slots__ = FIELDS

    def __init__(
        self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Connect:
    """CONNECT, section 3.1. ``protocol``: 3, 4, 5; ``clean_start``: Clean Session before 5.0; keep alive in seconds."""

    FIELDS: ClassVar[tuple[str, ...]] = (
        "protocol",
        "client_id",
        "clean_start",
        "keep_alive",
        "username",
        "password",
        "will",
        "properties",
    )
    __slots__ = FIELDS

    def __init__(
        self,
        protocol: int = MQTT5,
        client_id: str = "",
        clean_start: bool = True,
        keep_alive: int = 60,
        username: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        properties: Properties | None = None,
    ) -> None:
        self.protocol = protocol
        self.client_id = client_id
        self.clean_start = clean_start
        self.keep_alive = keep_alive
        self.username = username
        self.password = password
        self.will = will
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Connack:
    """CONNACK, section 3.2. ``reason`` is a reason code in 5.0 and a return code (0 to 5) for older clients."""

    FIELDS: ClassVar[tuple[str, ...]] = ("session_present", "reason", "properties")
    __slots__ = FIELDS

    def __init__(self, session_present: bool = False, reason: int = 0, properties: Properties | None = None) -> None:
        self.session_present = session_present
        self.reason = reason
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Publish:
    """PUBLISH, section 3.3. ``packet_id`` is 0 for QoS 0. ``topic`` is empty only with a topic alias."""

    FIELDS: ClassVar[tuple[str, ...]] = ("topic", "payload", "qos", "retain", "dup", "packet_id", "properties")
    __slots__ = FIELDS

    def __init__(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 0,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
        properties: Properties | None = None,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Ack:
    """PUBACK, PUBREC, PUBREL and PUBCOMP, sections 3.4 to 3.7, distinguished by ``type``."""

    FIELDS: ClassVar[tuple[str, ...]] = ("type", "packet_id", "reason", "properties")
    __slots__ = FIELDS

    def __init__(self, type: int, packet_id: int, reason: int = 0, properties: Properties | None = None) -> None:
        self.type = type
        self.packet_id = packet_id
        self.reason = reason
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Subscription:
    """One topic filter of a SUBSCRIBE with its options (section 3.8.3.1)."""

    FIELDS: ClassVar[tuple[str, ...]] = ("filter", "qos", "no_local", "retain_as_published", "retain_handling")
    __slots__ = FIELDS

    def __init__(
        self,
        filter: str,
        qos: int = 0,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> None:
        self.filter = filter
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.retain_handling = retain_handling

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Subscribe:
    """SUBSCRIBE, section 3.8: at least one subscription."""

    FIELDS: ClassVar[tuple[str, ...]] = ("packet_id", "subscriptions", "properties")
    __slots__ = FIELDS

    def __init__(self, packet_id: int, subscriptions: list[Subscription], properties: Properties | None = None) -> None:
        self.packet_id = packet_id
        self.subscriptions = subscriptions
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Unsubscribe:
    """UNSUBSCRIBE, section 3.10: at least one topic filter."""

    FIELDS: ClassVar[tuple[str, ...]] = ("packet_id", "filters", "properties")
    __slots__ = FIELDS

    def __init__(self, packet_id: int, filters: list[str], properties: Properties | None = None) -> None:
        self.packet_id = packet_id
        self.filters = filters
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class SubAck:
    """SUBACK and UNSUBACK, sections 3.9 and 3.11: one reason for each filter asked for, in its order.

    An UNSUBACK before 5.0 carries no reasons: ``reasons`` is then empty.
    """

    FIELDS: ClassVar[tuple[str, ...]] = ("type", "packet_id", "reasons", "properties")
    __slots__ = FIELDS

    def __init__(self, type: int, packet_id: int, reasons: list[int], properties: Properties | None = None) -> None:
        self.type = type
        self.packet_id = packet_id
        self.reasons = reasons
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Ping:
    """PINGREQ and PINGRESP, sections 3.12 and 3.13."""

    FIELDS: ClassVar[tuple[str, ...]] = ("type",)
    __slots__ = FIELDS

    def __init__(self, type: int) -> None:
        self.type = type

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Disconnect:
    """DISCONNECT, section 3.14. ``reason`` is always 0 before 5.0."""

    FIELDS: ClassVar[tuple[str, ...]] = ("reason", "properties")
    __slots__ = FIELDS

    def __init__(self, reason: int = 0, properties: Properties | None = None) -> None:
        self.reason = reason
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


@final
class Auth:
    """AUTH, section 3.15 (5.0 only)."""

    FIELDS: ClassVar[tuple[str, ...]] = ("reason", "properties")
    __slots__ = FIELDS

    def __init__(self, reason: int = 0, properties: Properties | None = None) -> None:
        self.reason = reason
        self.properties = properties

    def __eq__(self, other: object) -> bool:
        return same(self, other)

    def __repr__(self) -> str:
        return show(self)


Packet = Union[Connect, Connack, Publish, Ack, Subscribe, SubAck, Unsubscribe, Ping, Disconnect, Auth]
