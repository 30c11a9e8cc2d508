"""The filters that this core subscribes to at the edges: the union of its back ends' subscriptions.

It knows filters and their subscription identifiers: never connections. What always holds:

* all plain filters share identifier 1, so that an edge sends a message once however many of them match;
* each shared filter has its own identifier, so that its messages go to members of that group only;
* each plain filter has a second identifier, under which an edge sends its retained messages: so this core can tell
  them from new messages with RETAIN;
* an identifier stands for one filter, also after a restart and for messages that were queued at an edge before it: the
  filter's own identifier is in the journal before an edge gets it, and stays there after the last back end has
  unsubscribed. It is forgotten when ``RETIRED`` other filters, or ``RETIRED_BYTES`` of them, were retired after it
  and no edge has the filter.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Final, final

from mesh.broker.gate import Gate
from mesh.broker.subscriptions import InterestListener
from mesh.core.kinds import IDENTIFIER
from mesh.session.store import Item, Store
from mesh.wire.topics import split_shared

PLAIN: Final = 1
LETTERS: Final = 268_435_455  # the dead letters of an edge; the highest identifier, which no filter gets
RETIRED: Final = 65_536  # a hundred bytes each; by then no edge has a message queued for the oldest
RETIRED_BYTES: Final = 16 << 20  # of their texts: a filter may have 64 KiB
_GATES: Final = 1024  # gates after which the open ones are removed
_CHECKED: Final = 8  # retired filters that one call checks, as disconnected edges may have the oldest of them
# A filter's checksum, masked with _SPAN, gives its identifier. Identifiers go up to 268,435,455 [MQTT-3.8.2.1.2], which
# leaves as many after the last checksum, for filters whose checksums are equal.
_SPAN: Final = 0x7FFFFFF
_IDENTIFIER: Final = struct.Struct("!I")  # then the filter


@final
class FilterIdentifier:
    """The identifier of one filter, and its journal item, which is also the position at which it is durable."""

    __slots__ = ("identifier", "item")

    def __init__(self, identifier: int, item: int) -> None:
        self.identifier = identifier
        self.item = item


@final
class Upstream(InterestListener):
    """``on_change(filter, wanted)`` tells the tier links and returns the gate to wait for, or ``None``. ``held``:
    whether an edge may have a filter; ``retired``: how many filters without a subscriber are remembered."""

    def __init__(
        self,
        store: Store,
        on_change: Callable[[str, bool], Gate | None],
        held: Callable[[str], bool],
        retired: int = RETIRED,
        retired_bytes: int = RETIRED_BYTES,
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._held = held
        self._most_retired = retired
        self._most_bytes = retired_bytes
        self._retired_bytes = 0
        self._wanted: dict[str, FilterIdentifier] = {}
        self._retired: dict[str, FilterIdentifier] = {}  # filters without a subscriber, the longest retired first
        self._own: dict[int, str] = {}  # wanted filters, by their own identifiers
        self._taken: set[int] = set()  # every identifier in the journal
        self._gates: dict[str, Gate] = {}
        self._most_gates = _GATES

    def restore(self, items: Iterable[Item]) -> None:
        """Restore the identifiers from the journal; call it first."""
        for item in items:
            (identifier,) = _IDENTIFIER.unpack_from(item.meta)
            self._taken.add(identifier)
            self._retire(item.meta[_IDENTIFIER.size :].decode(), FilterIdentifier(identifier, item.id))

    def wanted(self, filter: str) -> None:
        """The first back end subscribes to ``filter``."""
        if _is_server_filter(filter):
            return
        assignment = self._retired.pop(filter, None)
        if assignment is None:
            assignment = self._assign(filter)
        else:
            self._retired_bytes -= len(filter)
        self._wanted[filter] = assignment
        self._own[assignment.identifier] = filter
        gate = self._on_change(filter, True)
        if gate is not None:
            if len(self._gates) >= self._most_gates:  # rarely, since it looks at all of them
                self._gates = {name: waiting for name, waiting in self._gates.items() if waiting.pending > 0}
                self._most_gates = 2 * len(self._gates) + _GATES
            self._gates[filter] = gate

    def unwanted(self, filter: str) -> None:
        """The last back end has unsubscribed from ``filter``."""
        if _is_server_filter(filter):
            return
        assignment = self._wanted.pop(filter)
        del self._own[assignment.identifier]
        self._retire(filter, assignment)
        self._gates.pop(filter, None)
        self._on_change(filter, False)
        self._trim()

    def gate(self, filter: str) -> Gate | None:
        """The gate of the edges that have not yet acknowledged ``filter``."""
        gate = self._gates.get(filter)
        return gate if gate is not None and gate.pending > 0 else None

    def filters(self) -> dict[str, FilterIdentifier]:
        """Every wanted filter, with its own identifier."""
        return self._wanted

    def filter_of(self, identifier: int) -> str | None:
        """The wanted filter that an identifier other than PLAIN stands for."""
        return self._own.get(identifier)

    def _assign(self, filter: str) -> FilterIdentifier:
        identifier = PLAIN + 1 + (zlib.crc32(filter.encode()) & _SPAN)
        while identifier in self._taken:
            identifier += 1
        self._taken.add(identifier)
        meta = _IDENTIFIER.pack(identifier) + filter.encode()
        return FilterIdentifier(identifier, self._store.append(IDENTIFIER, 0, meta, b""))

    def _retire(self, filter: str, assignment: FilterIdentifier) -> None:
        self._retired[filter] = assignment
        self._retired_bytes += len(filter)

    def _trim(self) -> None:
        """Forget the filter that was retired first, if there are too many. A filter that an edge may have stays."""
        for _ in range(_CHECKED):
            if len(self._retired) <= self._most_retired and self._retired_bytes <= self._most_bytes:
                return
            filter = next(iter(self._retired))
            assignment = self._retired.pop(filter)
            self._retired_bytes -= len(filter)
            if self._held(filter):
                self._retire(filter, assignment)
            else:
                self._taken.discard(assignment.identifier)
                self._store.drop(assignment.item)


def _is_server_filter(filter: str) -> bool:
    """Whether a filter matches ``$SYS`` topics of this server only, which no edge has."""
    return split_shared(filter)[1].startswith("$")
