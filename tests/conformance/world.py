"""The server under test, however clients reach it, and what all worlds have in common."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from typing import Any

from mesh.wire.packets import MQTT5, Connect, Will
from mesh.wire.properties import Properties
from tests.conformance.peer import Peer, Wire

# The limits that every world has, so that tests can reach them.
MAX_PACKET = 64 * 1024
RECEIVE_MAXIMUM = 20
IN_FLIGHT = 20
QUEUE = 100
SUBSCRIPTIONS = 100
ALIASES = 8
KEEP_ALIVE = 60
SESSION_EXPIRY = 3600
SHARED_PATIENCE = 2.0
CONNECT_TIMEOUT = 3.0
ATTACH_GRACE = 2.0  # seconds that a session waits for its connection after a crash
SYS_INTERVAL = 1.0
REFUSED = "refused/#"  # what no client may publish or receive

_numbers = itertools.count(1)


class World(ABC):
    """``name`` is ``broker``, ``core`` or ``door``."""

    name: str

    @property
    def full(self) -> int:
        """The reason code for a message to a durable session whose queue is full. A back end's message goes to the dead
        letters then, so its publisher is told of no error."""
        return 0 if self.name == "core" else 0x97

    @abstractmethod
    def wire(self) -> Wire:
        """A new connection."""

    @abstractmethod
    def elapse(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    def crash(self) -> None:
        """Kill the server and wait until it runs again. What is not on its disk is lost, and so is every connection."""

    def topic(self, rest: str = "") -> str:
        """A topic or filter that no other test uses; ``rest`` follows behind its first level."""
        return f"t{next(_numbers)}/{rest}" if rest else f"t{next(_numbers)}"

    def client_id(self) -> str:
        """A client identifier that no other test uses."""
        return f"c{next(_numbers)}"

    def peer(self, protocol: int = MQTT5, client_id: str = "") -> Peer:
        """A connection before its CONNECT."""
        return Peer(self.wire(), protocol, client_id)

    def client(
        self,
        client_id: str | None = None,
        protocol: int = MQTT5,
        clean: bool = True,
        expiry: int | None = None,
        keep_alive: int = 0,
        will: Will | None = None,
        **properties: Any,
    ) -> Peer:
        """A client with an accepted CONNECT. ``expiry`` and further keywords are properties of the CONNECT (5.0)."""
        name = self.client_id() if client_id is None else client_id
        peer = self.peer(protocol, name)
        packet = Connect(protocol, name, clean, keep_alive, None, None, will, connect_properties(expiry, properties))
        answer = peer.connect(packet)
        assert answer.reason == 0, answer
        return peer


def connect_properties(expiry: int | None, fields: dict[str, Any]) -> Properties | None:
    """The properties of a CONNECT; ``None`` if there are none."""
    if expiry is not None:
        fields = {**fields, "session_expiry": expiry}
    return properties(**fields) if fields else None


def properties(**fields: Any) -> Properties:
    """Properties with these fields set."""
    made = Properties()
    for name, value in fields.items():
        assert name in Properties.FIELDS, name
        setattr(made, name, value)
    return made
