"""An owner's thread without a loop: the test decides when the reports of the commit thread are handled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

from mesh.journal import Files, Journal, JournalLimits
from mesh.journal.manifest import Mark
from mesh.session.store import Item

DEADLINE = 10.0

# Small enough that a handful of items rolls segments and starts cleaning.
TINY = JournalLimits(
    segment=256, batch=512, step=64, backlog=1 << 20, retry_first=0.001, retry_longest=0.004, readers=2
)

# The same, but cleaning reads whole segments.
READING = replace(TINY, picked=0)


Fields = tuple[int, int, int, bytes]  # of an item: id, kind, owner, meta


def fields(item: Item) -> Fields:
    """An item as a value, to compare it."""
    return item.id, item.kind, item.owner, item.meta


class Owner:
    """A journal, and every position and failure that it reported."""

    def __init__(
        self, directory: Path, *, limits: JournalLimits = TINY, files: Files | None = None, mark: Mark | None = None
    ) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.durable: list[int] = []
        self.failures: list[OSError] = []
        self.journal = Journal.open(directory, limits=limits, notify=self._calls.put, files=files, mark=mark)
        self.journal.on_durable = self.durable.append
        self.journal.on_failure = self.failures.append

    def pump(self) -> None:
        """Handle the reports so far."""
        while not self._calls.empty():
            self._calls.get()()

    def until(self, condition: Callable[[], bool]) -> None:
        """Handle reports until the condition holds."""
        end = time.monotonic() + DEADLINE
        while not condition():
            try:
                self._calls.get(timeout=max(0.0, end - time.monotonic()))()
            except Empty:
                raise AssertionError("the condition did not hold in time") from None

    def settle(self) -> None:
        """Commit, and wait until all records are durable and cleaning is idle or halted."""
        self.journal.commit()
        self.until(lambda: self.journal.backlog_bytes == 0 and self.journal._cleaning in (0, 4))

    def bodies(self) -> dict[int, bytes]:
        """The bodies of all live items after open, by id."""
        return {item.id: self.journal.read(item.id) for item in self.journal.live()}
