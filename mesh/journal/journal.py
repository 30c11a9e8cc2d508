"""The journal: a durable, group-committed log of items. This file is the owner's side of it.

It knows items as ``(id, kind, owner, meta, body)``; it must never know what they mean, MQTT, asyncio, or which caller
waits. What always holds:

- One thread, the owner's, makes every call and runs every callback. The commit thread reaches the owner only through
  ``notify``, and reports in the order of its work.
- The order of calls is the order of the log. A crash leaves the journal in the state after one of the calls, with all
  earlier calls and no later one; that call is at or after ``durable_position``. All records appended between two
  returns to the caller of the callbacks (the loop) are in one batch, which is whole or absent.
- The start reads only indexes and the last segment. Of a written item only its id and place stay in memory.
- ``append`` and ``drop`` touch no file, take no lock and never wait.

``cleaning`` explains why cleaning is safe.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import error as StructError
from typing import Final, final

from isal.isal_zlib import crc32

from mesh.figures.timing import Timing
from mesh.journal.committer import Committer
from mesh.journal.errors import BacklogError, DamageError, JournalError, UnsavedError
from mesh.journal.files import Files, SystemFiles
from mesh.journal.layout import (
    CRC,
    DROP,
    DROP_RECORD,
    DROP_SIZE,
    OFFSET_SHIFT,
    PLACE_MASK,
    PUT,
    PUT_HEAD,
    SEGMENT_SHIFT,
    body_of,
)
from mesh.journal.limits import JournalLimits
from mesh.journal.lock import DirectoryLock
from mesh.journal.manifest import Manifest, Mark, note_damage
from mesh.journal.messages import Clean, Copies, Failed, Handover, Remove, Removed, Report, Unreadable, Written
from mesh.journal.readers import Readers
from mesh.journal.recovery import RecoveredJournal, check_mark, recover
from mesh.journal.segments import Segments
from mesh.journal.status import JournalStatus
from mesh.session.store import Item, Store

_log = logging.getLogger(__name__)

Notify = Callable[[Callable[[], None]], object]

_CRC_SIZE: Final = CRC.size
_pack_put: Final = PUT_HEAD.pack
_pack_drop: Final = DROP_RECORD.pack
_pack_crc: Final = CRC.pack

# Cleaning begins when the disk holds this many bytes for each live byte, and two segments more: then at least half of
# the cleaned bytes are dead on average, so each live byte is copied about once for each byte written, and a small
# journal is not cleaned. A segment without live items is removed one segment sooner, without being read: where messages
# are soon delivered, two files take turns.
_DISK_PER_LIVE: Final = 2
_SPARE_SEGMENTS: Final = 2
_SPARE_SEGMENTS_EMPTY: Final = 1

# Commit times are counted from 64 µs, a fast disk's cache, to 8 s, a disk that is failing (see ``Timing``).
_SHORTEST_COMMIT: Final = 6
_LONGEST_COMMIT: Final = 23

# What cleaning waits for.
_IDLE: Final = 0  # enough dead bytes
_READING: Final = 1  # the thread's next step
_COPIED: Final = 2  # the last copy becoming durable
_REMOVING: Final = 3  # the thread deleting the segment
_HALTED: Final = 4  # nothing: the oldest segment cannot be cleaned


def _ignore_position(_position: int) -> None:
    """The owner waits for no position."""


def _ignore_failure(_error: OSError) -> None:
    """The owner handles no failure; the commit thread has logged it."""


def _ignore_damage(_error: DamageError) -> None:
    """The reader gets the error."""


@final
class Journal(Store):
    """Made by ``Journal.open``.

    ``position`` is the sequence number of the last record, ``durable_position`` that of the last one written and
    synced. ``on_durable`` is called with the latter when it has grown, ``on_failure`` with each error of the disk,
    ``on_damage`` when ``read`` finds damage, which is noted for the next ``open``;
    ``failed`` is the error of the last batch, ``None`` once a batch is written.
    """

    __slots__ = (
        "_buffer",
        "_cleaned_at",
        "_cleaning",
        "_closed",
        "_commit_time",
        "_commits",
        "_committer",
        "_directory",
        "_disk",
        "_files",
        "_halted",
        "_handed",
        "_largest_backlog",
        "_limits",
        "_live_bytes",
        "_live_in",
        "_lock",
        "_manifest",
        "_named",
        "_notify",
        "_oldest",
        "_places",
        "_readers",
        "_recovered",
        "_reports",
        "_segments",
        "_written_to",
        "durable_position",
        "failed",
        "on_damage",
        "on_durable",
        "on_failure",
    )

    def __init__(
        self, directory: Path, limits: JournalLimits, notify: Notify, files: Files, recovered: RecoveredJournal,
        lock: DirectoryLock,
    ) -> None:
        super().__init__(recovered.position)
        self.durable_position: int = recovered.position
        self.failed: OSError | None = None
        self._halted: str = ""
        self.on_durable: Callable[[int], None] = _ignore_position
        self.on_failure: Callable[[OSError], None] = _ignore_failure
        self.on_damage: Callable[[DamageError], None] = _ignore_damage
        self._files = files
        self._directory = directory
        self._limits = limits
        self._lock = lock
        self._notify = notify
        self._reports: deque[Report] = deque()
        self._closed = False

        # The place of a written item; before it is written, the record itself (without its checksum).
        self._places: dict[int, int | bytes] = recovered.places
        self._recovered: dict[int, Item] | None = recovered.items
        self._live_bytes: int = recovered.live_bytes
        self._live_in: dict[int, int] = recovered.live_in
        self._buffer: Handover = Handover(recovered.position + 1)
        self._handed: int = 0  # bytes with the commit thread
        self._largest_backlog: int = limits.backlog

        self._oldest: int = min(recovered.sealed, default=recovered.growing.header.number)
        self._written_to: int = recovered.growing.header.number
        self._cleaning: int = _IDLE
        self._cleaned_at: int = 0

        segments = Segments(
            files, directory, limits.segment, recovered.sealed, recovered.growing, recovered.position,
            recovered.spare, recovered.manifest, recovered.named,
        )  # fmt: skip
        self._manifest: Manifest = recovered.manifest
        self._named: bool = recovered.named  # whether a manifest with this id is on the disk
        self._disk: int = segments.disk
        self._segments: int = segments.count
        self._commits: int = 0
        self._commit_time = Timing(_SHORTEST_COMMIT, _LONGEST_COMMIT)
        self._readers = Readers(files, directory, limits.readers)
        self._committer = Committer(files, directory, limits, segments, self._is_at, self._post)
        self._committer.start()
        self._advance_cleaning()

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        limits: JournalLimits | None = None,
        notify: Notify,
        files: Files | None = None,
        mark: Mark | None = None,
    ) -> Journal:
        """Recover the journal in ``directory``, or begin one there.

        ``notify`` is called from the commit thread and must run the callable in the owner's thread, in order
        (``loop.call_soon_threadsafe``). ``mark`` is what ``mark()`` of this journal returned before, if the caller
        kept it. ``LockedError`` when the directory is open elsewhere, ``DamageError`` when synced bytes have changed or
        are missing, ``OSError`` from the disk.
        """
        layer: Files = files if files is not None else SystemFiles()
        bounds = limits or JournalLimits()
        directory.mkdir(parents=True, exist_ok=True)
        layer.sync_directory(directory.parent)
        lock = DirectoryLock(directory)
        try:
            return cls(directory, bounds, notify, layer, recover(layer, directory, bounds.segment, mark), lock)
        except BaseException:
            lock.release()
            raise

    def mark(self) -> Mark | None:
        """The mark to keep outside of the directory, as of ``open``; ``None`` while the manifest could not be written:
        a mark promises that there is one."""
        return Mark(self._manifest.id.hex(), self._manifest.position) if self._named else None

    def check(self, mark: Mark | None) -> None:
        """Compare a mark that was not known at ``open``: ``DamageError`` when it is of another journal, or says that
        this one is an older copy."""
        if mark is not None:
            check_mark(self._directory, self._manifest, self._manifest.position, mark)

    def live(self) -> Iterator[Item]:
        """The items found by ``open`` that are still live, in the order of their ids, without bodies.

        The journal does not keep them: a second call raises ``JournalError``.
        """
        items, self._recovered = self._recovered, None
        if items is None:
            raise JournalError(f"{self._directory}: live() was called before; call it once, after open")
        return self._iterate(items)

    def _iterate(self, items: dict[int, Item]) -> Iterator[Item]:
        for id in sorted(items):
            item = items.pop(id)
            if id in self._places:
                yield item

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        """Append an item to the log and return its id, which is the record's sequence number.

        ``kind`` is unsigned 8 bit, ``owner`` unsigned 64 bit, ``meta`` below 4 GiB: ``ValueError`` otherwise.
        ``BacklogError`` when too many bytes wait for the disk. In both cases the journal is unchanged.
        """
        id = self.position + 1
        try:
            stub = _pack_put(PUT, kind, len(meta), len(body), id, owner) + meta
        except StructError as error:
            what = f"kind {kind}, owner {owner}, {len(meta)} bytes of meta, {len(body)} bytes of body"
            raise ValueError(f"an item with {what} cannot be stored: {error}") from None
        record = stub + body
        size = len(record) + _CRC_SIZE
        buffer = self._buffer
        start = buffer.size
        end = start + size
        if self._handed + end > self._largest_backlog:
            raise BacklogError(self._handed + start, size, self._largest_backlog)
        buffer.size = end
        buffer.ids.append(id)
        buffer.places.append(start << OFFSET_SHIFT | size)
        parts = buffer.parts
        parts.append(record)
        parts.append(_pack_crc(crc32(record)))
        buffer.stubs.append(stub)
        self._places[id] = record
        self._live_bytes += size
        self.position = id
        return id

    def drop(self, id: int) -> None:
        """Drop an item. The drop is a record with its own sequence number. ``KeyError`` when the item is not live."""
        place = self._places.pop(id)
        if isinstance(place, int):
            self._live_bytes -= place & PLACE_MASK
            self._live_in[place >> SEGMENT_SHIFT] -= 1
        else:
            self._live_bytes -= len(place) + _CRC_SIZE
        record = _pack_drop(DROP, id)
        buffer = self._buffer
        buffer.parts.append(record)
        buffer.stubs.append(record)
        buffer.size += DROP_SIZE
        self.position += 1

    def size(self, id: int) -> int:
        """The bytes of a live item's record. ``KeyError`` when the item is not live."""
        place = self._places[id]
        return place & PLACE_MASK if isinstance(place, int) else len(place) + _CRC_SIZE

    def read(self, id: int) -> bytes:
        """The body of a live item, whether it is written or not.

        ``KeyError`` when the item is not live, ``DamageError`` when the disk returns other bytes than were written,
        ``OSError`` from the disk.
        """
        place = self._places[id]
        if not isinstance(place, int):
            return body_of(place)
        try:
            return self._readers.body(id, place)
        except DamageError as error:
            self._note_damage(error)
            raise

    def _note_damage(self, error: DamageError) -> None:
        """Make sure that the next ``open`` refuses: with an index it reads no body, and would not see the damage."""
        _log.error("journal %s: %s", self._directory, error)
        try:
            note_damage(self._files, self._directory, f"{error.path.name}: {error.what}")
        except OSError as failure:
            _log.error("journal %s: the damage could not be noted: %s", self._directory, failure)
        self.on_damage(error)

    def commit(self) -> None:
        """Hand all buffered records to the commit thread.

        Never waits; records handed over during a commit join the next one.
        """
        buffer = self._buffer
        if self.position < buffer.first:
            return
        if self._closed:
            raise JournalError(f"{self._directory}: the journal is closed")
        buffer.last = self.position
        self._handed += buffer.size
        self._buffer = Handover(self.position + 1)
        self._commits += 1
        self._committer.order(buffer)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the segments, without indexes."""
        return self._disk

    @property
    def backlog_bytes(self) -> int:
        """Bytes appended and not durable yet."""
        return self._handed + self._buffer.size

    def status(self) -> JournalStatus:
        """Figures for people and metrics."""
        failed = self.failed
        return JournalStatus(
            disk_bytes=self._disk,
            live_bytes=self._live_bytes,
            live_items=len(self._places),
            segments=self._segments,
            backlog_bytes=self.backlog_bytes,
            commits=self._commits,
            commit=self._commit_time.value(),
            failing=failed is not None,
            halted=self._halted,
            error="" if failed is None else f"{self._directory}: {failed.strerror or failed}",
        )

    def close(self) -> None:
        """Commit and sync all buffered records and end the thread. Calls the callbacks.

        ``UnsavedError`` when the disk reports an error or does not answer within the limit; in the latter case the lock
        is kept until the process ends, because the thread may still write. A second call does nothing.
        """
        if self._closed:
            return
        self.commit()
        self._closed = True
        ended = self._committer.stop(self._limits.close)
        self._readers.close()
        if ended:
            self._lock.release()
        self._drain()
        if self.backlog_bytes:
            raise UnsavedError(self._directory, self.backlog_bytes, self.failed)

    # Reports of the commit thread.

    def _post(self, report: Report) -> None:
        """Runs in the commit thread."""
        self._reports.append(report)
        try:
            self._notify(self._drain)
        except RuntimeError as error:  # the owner's loop is closed: `close` reads the report
            _log.debug("journal %s: owner not notified: %s", self._directory, error)

    def _drain(self) -> None:
        while self._reports:
            report = self._reports.popleft()
            if isinstance(report, Written):
                self._apply(report)
            elif isinstance(report, Failed):
                self.failed = report.error
                self.on_failure(report.error)
            elif isinstance(report, Copies):
                self._copy(report)
            elif isinstance(report, Removed):
                self._disk = report.disk
                self._segments = report.segments
                self._oldest += 1
                self._cleaning = _IDLE
                self._advance_cleaning()
            else:
                self._halt(report)

    def _apply(self, report: Written) -> None:
        """Record the places of written items: they are read from there from now on."""
        places = self._places
        live_in = self._live_in
        number = report.number
        base = number << SEGMENT_SHIFT | report.offset << OFFSET_SHIFT
        here = 0
        for handover in report.handovers:
            ids, offsets = handover.ids, handover.places
            for index in range(len(ids)):
                id = ids[index]
                before = places.get(id)
                if before is None:
                    continue
                if isinstance(before, int):
                    live_in[before >> SEGMENT_SHIFT] -= 1
                places[id] = base + offsets[index]
                here += 1
            base += handover.size << OFFSET_SHIFT
            self._handed -= handover.size
            self.durable_position = handover.last
        live_in[number] = live_in.get(number, 0) + here
        self._written_to = number
        self._named = True
        self._disk = report.disk
        self._segments = report.segments
        self._commit_time.record(report.duration)
        self.failed = None
        self.on_durable(self.durable_position)
        self._advance_cleaning()

    # Cleaning: the half that decides.

    def _is_at(self, id: int, number: int, place: int) -> bool:
        """Runs in the commit thread, as a hint: whether this is the newest copy of the item."""
        return self._places.get(id) == number << SEGMENT_SHIFT | place

    def _advance_cleaning(self) -> None:
        if self._closed:
            return
        if self._cleaning == _IDLE:
            empty = not self._live_in.get(self._oldest)
            spare = (_SPARE_SEGMENTS_EMPTY if empty else _SPARE_SEGMENTS) * self._limits.segment
            # Once a later segment has been written to, this one is sealed and all its places are known.
            if self._oldest < self._written_to and self._disk > _DISK_PER_LIVE * self._live_bytes + spare:
                if empty:
                    self._all_copied()
                else:
                    self._request_step(self._items_of(self._oldest))
        elif self._cleaning == _COPIED and self.durable_position >= self._cleaned_at:
            self._remove_oldest()

    def _items_of(self, number: int) -> list[tuple[int, int]] | None:
        """The live items of a segment and their places in it; ``None`` when it costs less to read the segment."""
        if len(self._places) > self._limits.picked:
            return None
        found = []
        for id, place in self._places.items():
            if isinstance(place, int) and place >> SEGMENT_SHIFT == number:
                found.append((id, place - (number << SEGMENT_SHIFT)))
        return found

    def _request_step(self, items: list[tuple[int, int]] | None) -> None:
        self._cleaning = _READING
        self._committer.order(Clean(self._oldest, items))

    def _copy(self, report: Copies) -> None:
        """Append the items that are still live to the end of the log, with their ids."""
        if self._closed:
            return
        base = self._oldest << SEGMENT_SHIFT
        buffer = self._buffer
        for id, place, record, stub in report.items:
            if self._places.get(id) != base | place:
                continue
            size = len(record)
            buffer.ids.append(id)
            buffer.places.append(buffer.size << OFFSET_SHIFT | size)
            buffer.parts.append(record)
            buffer.stubs.append(record[:stub])
            buffer.size += size
            self.position += 1
        if not report.finished:
            self.commit()
            self._request_step(None)  # the thread executes orders in turn: it writes these copies before the next step
            return
        self._all_copied()

    def _all_copied(self) -> None:
        """The oldest segment has no live items left; its drops and copies may not be durable yet."""
        self.commit()
        self._cleaning = _COPIED
        self._cleaned_at = self.position
        self._advance_cleaning()

    def _remove_oldest(self) -> None:
        left = self._live_in.pop(self._oldest, 0)
        if left:
            self._live_in[self._oldest] = left
            what = f"{self._directory}: segment {self._oldest} lacks {left} of its live items; the segment is kept"
            self._halt(Unreadable(OSError(errno.EIO, what)))
            return
        self._cleaning = _REMOVING
        self._readers.forget(self._oldest)
        self._committer.order(Remove(self._oldest))

    def _halt(self, report: Unreadable) -> None:
        """Stop cleaning: only an operator can decide about a damaged segment. The log continues and grows."""
        self._cleaning = _HALTED
        self._halted = f"{self._directory}: {report.error.strerror or report.error}"
        _log.error("journal %s: cleaning has stopped: %s", self._directory, report.error)
        self.on_failure(report.error)
