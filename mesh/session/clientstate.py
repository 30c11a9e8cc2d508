"""The states of a client's connection to a server, and the table of its transitions.

It knows which event may occur in which state; it must never know what the session does then. What always holds: an
event that the table does not allow in the present state raises, because it is a fault of the caller. A fault of the
server is no such event; the session ends the connection then (``ENDED``).
"""

from __future__ import annotations

from typing import Final, final

# States.
DISCONNECTED: Final = 0
CONNECTING: Final = 1  # CONNECT is sent, CONNACK is awaited
UP: Final = 2
CLOSING: Final = 3  # this side has ended the connection and waits until the socket is closed

# Events.
OPENED: Final = 0  # the socket is open
ACCEPTED: Final = 1  # CONNACK with success was received
ENDED: Final = 2  # this side ends it: the server refused, closed, broke the protocol or is silent, or the program asks
LOST: Final = 3  # the socket is closed

STATES: Final[dict[int, str]] = {
    DISCONNECTED: "disconnected",
    CONNECTING: "connecting",
    UP: "up",
    CLOSING: "closing",
}
EVENTS: Final[dict[int, str]] = {OPENED: "opened", ACCEPTED: "accepted", ENDED: "ended", LOST: "lost"}

TRANSITIONS: Final[dict[tuple[int, int], int]] = {
    (DISCONNECTED, OPENED): CONNECTING,
    (CONNECTING, ACCEPTED): UP,
    (CONNECTING, ENDED): CLOSING,
    (CONNECTING, LOST): DISCONNECTED,
    (UP, ENDED): CLOSING,
    (UP, LOST): DISCONNECTED,
    (CLOSING, LOST): DISCONNECTED,
}


@final
class IllegalCall(Exception):
    """The present state does not allow the call."""


def after(state: int, event: int) -> int:
    """The state after ``event``. Raises ``IllegalCall`` if the state does not allow it."""
    following = TRANSITIONS.get((state, event))
    if following is None:
        raise IllegalCall(f"{EVENTS[event]}: not possible while {STATES[state]}")
    return following
