"""One interface for all third-party MQTT clients under test.

It knows MQTT's vocabulary and no library. Each adapter (``PahoPeer``, ``JsPeer``, ``GmqttPeer``) passes the calls on to
its library and records what the library reports; it adds no protocol behaviour of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.waiting import wait_until

V31 = 3
V311 = 4
V5 = 5


@dataclass(frozen=True, slots=True)
class Props:
    """The MQTT 5.0 properties of a message."""

    user: tuple[tuple[str, str], ...] = ()
    content_type: str = ""
    response_topic: str = ""
    correlation: bytes = b""
    expiry: int = 0
    text: int = 0  # payload format indicator
    alias: int = 0
    identifiers: tuple[int, ...] = ()  # subscription identifiers


PLAIN = Props()


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the library reports it to its user."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    props: Props


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a client that connects with TLS."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """One CONNECT. For the session's ``expiry`` (5.0) and the maximums, 0 omits the property."""

    port: int
    client_id: str
    user: str | None = None
    password: str | None = None
    version: int = V311
    clean: bool = True
    expiry: int = 0
    will: Will | None = None
    receive_maximum: int = 0
    maximum_packet: int = 0
    alias_maximum: int = 0
    alias_itself: bool = False  # the library assigns topic aliases by itself, if it can
    reconnect: bool = False  # the library reconnects by itself, as fast as it can
    keeps: tuple[str, ...] = ()  # filters (QoS 1) to subscribe to after each connect, as users do
    hold: bool = False  # acknowledge nothing until ``release``
    tls: Files | None = None
    web: bool = False  # over WebSocket
    origin: str = ""  # for WebSocket: the header Origin; empty: none


@dataclass(frozen=True, slots=True)
class Greeting:
    """The content of a CONNACK; ``None`` for a property that is absent."""

    present: bool
    assigned: str | None = None
    receive_maximum: int | None = None
    maximum_packet: int | None = None
    alias_maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """One subscription's options."""

    qos: int = 1
    no_local: bool = False
    as_published: bool = False
    handling: int = 0
    identifier: int = 0


QOS1 = Wish()


class Refused(Exception):
    """A CONNECT was refused with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code:#x}")
        self.code = code


@dataclass
class Record:
    """The events of a client, in order."""

    received: list[Message] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # reason codes of the server's DISCONNECT packets
    connects: int = 0
    closes: int = 0
    subacks: list[list[int]] = field(default_factory=list)


class Peer(ABC):
    """One client. Every call returns when the server has answered, or raises after the deadline."""

    kind: str
    versions: tuple[int, ...]

    def __init__(self) -> None:
        self.record = Record()

    @abstractmethod
    def connect(self, options: Options) -> Greeting:
        """CONNECT; raises ``Refused``."""

    @abstractmethod
    def subscribe(self, filter: str, wish: Wish = QOS1) -> int:
        """SUBSCRIBE; return the reason code."""

    @abstractmethod
    def unsubscribe(self, filter: str) -> int | None:
        """UNSUBSCRIBE; return the reason code if the library reports it."""

    @abstractmethod
    def publish(
        self, topic: str, payload: bytes, qos: int = 1, retain: bool = False, props: Props = PLAIN
    ) -> int | None:
        """PUBLISH; return the reason code if the library reports it."""

    @abstractmethod
    def send(self, topic: str, payload: bytes) -> None:
        """PUBLISH with QoS 1 without waiting for the acknowledgement."""

    @abstractmethod
    def pipeline(self, topic: str, payloads: Sequence[bytes]) -> None:
        """PUBLISH all with QoS 1 as fast as the library accepts them; return when all are acknowledged."""

    @abstractmethod
    def leave(self, expiry: int | None = None) -> None:
        """DISCONNECT, in 5.0 with a session expiry if given. A second call has no effect."""

    @abstractmethod
    def release(self) -> None:
        """Acknowledge the held messages, and acknowledge later ones at once."""

    @property
    def received(self) -> list[Message]:
        return list(self.record.received)

    def payloads(self) -> list[bytes]:
        """The payloads received."""
        return [message.payload for message in self.received]

    def expect(self, count: int) -> list[Message]:
        """Wait until this many messages have come; return all that have come."""
        wait_until(lambda: len(self.record.received) >= count, f"{count} messages")
        return self.received

    def expect_last(self, payload: bytes) -> list[Message]:
        """Wait for a message with this payload; return all that have come."""
        return self.expect_that(lambda message: message.payload == payload, f"{payload[:40]!r}")

    def expect_that(self, fits: Callable[[Message], bool], what: str) -> list[Message]:
        wait_until(lambda: any(fits(message) for message in self.received), f"a message: {what}")
        return self.received
