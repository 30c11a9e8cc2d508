"""The keep alive of a client's connection: when a PINGREQ is due, and when the server counts as dead.

It knows times, which its caller passes in seconds; it must never know packets. What always holds: with a keep alive of
n seconds a PINGREQ is due when nothing was sent, or nothing was received, for n / 2 [MQTT-3.1.2-20]; a server that is
silent for 1.5 n is dead. The time of sending is only as exact as the interval between two calls of ``check``, so that
no clock is read for each packet; one second is exact enough for a keep alive of ten.
"""

from __future__ import annotations

from typing import Final, final

# Results of ``check``.
QUIET: Final = 0
PING: Final = 1
DEAD: Final = 2

_SILENCE: Final = 1.5  # times the keep alive, as a server allows its clients [MQTT-3.1.2-22]


@final
class KeepAlive:
    """``seconds``: the keep alive, 0 for none; ``wrote``: bytes were sent since the last ``check``."""

    __slots__ = ("_heard", "_pinged", "_sent", "seconds", "wrote")

    def __init__(self) -> None:
        self.seconds = 0
        self.wrote = False
        self._heard = 0.0
        self._sent = 0.0
        self._pinged = False  # a PINGREQ was due since bytes were last received

    def begin(self, now: float, seconds: int) -> None:
        """A connection begins."""
        self.seconds = seconds
        self.wrote = False
        self._heard = self._sent = now
        self._pinged = False

    def heard(self, now: float) -> None:
        """Bytes from the server were received."""
        self._heard = now
        self._pinged = False

    def silence(self, now: float) -> float:
        """Seconds since bytes were last received."""
        return now - self._heard

    def check(self, now: float) -> int:
        """What the caller must do now: ``QUIET``, ``PING`` or ``DEAD``."""
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
