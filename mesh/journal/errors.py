"""The errors of a journal. Each message says what was wrong, where, and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

# The offset of damage that concerns a whole file.
NOWHERE: Final = -1


class JournalError(Exception):
    """Base of all errors that the journal itself raises."""


@final
class DamageError(JournalError):
    """Synced bytes do not read back as they were written, or are missing. ``offset`` is in bytes from the file's start,
    ``NOWHERE`` if it does not apply."""

    def __init__(self, path: Path, offset: int, what: str) -> None:
        where = "" if offset == NOWHERE else f" at byte {offset}"
        super().__init__(
            f"{path}: {what}{where}; restore the journal from a copy, or let 'mesh journal verify' say what is lost and"
            " 'mesh journal salvage' start with the rest"
        )
        self.path = path
        self.offset = offset
        self.what = f"{what}{where}"


@final
class LockedError(JournalError):
    """Another process, or another journal of this process, has the directory open."""

    def __init__(self, directory: Path, holder: str) -> None:
        super().__init__(
            f"{directory}: the journal is already open (process {holder or 'unknown'}); a journal has one owner:"
            " end that process first, or use another directory"
        )


@final
class BacklogError(JournalError):
    """The item would make the bytes that wait for the disk exceed the limit. Nothing was appended."""

    def __init__(self, backlog: int, size: int, limit: int) -> None:
        super().__init__(
            f"{backlog} bytes wait to be written and an item of {size} bytes would exceed the limit of {limit};"
            " stop taking messages while `failed` is set or `backlog_bytes` is high"
        )


@final
class UnsavedError(JournalError):
    """The journal was closed before all appended records were durable."""

    def __init__(self, directory: Path, backlog: int, cause: OSError | None) -> None:
        reason = f"the disk says: {cause}" if cause is not None else "the disk did not answer in time"
        super().__init__(f"{directory}: closed with {backlog} bytes not written; {reason}")
