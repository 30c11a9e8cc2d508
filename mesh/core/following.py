"""The subscriptions of this core at one edge.

It knows filters, their identifiers and the gates that wait for the edge's answers: never packets or connections. What
always holds:

* a filter that the edge has, or may have because this core asked for it, is in the journal until the edge has confirmed
  its removal: so a crash leaves no filter behind at the edge;
* that record and the filter's identifier are durable before the edge is asked;
* after a connection, the filters are brought up to date in slices: back ends decide how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.gate import Gate
from mesh.broker.letter import ALL
from mesh.core.kinds import TIER_FILTER
from mesh.core.upstream import LETTERS, PLAIN, FilterIdentifier, Upstream
from mesh.session.requests import Request
from mesh.session.store import Item
from mesh.wire.packets import Subscription
from mesh.wire.reasons import is_error, name_of
from mesh.wire.topics import is_shared

# The dead letters of an edge: each goes to one core, which keeps it for the back ends.
_DEAD_LETTERS: Final = f"$share/mesh/{ALL}"

_ASK: Final = 16  # steps of the requests for one filter, see ``broker/work.py``

# Retain handling (MQTT 5.0 section 3.8.3.1).
_RETAINED: Final = 0
_RETAINED_IF_NEW: Final = 1
_NOTHING_RETAINED: Final = 2


def parts_of(item: Item) -> tuple[str, str]:
    """The edge and the filter of a journal item."""
    edge, _, filter = item.meta.decode().partition("\0")
    return edge, filter


@final
class Following:
    """``refused`` says which filter the edge refused last, and why; empty if none on this connection."""

    def __init__(self, edge: str, broker: Broker, upstream: Upstream) -> None:
        self.refused = ""
        self._edge = edge
        self._broker = broker
        self._upstream = upstream
        self._connections = 0  # how many were accepted and lost
        self._held: dict[str, int] = {}  # filters that the edge may have, with their journal items

    def restore(self, filters: dict[str, int]) -> None:
        """Restore the filters from the journal, with their items."""
        self._held = filters

    def has(self, filter: str) -> bool:
        """Whether the edge may have ``filter``."""
        return filter in self._held

    def accepted(self, session_present: bool, ask: Callable[[Request], None]) -> None:
        """The edge has accepted this core: ``ask`` for what brings its filters up to date."""
        self.refused = ""
        self._connections += 1
        ask(Follow(self, _DEAD_LETTERS, Subscription(_DEAD_LETTERS, 1), LETTERS, 0, None))
        self._broker.work.start(self._bring_up_to_date(self._connections, session_present, ask))

    def lost(self) -> None:
        """The edge is disconnected."""
        self._connections += 1

    def _bring_up_to_date(
        self, connection: int, session_present: bool, ask: Callable[[Request], None]
    ) -> Iterator[int]:
        wanted = self._upstream.filters()
        for filter in [*wanted, *[filter for filter in self._held if filter not in wanted]]:
            if self._connections != connection:
                return
            assignment = wanted.get(filter)
            if assignment is not None:
                for request in self._ask(filter, assignment, _RETAINED_IF_NEW, None):
                    ask(request)
            elif session_present:
                ask(self.unwant(filter))
            else:
                self._release(filter)  # the edge has lost it with the session
            yield _ASK

    def want(self, filter: str, gate: Gate) -> list[Request]:
        """A back end subscribes. Returns the requests to the edge; ``gate`` counts the edge until it has answered."""
        gate.pending += 1
        return self._ask(filter, self._upstream.filters()[filter], _RETAINED, gate)

    def unwant(self, filter: str) -> Request:
        """The last back end has unsubscribed from ``filter``. Returns the request to the edge."""
        return Follow(self, filter, None, 0, 0, None)

    def _ask(self, filter: str, assignment: FilterIdentifier, retain_handling: int, gate: Gate | None) -> list[Request]:
        """Subscribe; to a plain filter twice: for retained messages under its own identifier, then for new messages.

        With Retain As Published, so that this core keeps the retained messages for later subscribers.
        """
        position = max(assignment.item, self._hold(filter))
        identifier = assignment.identifier
        if is_shared(filter):
            return [Follow(self, filter, Subscription(filter, 2, False, True), identifier, position, gate)]
        retained = Subscription(filter, 2, True, True, retain_handling)
        new = Subscription(filter, 2, True, True, _NOTHING_RETAINED)
        return [
            Follow(self, filter, retained, identifier, position, None),
            Follow(self, filter, new, PLAIN, position, gate),
        ]

    def _hold(self, filter: str) -> int:
        item = self._held.get(filter, 0)
        if item == 0:
            item = self._broker.store.append(TIER_FILTER, 0, f"{self._edge}\0{filter}".encode(), b"")
            self._held[filter] = item
        return item

    def answered(self, request: Follow, reason: int) -> None:
        """The edge has answered."""
        filter = request.filter
        if is_error(reason):
            self.refused = f"refused {filter}: {name_of(reason)}"
        elif request.subscription is None and filter not in self._upstream.filters():  # else it is asked for again
            self._release(filter)

    def _release(self, filter: str) -> None:
        item = self._held.pop(filter, 0)
        if item:
            self._broker.store.drop(item)

    def discard(self) -> None:
        """The mesh does not have the edge now: so it has no filters."""
        for filter in list(self._held):
            self._release(filter)

    def open(self, gate: Gate) -> None:
        """One edge less is pending at ``gate``."""
        gate.pending -= 1
        if gate.pending == 0:
            self._broker.opened()


@final
class Follow(Request):
    """A request to subscribe or unsubscribe at the edge. ``gate`` waits for the answer."""

    __slots__ = ("_following", "_gate")

    def __init__(
        self, following: Following, filter: str, subscription: Subscription | None, identifier: int, position: int,
        gate: Gate | None,
    ) -> None:
        super().__init__(filter, subscription, identifier, position)
        self._following = following
        self._gate = gate

    def answered(self, reason: int) -> None:
        self._following.answered(self, reason)
        self.abandoned()

    def abandoned(self) -> None:
        if self._gate is not None:
            self._following.open(self._gate)
