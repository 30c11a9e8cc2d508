"""What a server owes its clients, as a model that can be thrown back to what is on its disk.

It knows sessions, subscriptions and which messages are due to whom: never packets. Everything is in plain values, so
that a copy of it is what a crash leaves. What always holds: ``due`` is in the order of publishing; a message leaves it
when its receiver has acknowledged it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final

from mesh.wire.topics import matches

FOREVER: Final = 0xFFFFFFFF
GRACE: Final = 60.0  # seconds that a session waits for its client after a restart, whatever its expiry


@dataclass
class Interest:
    """A subscription."""

    qos: int
    no_local: bool


@dataclass
class Due:
    """One message for one session. ``released``: PUBREC came, and PUBREL is due."""

    number: int
    qos: int
    released: bool = False


@dataclass
class Session:
    """``ends``: when it expires, 0.0 if it does not or has a connection; ``noted``: what the disk says of that, which
    is not written anew at a restart. ``durable``: it survives a crash."""

    expiry: int
    durable: bool
    connected: bool = True
    ends: float = 0.0
    noted: float = 0.0
    interests: dict[str, Interest] = field(default_factory=dict)
    due: list[Due] = field(default_factory=list)
    incoming: set[int] = field(default_factory=set)  # QoS 2 identifiers of the client that are open

    def interest_in(self, topic: str, own: bool) -> int:
        """The QoS with which it wants ``topic``; -1 if it does not. ``own``: it is the publisher."""
        found = [interest for filter, interest in self.interests.items() if matches(filter, topic)]
        return max((interest.qos for interest in found if not (own and interest.no_local)), default=-1)


class Model:
    """The server: ``sessions`` by client id. ``disk`` is what they were at the last commit."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self._disk: dict[str, Session] = {}

    def commit(self) -> None:
        """All that happened is on the disk."""
        self._disk = deepcopy(self.sessions)

    def crash(self, now: float) -> None:
        """Back to the disk; nobody is connected, and who was has a grace to come back."""
        self.sessions = {name: session for name, session in deepcopy(self._disk).items() if session.durable}
        for session in self.sessions.values():
            session.connected = False
            session.ends = session.noted
            if session.noted == 0.0 and session.expiry != FOREVER:
                session.ends = now + max(session.expiry, GRACE)
        self.commit()

    def tick(self, now: float) -> None:
        """Sessions whose time has come end."""
        for name in [name for name, one in self.sessions.items() if not one.connected and 0.0 < one.ends <= now]:
            del self.sessions[name]

    def connect(self, name: str, clean: bool, expiry: int) -> bool:
        """A CONNECT; whether the session was there before. One of expiry 0 has ended with its connection, though after
        a crash it may still be kept for a client that is attached again."""
        old = self.sessions.get(name)
        if old is not None and (clean or old.expiry == 0):
            del self.sessions[name]
            old = None
        if old is None:
            self.sessions[name] = Session(expiry, durable=expiry > 0)
            return False
        old.expiry, old.connected, old.ends, old.noted = expiry, True, 0.0, 0.0
        old.durable = old.durable or expiry > 0
        return True

    def leave(self, name: str, now: float) -> None:
        """The connection is gone, whichever way."""
        session = self.sessions[name]
        if session.expiry == 0:
            del self.sessions[name]
            return
        session.connected = False
        session.ends = session.noted = 0.0 if session.expiry == FOREVER else now + session.expiry

    def publish(self, name: str, topic: str, qos: int, number: int) -> dict[str, int]:
        """Who is to get a message, each with its QoS."""
        receivers: dict[str, int] = {}
        for other, session in self.sessions.items():
            wanted = session.interest_in(topic, other == name)
            if wanted < 0:
                continue
            receivers[other] = min(wanted, qos)
            if receivers[other]:
                session.due.append(Due(number, receivers[other]))
        return receivers

    def on_disk(self, name: str, number: int) -> bool:
        """Whether a message for a session is on the disk, if the session is at all."""
        session = self._disk.get(name)
        return session is not None and any(due.number == number for due in session.due)

    def keeps(self, name: str, number: int) -> bool:
        """Whether a crash would leave a message that is due to a session, if the session itself is left."""
        session = self.sessions.get(name)
        if session is None or not session.durable or not any(due.number == number for due in session.due):
            return True
        return self.on_disk(name, number)

    def forgets_release(self, name: str, number: int) -> bool:
        """Whether a crash would undo PUBREC, so that a message that was released would be sent again."""
        session = self._disk.get(name)
        if session is None or not self.sessions[name].durable:
            return False
        return any(due.number == number and not due.released for due in session.due)

    def forgets_completion(self, name: str, packet_id: int) -> bool:
        """Whether a crash would open an identifier of QoS 2 again that its client may use anew."""
        session = self._disk.get(name)
        return session is not None and self.sessions[name].durable and packet_id in session.incoming
