"""The journal items of a core, sorted by edge, and those that all links share.

It knows the kinds of the core's items: never their use. What always holds: no body is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from mesh.core.arrivals import edge_of as edge_of_incoming
from mesh.core.fleet import edge_and_filters
from mesh.core.following import parts_of
from mesh.core.kinds import FLEET_GIVEN, IDENTIFIER, SPOOL_RELEASED, SPOOLED, TIER_FILTER, TIER_INCOMING, WITHDRAWN
from mesh.core.spool import edge_of
from mesh.session.store import Item


@final
class LinkItems:
    """The items of one tier link. ``filters``: filters with the numbers of their items."""

    def __init__(self) -> None:
        self.spooled: list[Item] = []
        self.incoming: list[Item] = []
        self.filters: dict[str, int] = {}
        self.given: list[Item] = []


@final
class CoreItems:
    """``links`` by edge; ``identifiers``: the subscription identifiers of filters, which all links share;
    ``withdrawn``: the retained messages that edges are to delete."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.links: dict[str, LinkItems] = {}
        self.identifiers: list[Item] = []
        self.withdrawn: list[Item] = []
        for item in items:
            kind = item.kind
            if kind in (SPOOLED, SPOOL_RELEASED):
                self._link(edge_of(item)).spooled.append(item)
            elif kind == TIER_INCOMING:
                self._link(edge_of_incoming(item)).incoming.append(item)
            elif kind == TIER_FILTER:
                edge, filter = parts_of(item)
                self._link(edge).filters[filter] = item.id
            elif kind == FLEET_GIVEN:
                self._link(edge_and_filters(item)[0]).given.append(item)
            elif kind == IDENTIFIER:
                self.identifiers.append(item)
            elif kind == WITHDRAWN:
                self.withdrawn.append(item)

    def _link(self, edge: str) -> LinkItems:
        found = self.links.get(edge)
        if found is None:
            found = self.links[edge] = LinkItems()
        return found
