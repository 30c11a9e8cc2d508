"""What is due in time, once a second: delayed wills, the ends of sessions, the figures of ``$SYS``, and what each part
checks for itself.

It knows which parts have something to do in time: never why. What always holds: work that grows with what is stored is
a job of ``work``, of which there is at most one of each kind; a session ends in time also after an error in this
program at its will.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.catchup import CatchUp
from mesh.broker.counters import BrokerCounters
from mesh.broker.deadletters import DeadLetters
from mesh.broker.dispatcher import Dispatcher
from mesh.broker.figures import Figures
from mesh.broker.persistence import Persistence
from mesh.broker.quotas import Quotas
from mesh.broker.retained import Retained
from mesh.broker.room import Room
from mesh.broker.session import Session
from mesh.broker.sessions import Sessions
from mesh.broker.sharing import Sharing
from mesh.broker.system import SystemTopics
from mesh.broker.work import Work
from mesh.session.message import Message

# Steps of the work, see ``work``.
_EXPIRY: Final = 32  # the end of a session, or its will
_FIGURE: Final = 4  # a figure of $SYS for one receiver


@final
class Due:
    """``tick`` is called once a second."""

    __slots__ = (
        "_announcing", "_catch_up", "_clock", "_counters", "_dispatcher", "_expiring", "_figures",
        "_letters", "_persistence", "_quotas", "_retained", "_room", "_sessions", "_sharing", "_system", "_work",
    )  # fmt: skip

    def __init__(
        self,
        clock: Callable[[], float],
        work: Work,
        counters: BrokerCounters,
        persistence: Persistence,
        sessions: Sessions,
        dispatcher: Dispatcher,
        sharing: Sharing,
        quotas: Quotas,
        retained: Retained,
        letters: DeadLetters,
        catch_up: CatchUp,
        room: Room,
        system: SystemTopics,
        figures: Figures,
    ) -> None:
        self._clock = clock
        self._work = work
        self._counters = counters
        self._persistence = persistence
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._sharing = sharing
        self._quotas = quotas
        self._retained = retained
        self._letters = letters
        self._catch_up = catch_up
        self._room = room
        self._system = system
        self._figures = figures
        self._expiring = False
        self._announcing = False

    def tick(self) -> None:
        """Called once a second: publish wills that are due and end sessions that have expired."""
        now = self._clock()
        if not self._expiring:
            self._expiring = True
            self._work.start(self._expire(now))
        self._sharing.check(now)
        self._quotas.tick()
        self._retained.sweep(now)
        self._letters.tick()
        self._catch_up.tick()
        self._room.check_filling()
        if not self._announcing:
            changed = self._system.refresh(now, self._figures.status)
            if changed:
                self._announcing = True
                self._work.start(self._announce(changed))

    def _expire(self, now: float) -> Iterator[int]:
        """Publish the wills that are due, and end the sessions that have expired."""
        try:
            while True:
                session = self._sessions.next_due(now)
                if session is None:
                    break
                self._expire_one(session, now)
                yield _EXPIRY
        finally:
            self._expiring = False

    def _expire_one(self, session: Session, now: float) -> None:
        """Publish the will if it is due, then end the session if that is due."""
        ended = session.ends and session.ends <= now
        try:
            # [MQTT-3.1.2-8]: no later than the end of the session
            if session.will is not None and (ended or (session.will_due and session.will_due <= now)):
                self._dispatcher.publish_will(session)
                if session.durable and not ended:
                    self._persistence.keep_session(session)
        finally:  # also after an error in this program
            if ended:
                self._counters.expired += 1
                self._sessions.end(session)
            else:
                self._sessions.schedule(session)

    def _announce(self, changed: list[Message]) -> Iterator[int]:
        """Send the figures that have changed to their subscribers."""
        try:
            for message in changed:
                for listener in self._dispatcher.listeners(message):
                    self._dispatcher.announce(message, listener)
                    yield _FIGURE
        finally:
            self._announcing = False
