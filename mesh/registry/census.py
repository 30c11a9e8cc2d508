"""The census: how many vehicles of the map each edge owns, and how many stay where the rules would not put them.

It reads all records of the map, a page at a time, within a deadline, and keeps only the counts. It must never know a
topology: ``stray`` tells it which vehicles a rule would put elsewhere. What always holds: a census that is not complete
says so, and its counts are then lower bounds; nothing is concluded from a count of 0 in such a census.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient
from mesh.registry.errors import BadRecord, RegistryError
from mesh.registry.keys import Keys
from mesh.registry.record import decode

SECONDS: Final = 6.0
"""Less than a command may take for all that it asks (10 s). A million records take about five seconds."""

_PAGE: Final = 2000
"""Records in one page: some 0.3 MB. A command has no messages to delay, so its pages are larger than a node's."""

Stray = Callable[[str, str], bool]
"""Whether a vehicle (first) with this edge (second) would get an edge of another pool if it were new."""


@final
@dataclass(slots=True)
class Census:
    """The vehicles by edge. ``strays``: those for which ``stray`` was true; ``unreadable``: records of another form.
    ``complete``: all records were read, so the counts are exact; otherwise they are lower bounds."""

    edges: dict[str, int] = field(default_factory=dict)
    strays: int = 0
    unreadable: int = 0
    complete: bool = False

    @property
    def vehicles(self) -> int:
        return sum(self.edges.values())

    def owned(self, edges: Iterable[str]) -> dict[str, int]:
        """The vehicles of these edges, without an edge of which the number is not known."""
        counts = {edge: self.edges.get(edge, 0) for edge in edges}
        return {edge: count for edge, count in counts.items() if count or self.complete}

    def number(self, count: int) -> str:
        """One of the counts for people: ``1204``, or ``at least 1204``."""
        return str(count) if self.complete else f"at least {count}"


def never(vehicle: str, edge: str) -> bool:
    """The default: no rule to compare with."""
    return False


async def census(client: EtcdClient, mesh: str, stray: Stray = never, *, seconds: float = SECONDS) -> Census:
    """Count the vehicles of a mesh, as of one revision of etcd. Ends after ``seconds`` with what is counted by then.

    Raises RegistryError if etcd gives not even the first page; a later failure makes the census incomplete.
    """
    keys = Keys(mesh)
    found = Census()
    counts: Counter[str] = Counter()
    first = True
    pages = client.pages(keys.vehicles, page=_PAGE, timeout=seconds)
    try:
        async with asyncio.timeout(seconds):
            async for page in pages:
                first = False
                _count(page.kvs, len(keys.vehicles), stray, found, counts)
        found.complete = True
    except (TimeoutError, RegistryError):
        if first:
            raise
    finally:
        await pages.aclose()
    found.edges = dict(counts)
    return found


def _count(entries: Sequence[pb.KeyValue], prefix: int, stray: Stray, found: Census, counts: Counter[str]) -> None:
    for entry in entries:
        try:
            record = decode(prefix, entry)
        except BadRecord:
            found.unreadable += 1
            continue
        counts[record.edge] += 1
        found.strays += stray(record.vehicle, record.edge)
