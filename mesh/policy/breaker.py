"""A circuit breaker: a server that does not answer is left alone for a while, so that its clients need not wait.

It knows successes, failures and the time that it is told. What always holds: after ``FAILURES`` failures without a
success between no question passes for a pause, which doubles up to ``LONGEST``; after the pause one question at a time
passes, and the first success ends it all.
"""

from __future__ import annotations

from typing import Final, final

FAILURES: Final = 10
PAUSE: Final = 1.0  # seconds; an outage of a moment costs no more
LONGEST: Final = 30.0  # seconds

CLOSED, OPEN, TRYING = range(3)
NAMES: Final = ("closed", "open", "trying")

PASS, FAIL, SUCCEED, GIVE_UP = range(4)

# State and event -> the next state. A question passes if ``PASS`` has an entry, and the pause is over.
_MOVES: Final = {
    (CLOSED, PASS): CLOSED,
    (CLOSED, SUCCEED): CLOSED,
    (CLOSED, FAIL): OPEN,  # the last of ``FAILURES``
    (CLOSED, GIVE_UP): CLOSED,
    (OPEN, PASS): TRYING,
    (OPEN, SUCCEED): CLOSED,  # of a question from before
    (OPEN, FAIL): OPEN,
    (OPEN, GIVE_UP): OPEN,
    (TRYING, SUCCEED): CLOSED,
    (TRYING, FAIL): OPEN,
    (TRYING, GIVE_UP): OPEN,  # the one that tried was cancelled
}


@final
class Breaker:
    """Times are in seconds, from any start."""

    __slots__ = ("_failures", "_pause", "_until", "opened", "state")

    def __init__(self) -> None:
        self.state = CLOSED
        self.opened = 0
        self._failures = 0
        self._pause = PAUSE
        self._until = 0.0

    def passes(self, now: float) -> bool:
        """Whether a question may be asked; if so, ``succeeded``, ``failed`` or ``gave_up`` must follow."""
        if (self.state, PASS) not in _MOVES or (self.state == OPEN and now < self._until):
            return False
        self.state = _MOVES[self.state, PASS]
        return True

    def succeeded(self) -> None:
        """The server has answered."""
        self._failures = 0
        self._pause = PAUSE
        self.state = _MOVES[self.state, SUCCEED]

    def failed(self, now: float) -> None:
        """The server has not answered."""
        self._failures += 1
        if self.state == CLOSED and self._failures < FAILURES:
            return
        if self.state == TRYING:
            self._pause = min(2 * self._pause, LONGEST)
        if self.state != OPEN:  # the failures of questions from before do not prolong the pause
            self.opened += 1
            self._until = now + self._pause
        self.state = _MOVES[self.state, FAIL]

    def gave_up(self) -> None:
        """The client that asked is gone, so that the answer is not known."""
        self.state = _MOVES[self.state, GIVE_UP]
