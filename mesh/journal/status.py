"""The status of a journal. Not compiled: ``mesh.figures.status`` reads the types of the fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from mesh.figures.instrument import Distribution, counter, gauge, histogram
from mesh.figures.status import Status


@final
@dataclass(frozen=True, slots=True)
class JournalStatus(Status):
    """``error`` is why the last batch could not be written, ``halted`` why the journal is no longer cleaned; each is
    empty if that does not apply."""

    disk_bytes: Annotated[
        int, gauge("mesh_journal_disk_bytes", "Bytes of the journal's segments, without indexes.", unit="bytes")
    ]
    live_bytes: Annotated[
        int, gauge("mesh_journal_live_bytes", "Bytes of the journal's live records.", unit="bytes")
    ]
    live_items: Annotated[int, gauge("mesh_journal_live_items", "Live items in the journal.")]
    segments: Annotated[int, gauge("mesh_journal_segments", "Segment files of the journal.")]
    backlog_bytes: Annotated[
        int, gauge("mesh_journal_backlog_bytes", "Bytes appended to the journal and not durable yet.", unit="bytes")
    ]
    commits: Annotated[
        int, counter("mesh_journal_handovers_total", "Buffers handed to the commit thread; one sync may cover several.")
    ]
    commit: Annotated[
        Distribution, histogram("mesh_journal_commit_seconds", "Time to write and sync one batch of the journal.")
    ]
    failing: Annotated[bool, gauge("mesh_journal_failing", "Whether the last batch could not be written to the disk.")]
    halted: str = ""
    error: str = ""

    @property
    def synced_batches(self) -> int:
        """Batches written and synced."""
        return self.commit.count
