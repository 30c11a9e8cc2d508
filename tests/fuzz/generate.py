"""Valid sequences of one client's packets, made from a seeded ``random.Random``.

It knows what a client of MQTT 3.1, 3.1.1 and 5.0 may send, and in which order: never mutations, which ``mutate`` makes.
What always holds: the same seed gives the same sequence; a sequence begins with CONNECT, and CONNECT follows each
DISCONNECT.
"""

from __future__ import annotations

from random import Random
from typing import Final

from tests.fuzz.draft import (
    BINARY,
    CODE,
    IDENTIFIER,
    NUMBER,
    PAYLOAD,
    PROPERTIES,
    TEXT,
    Draft,
    Field,
    Property,
    four,
    framed,
    length,
    two,
)

ALIASES: Final = 4  # topic aliases that the broker under test grants
_OPEN: Final = 6  # QoS 2 exchanges that a client leaves open before it releases one
_WEIGHTS: Final = {
    "publish": 46, "acknowledge": 14, "release": 8, "subscribe": 9, "unsubscribe": 4, "ping": 5, "auth": 1,
    "goodbye": 2, "again": 1,
}  # fmt: skip
_KINDS: Final = list(_WEIGHTS)
_SHARES: Final = list(_WEIGHTS.values())
_USER: Final = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("k", "v"), ("", "")]
_PAYLOADS: Final = [b"", b"x", b"\x00\xff", b"hello" * 3, bytes(range(200)), b"long" * 80]
_PUBLISH_REASONS: Final = (0x00, 0x10, 0x80, 0x83, 0x87, 0x97)
_DISCONNECT_REASONS: Final = (0x00, 0x00, 0x04, 0x80, 0x93, 0x98)
FOREVER: Final = 0xFFFFFFFF
_EXPIRIES: Final = (0, 0, 1, 600, 100_000, 200_000, 300_000, FOREVER)


class Cast:
    """The names that the clients of one run share, so that they interact: ``client_ids``, ``topics``, ``filters``."""

    __slots__ = ("client_ids", "filters", "topics", "usernames")

    def __init__(self, prefix: str = "", usernames: tuple[str, ...] = ("fuzz",)) -> None:
        self.usernames = usernames
        self.client_ids = [f"f{number}" for number in range(30)]
        self.topics = [prefix + name for name in _names()]
        self.filters = [prefix + name for name in (*_names(), *_wildcards())]
        self.filters += [f"$share/g{number}/{prefix}{name}" for number in (1, 2) for name in ("a/#", "b/+", "a/b")]
        self.filters += ["#", "+/+", "$SYS/#", "$SYS/broker/clients/connected"]
        self.filters += ["$dead-letters/#", "$share/g1/$dead-letters/#", "$dead-letters"]
        if not prefix:
            self.topics += ["/", "$SYS/broker/uptime", "$other/topic"]


def _names() -> list[str]:
    return [
        "a", "b", "c", "a/b", "a/b/c", "b/a", "b/b", "c//c", "d/", "a/ä€😀", "r/1", "r/2", "r/3", "cmd/lock",
        "x" * 200, "/".join("l" * 20), "\ufeffbom", "a b", "a\u007fb",
    ]  # fmt: skip


def _wildcards() -> list[str]:
    return ["#", "a/#", "b/+", "+/b", "+/+", "r/#", "+", "a/+/c", "+/#", "c/+/c", "cmd/#", "d/+"]


class Script:
    """Generates the packets of one client."""

    __slots__ = ("_cast", "_dice", "_id", "_open", "_taught", "client_id", "protocol")

    def __init__(self, dice: Random, cast: Cast, protocol: int = 0) -> None:
        self._dice = dice
        self._cast = cast
        self._id = dice.choice((0, 0, 65_530))
        self._open: list[int] = []
        self._taught: set[int] = set()
        self.protocol = protocol or dice.choice((3, 4, 4, 5, 5, 5, 5))
        self.client_id = dice.choice(cast.client_ids)

    def packets(self, count: int) -> list[Draft]:
        """CONNECT and ``count`` more packets."""
        dice = self._dice
        made = [self.connect()]
        for kind in dice.choices(_KINDS, _SHARES, k=count):
            if kind == "publish":
                made.append(self.publish())
            elif kind == "acknowledge":
                made.append(self.acknowledge())
            elif kind == "release":
                made.append(self.release())
            elif kind == "subscribe":
                made.append(self.subscribe())
            elif kind == "unsubscribe":
                made.append(self.unsubscribe())
            elif kind == "auth" and self.protocol == 5:
                made.append(self.auth())
            elif kind == "goodbye":
                made += [self.disconnect(), self.connect()]
            elif kind == "again":
                made.append(self.connect())
            else:
                made.append(Draft(0xC0, []))
        return made

    def _next_id(self) -> int:
        self._id = self._id % 65_535 + 1
        return self._id

    # CONNECT

    def connect(self) -> Draft:
        """A CONNECT in the client's version."""
        dice, protocol = self._dice, self.protocol
        self._open.clear()
        self._taught.clear()
        clean = dice.random() < 0.4
        client_id = self.client_id
        if dice.random() < 0.04:
            client_id, clean = "", protocol != 3 or clean
            if protocol == 3:
                client_id = "f0"
        flags = 0x02 if clean else 0
        will: list[Field] = []
        if dice.random() < 0.35:
            qos = dice.randrange(3)
            flags |= 0x04 | qos << 3 | (0x20 if dice.random() < 0.3 else 0)
            will = self._will()
        username = dice.choice(self._cast.usernames)
        flags |= 0x80
        password = dice.random() < 0.3
        if password:
            flags |= 0x40
        name = b"MQIsdp" if protocol == 3 else b"MQTT"
        fields: list[Field] = [(TEXT, name), (NUMBER, bytes((protocol,))), (CODE, bytes((flags,))), (NUMBER, two(60))]
        if protocol == 5:
            fields.append((PROPERTIES, self._connection_properties()))
        fields.append((TEXT, client_id.encode()))
        fields += will
        fields.append((TEXT, username.encode()))
        if password:
            fields.append((BINARY, b"secret"))
        return Draft(0x10, fields)

    def _will(self) -> list[Field]:
        dice = self._dice
        fields: list[Field] = []
        if self.protocol == 5:
            properties = self._message_properties()
            if dice.random() < 0.4:
                properties.append((0x18, four(dice.choice((0, 1, 5, 100, FOREVER)))))
            fields.append((PROPERTIES, properties))
        return [*fields, (TEXT, self._topic()), (BINARY, dice.choice(_PAYLOADS))]

    def _connection_properties(self) -> list[Property]:
        dice = self._dice
        found: list[Property] = []
        if dice.random() < 0.6:
            found.append((0x11, four(dice.choice(_EXPIRIES))))
        if dice.random() < 0.4:
            found.append((0x21, two(dice.choice((1, 2, 5, 10, 65_535)))))
        if dice.random() < 0.2:
            found.append((0x27, four(dice.choice((1, 4, 15, 30, 64, 100, 128, 1000, 100_000, FOREVER)))))
        if dice.random() < 0.4:
            found.append((0x22, two(dice.choice((0, 1, 2, 10, 65_535)))))
        if dice.random() < 0.2:
            found.append((0x17, bytes((dice.randrange(2),))))
        if dice.random() < 0.1:
            found.append((0x19, bytes((dice.randrange(2),))))
        return found + self._user()

    # PUBLISH

    def publish(self, qos: int = -1) -> Draft:
        """A PUBLISH; an alias without a topic only after it was sent with one."""
        dice = self._dice
        if qos < 0:
            qos = dice.choice((0, 0, 1, 1, 1, 2))
        if qos == 2 and len(self._open) >= _OPEN:
            return self.release()
        retain = dice.random() < 0.1
        dup = bool(qos) and dice.random() < 0.1
        topic = self._topic()
        properties: list[Property] = []
        if self.protocol == 5 and dice.random() < 0.4:
            properties = self._message_properties()
            if dice.random() < 0.4:
                topic = self._alias(topic, properties)
        fields: list[Field] = [(TEXT, topic)]
        if qos:
            packet_id = self._next_id()
            if qos == 2:
                self._open.append(packet_id)
            fields.append((IDENTIFIER, two(packet_id)))
        if self.protocol == 5:
            fields.append((PROPERTIES, properties))
        fields.append((PAYLOAD, dice.choice(_PAYLOADS)))
        return Draft(0x30 | dup << 3 | qos << 1 | retain, fields)

    def _alias(self, topic: bytes, properties: list[Property]) -> bytes:
        dice = self._dice
        alias = dice.randint(1, ALIASES)
        properties.append((0x23, two(alias)))
        if alias in self._taught and dice.random() < 0.7:
            return b""
        self._taught.add(alias)
        return topic

    def _topic(self) -> bytes:
        return self._dice.choice(self._cast.topics).encode()

    def _message_properties(self) -> list[Property]:
        dice = self._dice
        found: list[Property] = []
        if dice.random() < 0.3:
            found.append((0x02, four(dice.choice((0, 1, 2, 60, FOREVER)))))
        if dice.random() < 0.2:
            found.append((0x01, bytes((dice.randrange(2),))))
        if dice.random() < 0.2:
            found.append((0x03, framed(b"text/plain")))
        if dice.random() < 0.2:
            found.append((0x08, framed(self._topic())))
        if dice.random() < 0.2:
            found.append((0x09, framed(b"\x00\x01")))
        return found + self._user()

    def _user(self) -> list[Property]:
        dice = self._dice
        if dice.random() < 0.8:
            return []
        pairs = dice.choices(_USER, k=dice.randint(1, 3))
        return [(0x26, framed(name.encode()) + framed(value.encode())) for name, value in pairs]

    # Answers

    def acknowledge(self) -> Draft:
        """PUBACK, PUBREC or PUBCOMP, in part for an identifier that the server may have in flight: it counts from 1. Of
        these most end the connection, as they do not fit."""
        dice = self._dice
        kind = dice.choice((4, 4, 5, 7))
        packet_id = dice.randint(1, 12) if dice.random() < 0.3 else dice.randint(1, 65_535)
        reason = -1
        if self.protocol == 5 and dice.random() < 0.2:
            reason = dice.choice((0x00, 0x92)) if kind == 7 else dice.choice(_PUBLISH_REASONS)
        return self._answer(kind << 4, packet_id, reason)

    def release(self) -> Draft:
        """PUBREL, mostly for an open identifier."""
        dice = self._dice
        if self._open and dice.random() < 0.9:
            packet_id = self._open.pop(0)
        else:
            packet_id = dice.randint(1, 20)
        return self._answer(0x62, packet_id, -1)

    def _answer(self, first: int, packet_id: int, reason: int) -> Draft:
        fields: list[Field] = [(IDENTIFIER, two(packet_id))]
        if reason >= 0:
            fields.append((CODE, bytes((reason,))))
            if self._dice.random() < 0.3:
                fields.append((PROPERTIES, [(0x1F, framed(b"why not")), *self._user()]))
        return Draft(first, fields)

    # SUBSCRIBE and the rest

    def subscribe(self) -> Draft:
        """One filter or a few."""
        dice = self._dice
        fields: list[Field] = [(IDENTIFIER, two(self._next_id()))]
        if self.protocol == 5:
            properties = self._user()
            if dice.random() < 0.3:
                properties.append((0x0B, length(dice.choice((1, 2, 127, 128, 268_435_455)))))
            fields.append((PROPERTIES, properties))
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            filter = dice.choice(self._cast.filters)
            options = dice.randrange(3)
            if self.protocol == 5:
                options |= dice.choice((0, 0, 0x08)) | dice.choice((0, 0x10, 0x20))
                if not filter.startswith("$share") and dice.random() < 0.3:
                    options |= 0x04
            fields += [(TEXT, filter.encode()), (CODE, bytes((options,)))]
        return Draft(0x82, fields)

    def unsubscribe(self) -> Draft:
        """One filter or a few."""
        dice = self._dice
        fields: list[Field] = [(IDENTIFIER, two(self._next_id()))]
        if self.protocol == 5:
            fields.append((PROPERTIES, self._user()))
        fields += [(TEXT, dice.choice(self._cast.filters).encode()) for _ in range(dice.choice((1, 1, 3)))]
        return Draft(0xA2, fields)

    def auth(self) -> Draft:
        """AUTH, which no client of this mesh needs."""
        reason = self._dice.choice((0x18, 0x19))
        return Draft(0xF0, [(CODE, bytes((reason,))), (PROPERTIES, [(0x15, framed(b"m")), (0x16, framed(b"d"))])])

    def disconnect(self) -> Draft:
        """DISCONNECT; in 5.0 sometimes with a reason code and a session expiry."""
        dice = self._dice
        if self.protocol != 5 or dice.random() < 0.5:
            return Draft(0xE0, [])
        fields: list[Field] = [(CODE, bytes((dice.choice(_DISCONNECT_REASONS),)))]
        if dice.random() < 0.5:
            fields.append((PROPERTIES, [(0x11, four(dice.choice(_EXPIRIES)))]))
        return Draft(0xE0, fields)
