"""Recovery: after a restart, the parts of the broker get their state from the journal.

It knows which part gets what, and in which order: never the form of the journal's items, which ``ItemReader`` reads.
What always holds: it is complete before the first connection opens; it does its work in slices; a subscription that
access does not allow today ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from mesh.broker.catchup import CatchUp
from mesh.broker.courier import Courier
from mesh.broker.deadletters import DeadLetters
from mesh.broker.dispatcher import Dispatcher
from mesh.broker.enforcement import Enforcement
from mesh.broker.itemreader import ItemReader
from mesh.broker.persistence import Persistence
from mesh.broker.retained import Retained
from mesh.broker.sessions import Sessions
from mesh.broker.settings import Settings
from mesh.session.store import Item

_RETAINED: Final = 8  # steps of a retained message that is restored, see ``work``


@final
class Recovery:
    """``run`` is called once, before all else."""

    __slots__ = (
        "_catch_up", "_clock", "_courier", "_dispatcher", "_enforcement", "_letters", "_persistence", "_retained",
        "_sessions", "_settings",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        persistence: Persistence,
        retained: Retained,
        dispatcher: Dispatcher,
        sessions: Sessions,
        courier: Courier,
        catch_up: CatchUp,
        letters: DeadLetters,
        enforcement: Enforcement,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._persistence = persistence
        self._retained = retained
        self._dispatcher = dispatcher
        self._sessions = sessions
        self._courier = courier
        self._catch_up = catch_up
        self._letters = letters
        self._enforcement = enforcement

    def run(self, items: Iterable[Item], other: list[Item]) -> Iterator[int]:
        """Restore the state from the journal in slices: yields now and then, with the steps of work that were done. The
        items of other kinds are added to ``other``."""
        reader = ItemReader(self._persistence, self._settings.in_flight)
        yield from reader.read(items)
        found = reader.found
        for item, topic, expires, sender in found.retained:
            self._retained.restore(topic, item, expires, sender)
            yield _RETAINED
        for item, topic, deleted in found.tombstones:
            self._dispatcher.tombstones.restore(topic, deleted, item)
            yield _RETAINED
        yield from self._sessions.restore(found, self._clock())
        yield from self._enforcement.run()
        self._courier.pressure.recovered(found.sessions.values())
        self._catch_up.restore(found.interests)
        self._letters.restore(found.letters)
        self._dispatcher.restore(found.fan_outs, found.sessions)
        other += found.other
