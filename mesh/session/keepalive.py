"""The keep alive of a client's connection: when a PINGREQ is due, and when the server is taken for dead.

It knows moments, which its caller passes in as seconds: never packets. What always holds: with a keep alive of n
seconds a PINGREQ is due when nothing was sent, or nothing was heard, for n / 2 [MQTT-3.1.2-20]; a server that is silent
for 1.5 n is dead. The moment of sending is known to the interval between two calls of ``check`` only, so that nothing
reads a clock for each packet; with one second and a keep alive of ten there is ample room.
"""

from __future__ import annotations

from typing import Final, final

# What ``check`` finds.
QUIET: Final = 0
PING: Final = 1
DEAD: Final = 2

_SILENCE: Final = 1.5  # times the keep alive, as the server grants it to clients [MQTT-3.1.2-22]


@final
class KeepAlive:
    """``seconds``: 0 for none; ``wrote``: something was sent since the last ``check``."""

    __slots__ = ("_heard", "_pinged", "_sent", "seconds", "wrote")

    def __init__(self) -> None:
        self.seconds = 0
        self.wrote = False
        self._heard = 0.0
        self._sent = 0.0
        self._pinged = False  # since something was heard

    def begin(self, now: float, seconds: int) -> None:
        """A connection is open."""
        self.seconds = seconds
        self.wrote = False
        self._heard = self._sent = now
        self._pinged = False

    def heard(self, now: float) -> None:
        """Bytes of the server came."""
        self._heard = now
        self._pinged = False

    def silence(self, now: float) -> float:
        """Seconds since something was heard."""
        return now - self._heard

    def check(self, now: float) -> int:
        """What is due at present; the caller does it."""
        if self.wrote:
            self.wrote = False
            self._sent = now
        if self.seconds == 0:
            return QUIET
        if now - self._heard > self.seconds * _SILENCE:
            return DEAD
        half = self.seconds / 2
        if now - self._sent > half or (now - self._heard > half and not self._pinged):
            self._pinged = True
            return PING
        return QUIET
