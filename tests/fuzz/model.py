"""A model of the server: the messages that are due to its clients, and the state that a crash leaves.

It knows sessions, subscriptions, the messages that are due to each session, and the dead letters: never packets. All
state is in plain values, so that a copy of it is the state on disk. What always holds: ``due`` is in the order of
publishing; a message leaves it when its receiver has acknowledged it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final

from mesh.wire.topics import matches

FOREVER: Final = 0xFFFFFFFF
GRACE: Final = 60.0  # seconds that a session waits for its client after a restart, for any expiry


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
class DeadLetter:
    """One message of one receiver that had no room for it. ``size``: bytes that it counts in the limits."""

    number: int
    share: str
    size: int


@dataclass
class Session:
    """``ends``: when it expires, 0.0 if it does not or has a connection; ``noted``: the same on disk, where a restart
    does not rewrite it. ``durable``: it survives a crash."""

    expiry: int
    durable: bool
    connected: bool = True
    ends: float = 0.0
    noted: float = 0.0
    interests: dict[str, Interest] = field(default_factory=dict)
    due: list[Due] = field(default_factory=list)
    incoming: set[int] = field(default_factory=set)  # QoS 2 identifiers of the client that are open

    def interest_in(self, topic: str, own: bool) -> int:
        """The QoS of its subscriptions to ``topic``; -1 if there is none. ``own``: it is the publisher."""
        found = [interest for filter, interest in self.interests.items() if matches(filter, topic)]
        return max((interest.qos for interest in found if not (own and interest.no_local)), default=-1)


class Model:
    """The server: ``sessions`` by client id, and its dead ``letters`` in order, of at most ``letter_bytes`` and
    ``share_bytes`` for one receiver. ``_disk`` and ``_kept`` are their state at the last commit."""

    def __init__(self, letter_bytes: int, share_bytes: int) -> None:
        self.sessions: dict[str, Session] = {}
        self.letters: list[DeadLetter] = []
        self.dropped: list[DeadLetter] = []  # by these bounds; a reader may have them already
        self.letter_bytes = letter_bytes
        self.share_bytes = share_bytes
        self._disk: dict[str, Session] = {}
        self._kept: list[DeadLetter] = []

    def commit(self) -> None:
        """All changes are on disk."""
        self._disk = deepcopy(self.sessions)
        self._kept = list(self.letters)

    def miss(self, name: str, letter: DeadLetter) -> None:
        """A receiver had no room: the message goes to the dead letters, where the oldest ones make room for it."""
        due = self.sessions[name].due
        self.sessions[name].due = [one for one in due if one.number != letter.number]
        while sum(one.size for one in self.letters if one.share == letter.share) + letter.size > self.share_bytes:
            self._drop(next(one for one in self.letters if one.share == letter.share))
        while sum(one.size for one in self.letters) + letter.size > self.letter_bytes:
            self._drop(self.letters[0])
        self.letters.append(letter)

    def _drop(self, letter: DeadLetter) -> None:
        self.letters.remove(letter)
        self.dropped.append(letter)

    def forgets_letter(self, letter: DeadLetter) -> bool:
        """Whether a crash would undo a letter that is not dropped."""
        return letter in self.letters and letter not in self._kept

    def crash(self, now: float) -> None:
        """Return to the state on disk. No client is connected; sessions that were connected are kept for a grace."""
        self.letters = list(self._kept)
        self.sessions = {name: session for name, session in deepcopy(self._disk).items() if session.durable}
        for session in self.sessions.values():
            session.connected = False
            session.ends = session.noted
            if session.noted == 0.0 and session.expiry != FOREVER:
                session.ends = now + max(session.expiry, GRACE)
        self.commit()

    def tick(self, now: float) -> None:
        """End the sessions that have expired."""
        for name in [name for name, one in self.sessions.items() if not one.connected and 0.0 < one.ends <= now]:
            del self.sessions[name]

    def connect(self, name: str, clean: bool, expiry: int) -> bool:
        """Handle a CONNECT. Returns whether the session was present. A session with expiry 0 has ended with its
        connection, though after a crash it may still be kept for a client that is attached again."""
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
        """The connection is closed, for any reason."""
        session = self.sessions[name]
        if session.expiry == 0:
            del self.sessions[name]
            return
        session.connected = False
        session.ends = session.noted = 0.0 if session.expiry == FOREVER else now + session.expiry

    def publish(self, name: str, topic: str, qos: int, number: int) -> dict[str, int]:
        """Handle a PUBLISH. Returns the receivers of the message, each with its QoS."""
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
        """Whether a session and a message for it are on disk."""
        session = self._disk.get(name)
        return session is not None and any(due.number == number for due in session.due)

    def keeps(self, name: str, number: int) -> bool:
        """Whether a message that is due to a session survives a crash, if the session itself does."""
        session = self.sessions.get(name)
        if session is None or not session.durable or not any(due.number == number for due in session.due):
            return True
        return self.on_disk(name, number)

    def forgets_release(self, name: str, number: int) -> bool:
        """Whether a crash would undo a PUBREC, so that a released message is sent again."""
        session = self._disk.get(name)
        if session is None or not self.sessions[name].durable:
            return False
        return any(due.number == number and not due.released for due in session.due)

    def forgets_completion(self, name: str, packet_id: int) -> bool:
        """Whether a crash would reopen a QoS 2 identifier that its client may reuse."""
        session = self._disk.get(name)
        return session is not None and self.sessions[name].durable and packet_id in session.incoming
