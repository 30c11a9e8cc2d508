"""Opening of a node's journal: with the mark that etcd has, so that a lost journal is noticed.

What always holds:

* a folder without a journal becomes a new one only if etcd answers that this node had none;
* a journal that is there opens without etcd; it is compared with the mark as soon as etcd answers, and the mark of
  another journal is never replaced: the next start refuses then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from pathlib import Path
from typing import Final, final

from mesh.journal.errors import NOWHERE, DamageError, JournalError, LockedError
from mesh.journal.files import SystemFiles
from mesh.journal.journal import Journal
from mesh.journal.manifest import Mark
from mesh.journal.recovery import has_journal
from mesh.node.marks import JournalMarks
from mesh.registry.errors import RegistryError, Unavailable

_LOCK_WAIT: Final = 15.0  # seconds for a predecessor that is still ending to release the journal
_MARK_WAIT: Final = 3.0  # seconds for etcd, if the folder has no journal
_MARK_GLANCE: Final = 1.0  # seconds for etcd, if it has one
_AGAIN: Final = 2.0  # seconds between two attempts to reach etcd after the start

log = logging.getLogger(__name__)


@final
class UnknownJournalError(JournalError):
    """There is no journal, and etcd, which knows whether there was one, does not answer."""

    def __init__(self, folder: Path, cause: RegistryError) -> None:
        super().__init__(
            f"{folder}: there is no journal, and only etcd knows whether there was one; the node starts when etcd"
            f" answers ({cause})"
        )


@final
class JournalKeeper:
    """Opens the journal of one node, and keeps its mark. ``trouble`` says in one sentence what is wrong with the mark,
    empty if nothing is."""

    def __init__(self, folder: Path, marks: JournalMarks) -> None:
        self.trouble = ""
        self._folder = folder
        self._marks = marks
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Journal:
        """The journal. Raises ``JournalError`` (``DamageError`` if it is damaged or missing) or ``OSError``."""
        there = has_journal(SystemFiles(), self._folder)
        known, found = True, None
        try:
            found = await self._marks.read(_MARK_GLANCE if there else _MARK_WAIT)
        except RegistryError as error:
            if not there:
                raise UnknownJournalError(self._folder, error) from None
            known = False
        journal = await self._open(found)
        mark = journal.mark()
        try:
            written = known and mark is not None and await self._write(mark)
        except BaseException:  # the start takes too long: the next attempt must not find the lock
            await asyncio.shield(asyncio.to_thread(journal.close))
            raise
        if not written:
            self._task = asyncio.create_task(self._keep(journal, known), name="journal mark")
        return journal

    async def _open(self, mark: Mark | None) -> Journal:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LOCK_WAIT
        while True:
            try:
                return await open_in_thread(self._folder, loop, mark)
            except LockedError:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(0.1)
            except OSError as error:
                if error.errno == errno.EIO:  # the disk has lost what it was given: no other node must wait for it
                    raise DamageError(self._folder, NOWHERE, f"the disk cannot read the journal ({error})") from error
                raise

    async def _keep(self, journal: Journal, known: bool) -> None:
        """Compare and write the mark when etcd answers and the manifest is on the disk."""
        while True:
            await asyncio.sleep(_AGAIN)
            mark = journal.mark()
            if mark is None:
                continue
            try:
                if not known:
                    journal.check(await self._marks.read(_MARK_GLANCE))
                    known = True
            except DamageError as error:
                self._note(f"{error}; the next start will refuse this journal")
                return
            except Unavailable:
                continue
            except RegistryError as error:
                self._note(f"the journal is not compared with its mark in etcd: {error}")
                continue
            if await self._write(mark):
                return

    def _note(self, trouble: str) -> None:
        """Log what is wrong with the mark, once."""
        if trouble != self.trouble:
            log.error("%s", trouble)
        self.trouble = trouble

    async def _write(self, mark: Mark) -> bool:
        try:
            await self._marks.write(mark, _MARK_GLANCE)
        except Unavailable as error:
            log.debug("the mark of the journal in %s is not in etcd yet: %s", self._folder, error)
            return False
        except RegistryError as error:
            self._note(f"the mark of the journal in {self._folder} cannot be written to etcd: {error}")
            return False
        self.trouble = ""
        return True

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def open_in_thread(folder: Path, loop: asyncio.AbstractEventLoop, mark: Mark | None) -> Journal:
    """Open the journal in a thread, since it reads the indexes of all segments. It belongs to this thread afterwards.
    If this call is cancelled, the journal is closed as soon as it is open, so that the next attempt finds no lock."""
    opening = loop.create_task(asyncio.to_thread(Journal.open, folder, notify=loop.call_soon_threadsafe, mark=mark))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: asyncio.Task[Journal]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
