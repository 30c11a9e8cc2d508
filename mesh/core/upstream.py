"""Which topics this core wants from the edges: the union of what its back ends are subscribed to.

It knows filters and the identifiers under which edges send for them: never connections. What always holds:

* all plain filters share identifier 1, so that an edge sends a message once however many of them match;
* each shared filter has an identifier of its own, so that its message goes to a member of that group alone;
* each plain filter has a second identifier, under which an edge sends the retained messages that it has for it: so they
  are told from new ones that ask to be retained;
* an identifier depends on the filter alone, so it means the same after a restart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final, final

from mesh.broker.gate import Gate
from mesh.broker.subscriptions import InterestListener
from mesh.wire.topics import split_shared

PLAIN: Final = 1
_SPAN: Final = 0x7FFFFFF  # identifiers go up to 268,435,455 [MQTT-3.8.2.1.2]


@final
class Upstream(InterestListener):
    """``on_change(filter, wanted)`` tells the tier links; it gives the gate to wait for, or ``None``."""

    def __init__(self, on_change: Callable[[str, bool], Gate | None]) -> None:
        self._on_change = on_change
        self._identifiers: dict[str, int] = {}
        self._own: dict[int, str] = {}  # identifiers that stand for one filter alone
        self._gates: dict[str, Gate] = {}

    def wanted(self, filter: str) -> None:
        """The first back end subscribes to ``filter``."""
        if _of_this_server(filter):
            return
        self._identifiers[filter] = self._choose(filter)
        gate = self._on_change(filter, True)
        if gate is not None:
            self._gates = {name: waiting for name, waiting in self._gates.items() if waiting.pending > 0}
            self._gates[filter] = gate

    def unwanted(self, filter: str) -> None:
        """The last one is gone."""
        if _of_this_server(filter):
            return
        self._own.pop(self._identifiers.pop(filter), None)
        self._gates.pop(filter, None)
        self._on_change(filter, False)

    def gate(self, filter: str) -> Gate | None:
        """The edges that have not yet acknowledged ``filter``."""
        gate = self._gates.get(filter)
        return gate if gate is not None and gate.pending > 0 else None

    def filters(self) -> dict[str, int]:
        """Every filter wanted, with the identifier that is its own."""
        return self._identifiers

    def filter_of(self, identifier: int) -> str | None:
        """The filter that an identifier other than PLAIN stands for."""
        return self._own.get(identifier)

    def _choose(self, filter: str) -> int:
        identifier = PLAIN + 1 + (zlib.crc32(filter.encode()) & _SPAN)
        while self._own.get(identifier, filter) != filter:
            identifier += 1
        self._own[identifier] = filter
        return identifier


def _of_this_server(filter: str) -> bool:
    """Whether a filter asks for figures of this server, which no edge has."""
    return split_shared(filter)[1].startswith("$")
