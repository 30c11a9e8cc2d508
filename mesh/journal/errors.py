"""What can go wrong with a journal, as types. Each message says what was wrong, where, and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import final


class JournalError(Exception):
    """Base of every error that the journal raises for its own reasons."""


@final
class DamageError(JournalError):
    """Bytes that were synced once do not read back as they were written. ``offset`` is in bytes from the file's
    start.
    """

    def __init__(self, path: Path, offset: int, what: str) -> None:
        super().__init__(
            f"{path}: {what} at byte {offset};"
            " restore this file from a copy, or move the whole journal away to start empty"
        )
        self.path = path
        self.offset = offset


@final
class LockedError(JournalError):
    """Another process, or another journal of this process, has the directory open."""

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(
            f"{directory}: the journal is open already (process {holder or 'unknown'}); one journal has one owner:"
            " end that process first, or name another directory"
        )


@final
class BacklogError(JournalError):
    """So many bytes wait for the disk that one more item would pass the limit. Nothing was appended."""

    def __init__(self, backlog: int, size: int, limit: int) -> None:
        super().__init__(
            f"{backlog} bytes wait to be written and an item of {size} bytes would pass the limit of {limit};"
            " stop taking messages while `failed` is set or `backlog_bytes` is high"
        )


@final
class UnsavedError(JournalError):
    """The journal was closed before all that was appended could be made durable."""

    def __init__(self, directory: Path, backlog: int, cause: OSError | None) -> None:
        reason = f"the disk says: {cause}" if cause is not None else "the disk did not answer in time"
        super().__init__(f"{directory}: closed with {backlog} bytes not written; {reason}")
