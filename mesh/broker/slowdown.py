"""Publishers wait while a connected receiver is behind: a core at an edge, and a back end at a core.

It knows receivers, how much waits for them, and the receipts of publishes: never messages. What always holds:

* only the answer to a publish waits: the message is queued, so nothing is lost and nothing changes its place;
* the answers wait until the queue of the receiver has drained, the receiver disconnects, or ``queue_patience`` seconds
  have passed. The patience is granted once until the queue has drained, so a receiver that reads too slowly delays
  publishers once. A vehicle whose answers wait stops publishing at its receive maximum;
* a turn releases a bounded number of answers: tens of thousands may wait for one receiver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mesh.broker.principal import BACKEND, TIER
from mesh.broker.session import Session
from mesh.broker.settings import Settings
from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt

BEHIND: Final = 64  # messages that wait for a receiver, and a window of it, above which it is behind
BYTES_BEHIND: Final = 1 << 20  # bytes for a receiver, above which it is behind

_PORTION: Final = 256  # receivers that one turn checks
RELEASED: Final = 2048  # answers that one turn releases: a few milliseconds
_ANSWERS: Final = 65_536  # that wait for one receiver; the publishers' receive maximum bounds them too


@final
class Delay:
    """The answers that wait for one receiver, since a time in seconds since 1970. ``spent``: the patience is over."""

    __slots__ = ("receipts", "since", "spent")

    def __init__(self, since: float) -> None:
        self.receipts: list[Receipt] = []
        self.since = since
        self.spent = False


@final
class Slowdown:
    """``answered`` is called for each answer that waits no longer, ``released`` after some of them."""

    __slots__ = ("_clock", "_delays", "_due", "_settings", "answered", "released")

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._delays: dict[Session, Delay] = {}  # those that were checked last are at the end
        self._due: Fifo[Receipt] = Fifo()  # they wait no longer, and are released in the order of their arrival
        self.answered: Callable[[Receipt], None] = _nothing
        self.released: Callable[[], None] = _never

    def __len__(self) -> int:
        """How many answers wait."""
        return len(self._due) + sum(len(delay.receipts) for delay in self._delays.values())

    def wait(self, session: Session, from_tier: bool, receipt: Receipt) -> None:
        """A message was queued for a connected session that is behind: its publisher waits. ``from_tier``: it came over
        a tier link."""
        if session.kind != TIER and not (session.kind == BACKEND and from_tier):
            return
        delay = self._delays.get(session)
        if delay is None:
            delay = self._delays[session] = Delay(self._clock())
        if not delay.spent and len(delay.receipts) < _ANSWERS:
            receipt.pending += 1
            delay.receipts.append(receipt)

    def serve(self) -> bool:
        """At the end of a turn: release the answers that need not wait any longer. Returns whether some are left for
        the next turn."""
        if self._delays:
            self._check()
        due = self._due
        if not due:
            return False
        for _ in range(min(len(due), RELEASED)):
            receipt = due.popleft()
            receipt.pending -= 1
            self.answered(receipt)
        self.released()
        return bool(due)

    def _check(self) -> None:
        """Check the receivers that were not checked for the longest time."""
        checked: list[Session] = []
        for session in self._delays:
            checked.append(session)
            if len(checked) == _PORTION:
                break
        now = self._clock()
        for session in checked:
            delay = self._delays.pop(session)
            drained = _drained(session)
            if not drained:
                self._delays[session] = delay
            if drained or now - delay.since >= self._settings.queue_patience:
                delay.spent = True
                receipts, delay.receipts = delay.receipts, []
                for receipt in receipts:
                    self._due.append(receipt)


def _drained(session: Session) -> bool:
    outbound = session.outbound
    waiting = len(outbound.waiting)
    if session.connection is None or waiting == 0:
        return True
    return 2 * waiting <= max(BEHIND, outbound.window) and outbound.bytes <= BYTES_BEHIND


def _nothing(receipt: Receipt) -> None:
    """There is no broker yet."""


def _never() -> None:
    """No other part waits for receipts."""
