"""Back pressure towards the cores: tells them which vehicles' queues are full, and when they have drained.

It knows the sessions of connected vehicles whose queues are full, and the connections of cores: never a message. What
always holds:

* a session is pressed from the first message that its full queue takes, or from its connection if the queue is full
  then, until its queue reaches the low watermark or the session has no connection. For ``attach_grace`` seconds after a
  restart, a session that had a connection counts as connected: the connection outlives the edge's process;
* each core gets HIGH for a vehicle before the PUBACK of the message that pressed it, and LOW when the last
  pressed session of the vehicle is released;
* a core that connects while vehicles are pressed is told so in its CONNACK (``FOLLOW``), then gets HIGH for each of
  these vehicles, then KNOWN; before KNOWN it sends no message of QoS 1 or 2;
* a pressed queue exceeds its limit by no more than what the cores had in flight before HIGH reached them, and what was
  in flight to the vehicle on an earlier connection.

A signal is a PUBLISH of QoS 0 to ``$mesh/queue/{vehicle}``, KNOWN one to ``$mesh/queue/``. It exists on tier links
only; no client can send or get it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, final

from mesh.broker.grant import MESH_TOPICS
from mesh.broker.outbox import Outbox
from mesh.broker.principal import VEHICLE
from mesh.broker.session import Connection, Session
from mesh.broker.settings import Settings
from mesh.wire.encode import encode_publish
from mesh.wire.packets import MQTT5

SIGNALS: Final = MESH_TOPICS + "queue/"
HIGH: Final = b"high"
LOW: Final = b"low"
KNOWN: Final = b"known"
FOLLOW: Final = "mesh-queue-signals"  # a user property of CONNACK: signals follow, up to KNOWN

_PORTION: Final = 256  # sessions, or signals of one core, that one turn handles


@final
class Pressure:
    """``presses`` counts how often a session was pressed."""

    __slots__ = (
        "_clock", "_cores", "_most", "_newcomers", "_outbox", "_sessions", "_settings", "_vehicles", "_waits_until",
        "presses",
    )  # fmt: skip

    def __init__(self, settings: Settings, outbox: Outbox, clock: Callable[[], float]) -> None:
        self.presses = 0
        self._settings = settings
        self._outbox = outbox
        self._clock = clock
        self._waits_until = 0.0  # the end of the grace in which connections are attached after a restart
        self._sessions: dict[Session, None] = {}  # pressed; those that were checked last are at the end
        self._vehicles: dict[str, int] = {}  # how many sessions of a vehicle are pressed
        self._cores: list[Connection] = []
        self._most = 0  # how many cores were connected at a time since a session is pressed
        self._newcomers: list[tuple[Connection, list[str]]] = []  # cores, and the vehicles that they get HIGH for

    def __len__(self) -> int:
        """How many sessions are pressed."""
        return len(self._sessions)

    @property
    def cores(self) -> list[Connection]:
        """The connections of cores."""
        return self._cores

    # Messages

    def takes(self, session: Session, size: int) -> bool:
        """Whether a message of a core, of ``size`` bytes, is queued though the session is at its limits. This presses
        the session."""
        settings, outbound, cores = self._settings, session.outbound, self._most
        if session.kind != VEHICLE or not self._connected(session):
            return False
        if len(outbound.waiting) < settings.max_queue_messages and outbound.bytes + size <= settings.max_queue_bytes:
            return False  # it was refused for another reason
        most = settings.max_queue_messages + outbound.window + cores * self._receive_maximum()
        if len(outbound.waiting) >= most:
            return False
        if outbound.bytes + size > settings.max_queue_bytes + cores * settings.overshoot_bytes:
            return False
        if session not in self._sessions:
            self._press(session)
        return True

    def _receive_maximum(self) -> int:
        """The highest receive maximum that a core was told: a lower one of today binds later connections only."""
        return max([self._settings.receive_maximum, *[core.receive_maximum for core in self._cores]])

    def _connected(self, session: Session) -> bool:
        if session.connection is None:
            return session.attached and self._clock() < self._waits_until
        return not session.connection.closing

    def _press(self, session: Session) -> None:
        self._sessions[session] = None
        self.presses += 1
        pressed = self._vehicles.get(session.vehicle, 0)
        self._vehicles[session.vehicle] = pressed + 1
        if pressed == 0:
            self._tell(session.vehicle, HIGH)

    def _tell(self, vehicle: str, payload: bytes) -> None:
        packet = _signal(vehicle, payload)
        for core in self._cores:
            self._outbox.write(core, packet)

    # Sessions

    def recovered(self, sessions: Iterable[Session]) -> None:
        """The broker has restarted with these sessions."""
        self._waits_until = self._clock() + self._settings.attach_grace
        for session in sessions:
            if session.attached:
                self.bound(session)

    def bound(self, session: Session) -> None:
        """A session has a connection, or may still have it after a restart."""
        if session.kind == VEHICLE and self._full(session) and session not in self._sessions:
            self._press(session)

    def _full(self, session: Session) -> bool:
        outbound, settings = session.outbound, self._settings
        return len(outbound.waiting) >= settings.max_queue_messages or outbound.bytes >= settings.max_queue_bytes

    # Cores

    def joined(self, core: Connection) -> None:
        """A core has connected: it gets the signals of the pressed vehicles after its CONNACK."""
        self._cores.append(core)
        self._most = max(self._most, len(self._cores))
        if self._vehicles:
            self._newcomers.append((core, list(self._vehicles)))

    def left(self, core: Connection) -> None:
        """A core has disconnected."""
        self._cores.remove(core)
        if not self._sessions:
            self._most = len(self._cores)

    # The end of a turn

    def serve(self) -> bool:
        """Release sessions whose queues have drained, and send HIGH to cores that have connected. Returns whether
        another turn has work."""
        released = False
        if self._sessions:
            released = self._check()
        if self._newcomers:
            self._greet()
        return bool(self._newcomers) or (released and len(self._sessions) > _PORTION)

    def _check(self) -> bool:
        """Check the sessions that were not checked for the longest time. Returns whether one was released."""
        due: list[Session] = []
        for session in self._sessions:
            due.append(session)
            if len(due) == _PORTION:
                break
        released = False
        for session in due:
            del self._sessions[session]
            if self._drained(session):
                self._release(session)
                released = True
            else:
                self._sessions[session] = None
        return released

    def _drained(self, session: Session) -> bool:
        outbound, settings = session.outbound, self._settings
        waiting = len(outbound.waiting)
        if waiting == 0 or not self._connected(session):
            return True
        return 2 * waiting <= settings.max_queue_messages and 2 * outbound.bytes <= settings.max_queue_bytes

    def _release(self, session: Session) -> None:
        vehicle = session.vehicle
        pressed = self._vehicles[vehicle] - 1
        if pressed:
            self._vehicles[vehicle] = pressed
        else:
            del self._vehicles[vehicle]
            self._tell(vehicle, LOW)
        if not self._vehicles:
            self._most = len(self._cores)

    def _greet(self) -> None:
        core, vehicles = self._newcomers[0]
        if core.session is not None:
            for vehicle in vehicles[-_PORTION:]:
                if vehicle in self._vehicles:
                    self._outbox.write(core, _signal(vehicle, HIGH))
        del vehicles[-_PORTION:]
        if not vehicles:
            self._outbox.write(core, _signal("", KNOWN))
        if core.session is None or not vehicles:
            del self._newcomers[0]


def _signal(vehicle: str, payload: bytes) -> bytes:
    return encode_publish((SIGNALS + vehicle).encode(), payload, 0, False, False, 0, b"", MQTT5)


def signalled(topic: str) -> str | None:
    """The vehicle of a signal, empty for KNOWN; ``None`` if the topic is no signal's."""
    return topic[len(SIGNALS) :] if topic.startswith(SIGNALS) else None
