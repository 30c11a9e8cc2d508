"""The states of a client's connection, from accept to its end, and every transition between them.

``lifecycle`` causes the transitions that follow from bytes; the shells (the front door's vehicle, the endpoint's
client) cause the others.

::

    NEW ──begin──► CONNECTING ──ask──► PROVING ─┐ask
                        │                 │  ◄──┘
                        └──identify──┐    │identify
                                     ▼    ▼
                                  IDENTIFYING ──hand over──► WAITING ──accept──► OPEN
    close: from each state before OPEN to REJECTED, from OPEN to CLOSED

What always holds: ``State.move`` alone assigns the state; REJECTED and CLOSED have no way out; a connection that
was never OPEN never becomes CLOSED, so the last state tells whether the client got a CONNACK with success.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

# States, in the order in which a connection passes them.
NEW: Final = 0  # accepted; no byte of MQTT has come
CONNECTING: Final = 1  # a part of CONNECT has come
PROVING: Final = 2  # AUTH packets of an enhanced authentication are exchanged
IDENTIFYING: Final = 3  # CONNECT is complete; the client and the server of its session are being looked up
WAITING: Final = 4  # the session's server (broker or edge) has the CONNECT and has not answered
OPEN: Final = 5  # CONNACK with success was sent
REJECTED: Final = 6  # ended before CONNACK with success
CLOSED: Final = 7  # ended after it

STATES: Final = (
    "NEW", "CONNECTING", "PROVING", "IDENTIFYING", "WAITING", "OPEN", "REJECTED", "CLOSED",
)  # fmt: skip

# Events.
BEGIN: Final = 0  # the first byte is that of a CONNECT
ASK: Final = 1  # the authentication method sends a challenge
IDENTIFY: Final = 2  # nothing is left to prove
HAND_OVER: Final = 3  # the session's server gets the CONNECT
ACCEPT: Final = 4  # the session's server accepts the client
CLOSE: Final = 5  # either side ends the connection

EVENTS: Final = ("BEGIN", "ASK", "IDENTIFY", "HAND_OVER", "ACCEPT", "CLOSE")

TRANSITIONS: Final[dict[tuple[int, int], int]] = {
    (NEW, BEGIN): CONNECTING,
    (NEW, CLOSE): REJECTED,
    (CONNECTING, ASK): PROVING,
    (CONNECTING, IDENTIFY): IDENTIFYING,
    (CONNECTING, CLOSE): REJECTED,
    (PROVING, ASK): PROVING,
    (PROVING, IDENTIFY): IDENTIFYING,
    (PROVING, CLOSE): REJECTED,
    (IDENTIFYING, HAND_OVER): WAITING,
    (IDENTIFYING, CLOSE): REJECTED,
    (WAITING, ACCEPT): OPEN,
    (WAITING, CLOSE): REJECTED,
    (OPEN, CLOSE): CLOSED,
}
# The same by ``state * _WIDTH + event``, -1 for no transition: a connection moves five times, and a look-up with a
# tuple as its key costs several times as much.
_WIDTH: Final = len(EVENTS)
_AFTER: Final[list[int]] = [
    TRANSITIONS.get((state, event), -1) for state in range(len(STATES)) for event in range(_WIDTH)
]


class IllegalTransition(Exception):
    """An event came in a state that does not allow it: an error in this program, not in the client."""

    def __init__(self, state: int, event: int) -> None:
        super().__init__(f"a connection that is {STATES[state]} cannot {EVENTS[event]}")


@mypyc_attr(allow_interpreted_subclasses=True)
class State:
    """The state of one connection."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = NEW

    @property
    def state(self) -> int:
        """One of ``STATES``, by its number."""
        return self._state

    def move(self, event: int) -> None:
        """Let ``event`` happen. Raises ``IllegalTransition`` and changes nothing if the state does not allow it."""
        after = _AFTER[self._state * _WIDTH + event]
        if after < 0:
            raise IllegalTransition(self._state, event)
        self._state = after

    def ended(self) -> bool:
        """Whether the connection is over."""
        return self._state >= REJECTED

    def was_open(self) -> bool:
        """Whether the client has got a CONNACK with success."""
        return self._state in (OPEN, CLOSED)
