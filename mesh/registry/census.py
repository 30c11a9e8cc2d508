"""The census: how many vehicles of the map each edge owns, and how many stay where the rules would not put them.

It reads all records of the map, a page at a time, within a deadline, and keeps only the counts. It must never know a
topology: ``stray`` tells it which vehicles a rule would put elsewhere. What always holds: a census that has not read
each record says so, and its counts are then lower bounds; a count of 0 in such a census is not known.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient
from mesh.registry.errors import BadRecord, RegistryError, Unavailable
from mesh.registry.keys import Keys
from mesh.registry.record import decode

log = logging.getLogger("mesh.registry.census")

_PAGE: Final = 2000
"""Records in one page: some 0.3 MB. A command has no messages to delay, so its pages are larger than a node's."""

Stray = Callable[[str, str], bool]
"""Whether a vehicle (first) with this edge (second) would get an edge of another pool if it were new."""


@final
@dataclass(frozen=True, slots=True)
class Census:
    """The vehicles by edge. ``strays``: those for which ``stray`` was true. ``exact``: whether each record was read;
    otherwise the counts are lower bounds."""

    edges: dict[str, int] = field(default_factory=dict)
    strays: int = 0
    exact: bool = True

    def owned(self, edges: Iterable[str]) -> dict[str, int]:
        """The vehicles of these edges, without an edge of which the number is not known."""
        counts = {edge: self.edges.get(edge, 0) for edge in edges}
        return {edge: count for edge, count in counts.items() if count or self.exact}


async def census(client: EtcdClient, mesh: str, stray: Stray, seconds: float) -> Census:
    """Count the vehicles of a mesh, as of one revision of etcd. Ends after ``seconds`` with what is counted by then.

    A record that cannot be read may belong to any edge; the first one is logged. Raises RegistryError if etcd gives not
    even the first page; after a later failure the census is not exact.
    """
    tally = _Tally(len(Keys(mesh).vehicles), stray)
    pages = client.pages(Keys(mesh).vehicles, page=_PAGE, timeout=seconds)
    try:
        async with asyncio.timeout(seconds):
            async for page in pages:
                tally.add(page.kvs)
        tally.whole = True
    except TimeoutError:
        if not tally.begun:
            raise Unavailable(f"etcd gave no vehicle of mesh {mesh!r} within {seconds:g} s") from None
    except RegistryError as error:
        if not tally.begun:
            raise
        log.warning("not all vehicles of mesh %s were counted: %s", mesh, error)
    finally:
        await pages.aclose()
    return Census(dict(tally.edges), tally.strays, tally.whole and not tally.unreadable)


@final
class _Tally:
    """The counts so far."""

    def __init__(self, prefix: int, stray: Stray) -> None:
        self._prefix = prefix
        self._stray = stray
        self.edges: Counter[str] = Counter()
        self.strays = 0
        self.unreadable = 0
        self.begun = False
        self.whole = False

    def add(self, entries: Sequence[pb.KeyValue]) -> None:
        self.begun = True
        for entry in entries:
            try:
                record = decode(self._prefix, entry)
            except BadRecord as error:
                if not self.unreadable:
                    log.error("a record of the map cannot be counted: %s", error)
                self.unreadable += 1
                continue
            self.edges[record.edge] += 1
            self.strays += self._stray(record.vehicle, record.edge)
