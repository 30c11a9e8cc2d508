"""The commit thread: one write and one sync for all hand-overs that wait.

It knows orders and reports; it must never know what an item is. What always holds:

- Orders are executed in turn, so the log has the order of the owner's calls. Hand-overs that wait together become
  one frame.
- A report is posted after its content is true on the disk.
- A batch that fails is retried, unchanged, until it is written or the journal is closed. No later order overtakes it.
- A step of cleaning is bounded, and only one runs at a time; a commit waits for one step at most.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import final

from mesh.journal.cleaning import Cleaner, IsLive, Picker
from mesh.journal.errors import JournalError
from mesh.journal.files import Files
from mesh.journal.limits import JournalLimits
from mesh.journal.messages import (
    Clean,
    Copies,
    Failed,
    Handover,
    Order,
    Remove,
    Removed,
    Report,
    Stop,
    Unreadable,
    Written,
)
from mesh.journal.segments import Segments

_log = logging.getLogger(__name__)


@final
class Committer:
    """Owns the segments while it runs. ``order`` and ``stop`` are called by the owner; ``post`` is called by the
    thread.
    """

    __slots__ = (
        "_cleaner",
        "_directory",
        "_files",
        "_is_live",
        "_last_batch",
        "_limits",
        "_next",
        "_orders",
        "_post",
        "_segments",
        "_stopping",
        "_worker",
    )

    def __init__(
        self,
        files: Files,
        directory: Path,
        limits: JournalLimits,
        segments: Segments,
        is_live: IsLive,
        post: Callable[[Report], None],
    ) -> None:
        self._files = files
        self._directory = directory
        self._limits = limits
        self._segments = segments
        self._is_live = is_live
        self._post = post
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._next: deque[Order] = deque()
        self._stopping = threading.Event()
        self._cleaner: Cleaner | Picker | None = None
        self._last_batch = 0
        # A daemon, so that a process whose owner forgot `close` can still end; reported data is durable either way.
        self._worker = threading.Thread(target=self._run, name=f"journal {directory.name}", daemon=True)

    def start(self) -> None:
        self._worker.start()

    def order(self, order: Order) -> None:
        """Never blocks."""
        self._orders.put(order)

    def stop(self, deadline: float) -> bool:
        """Finish the orders given so far, within ``deadline`` seconds; returns whether the thread has ended."""
        self._stopping.set()
        self._orders.put(Stop())
        self._worker.join(deadline)
        return not self._worker.is_alive()

    def _run(self) -> None:
        try:
            while self._execute(self._next.popleft() if self._next else self._orders.get()):
                pass
        except Exception as error:  # noqa: BLE001 - a bug here: the owner must learn that nothing becomes durable
            _log.exception("the commit thread of %s has ended", self._directory)
            self._post(Failed(OSError(errno.EIO, f"the commit thread has ended: {error!r}", str(self._directory))))
        finally:
            self._end_cleaning()
            self._segments.close()

    def _execute(self, order: Order) -> bool:
        if isinstance(order, Handover):
            return self._commit(self._gather(order))
        if isinstance(order, Clean):
            self._clean(order)
            return True
        if isinstance(order, Remove):
            return self._remove(order.number)
        return False

    def _gather(self, handover: Handover) -> list[Handover]:
        """This hand-over and those queued behind it, up to the limit of a batch."""
        handovers = [handover]
        size = handover.size
        while not self._orders.empty():  # this thread alone takes from the queue, so `get` finds something
            order = self._orders.get()
            if not isinstance(order, Handover) or size + order.size > self._limits.batch:
                self._next.append(order)
                break
            handovers.append(order)
            size += order.size
        return handovers

    def _commit(self, handovers: list[Handover]) -> bool:
        payload = b"".join([part for handover in handovers for part in handover.parts])
        stubs = b"".join([stub for handover in handovers for stub in handover.stubs])
        first = handovers[0].first
        count = handovers[-1].last - first + 1
        wait = self._limits.retry_first
        while True:
            started = time.monotonic()
            try:
                offset = self._segments.append(payload, count, first, stubs)
                break
            except OSError as error:
                _log.error("journal %s: %d bytes not written, will retry: %s", self._directory, len(payload), error)
                self._post(Failed(error))
                if self._stopping.is_set():
                    return False
                self._stopping.wait(wait)
                wait = min(2 * wait, self._limits.retry_longest)
        self._last_batch = len(payload)
        duration = time.monotonic() - started
        segments = self._segments
        self._post(Written(handovers, segments.number, offset, segments.disk, segments.count, duration))
        return True

    def _clean(self, order: Clean) -> None:
        # At least the size of the last batch: else a log under heavy load would grow faster than it is cleaned.
        size = max(self._limits.step, self._last_batch)
        report: Copies | Unreadable
        try:
            if self._cleaner is None:
                self._cleaner = self._cleaner_of(order)
            report = self._cleaner.step(size)
        except OSError as error:
            report = Unreadable(error)
        except JournalError as damage:  # a second type for one name is an error in compiled code
            report = Unreadable(OSError(errno.EIO, str(damage)))
        if isinstance(report, Unreadable) or report.finished:
            self._end_cleaning()
        self._post(report)

    def _cleaner_of(self, order: Clean) -> Cleaner | Picker:
        if order.items is not None:
            return Picker(self._files, self._directory, order.number, order.items)
        length = self._segments.length(order.number)
        return Cleaner(self._files, self._directory, order.number, length, self._is_live)

    def _end_cleaning(self) -> None:
        if self._cleaner is not None:
            self._cleaner.close()
            self._cleaner = None

    def _remove(self, number: int) -> bool:
        try:
            self._segments.remove(number)
        except OSError as error:
            _log.error("journal %s: segment %d not removed, will retry: %s", self._directory, number, error)
            if self._stopping.wait(self._limits.retry_first):
                return True
            self._orders.put(Remove(number))  # behind the queued commits
            return True
        self._post(Removed(self._segments.disk, self._segments.count))
        return True
