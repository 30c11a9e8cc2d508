"""A durable, group-committed log of items: ``Journal.open`` is the way in."""

from mesh.journal.errors import BacklogError, DamageError, JournalError, LockedError, UnsavedError
from mesh.journal.files import Files, SystemFiles
from mesh.journal.journal import Journal, Notify
from mesh.journal.limits import JournalLimits

__all__ = [
    "BacklogError",
    "DamageError",
    "Files",
    "Journal",
    "JournalError",
    "JournalLimits",
    "LockedError",
    "Notify",
    "SystemFiles",
    "UnsavedError",
]
