"""The log of a node: one line per event, in UTC, to standard error or to a file that stays below a size.

It knows how lines look and where they go. What always holds: the loop never waits for a disk: lines go through a
bounded queue to a thread of their own; what does not fit is counted and the count is logged; a text from outside
cannot forge a line; what clients can provoke is bounded per second (``Limited``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from datetime import UTC, datetime
from logging.handlers import QueueHandler, RotatingFileHandler
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from time import monotonic
from typing import Final, final

# At some 200 bytes a line this is 2 MB, and more than a node says in an hour.
QUEUE: Final = 10_000
# Four files of 10 MB hold weeks of a healthy node and are small enough to send to somebody.
FILE_BYTES: Final = 10 << 20
FILES: Final = 4
# Ten lines a second are readable, and enough to see what kind of trouble it is.
PER_SECOND: Final = 10
# For what is queued when the node stops; a disk that hangs may not keep it from stopping.
CLOSE_SECONDS: Final = 2.0


@final
class Logs:
    """The node's logging from its creation to ``close``. ``dropped`` counts lines that did not fit into the queue."""

    def __init__(self, node: str, path: Path | None = None, level: int = logging.INFO) -> None:
        """``path``: the file to write to, its folder is made; ``None``: standard error. ``OSError`` if it cannot be
        written.
        """
        sink: logging.Handler = logging.StreamHandler()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            sink = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES - 1, encoding="utf-8")
        sink.setFormatter(LineFormatter(node))
        self._sink = sink
        self._root = logging.getLogger()
        self._level = self._root.level
        self._handler = _Handler()
        self._writer = Thread(target=_write, args=(self._handler.lines, sink), name="mesh-logs", daemon=True)
        self._writer.start()
        self._root.addHandler(self._handler)
        self._root.setLevel(level)
        self._open = True

    @property
    def dropped(self) -> int:
        """Lines that were lost since the start, because the disk was slower than the events."""
        return self._handler.dropped

    def close(self) -> None:
        """Write what is queued and end the thread. Safe to call twice."""
        if self._open:
            self._open = False
            self._root.removeHandler(self._handler)
            self._root.setLevel(self._level)
            try:
                self._handler.lines.put(None, timeout=CLOSE_SECONDS)
            except Full:
                return  # the disk hangs, and the thread is a daemon
            self._writer.join(CLOSE_SECONDS)
            if not self._writer.is_alive():
                self._sink.close()


def _write(lines: Queue[logging.LogRecord | None], sink: logging.Handler) -> None:
    while (record := lines.get()) is not None:
        sink.handle(record)


class LineFormatter(logging.Formatter):
    """``2026-11-23T23:40:00.123Z edge-1 WARNING mesh.edge: text``, a traceback written out in the same line."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        text = one_line(record.getMessage())
        return f"{at}.{int(record.msecs):03d}Z {self._node} {record.levelname} {record.name}: {text}"


def one_line(text: str) -> str:
    """The text with line breaks and control characters written out, so that it is one line and moves no terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


_PLAIN: Final = logging.Formatter()


class _Handler(QueueHandler):
    """Puts events into the bounded queue; lines are made of them by the thread that writes."""

    def __init__(self) -> None:
        self.lines: Queue[logging.LogRecord | None] = Queue(QUEUE)
        super().__init__(self.lines)
        self.dropped = 0
        self._told = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Fix the text now, as its arguments may change, and let go of the frames of a traceback."""
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{_PLAIN.formatException(record.exc_info)}"
        fixed = copy(record)  # other handlers want theirs as it was
        fixed.msg, fixed.args, fixed.exc_info, fixed.exc_text = text, None, None, None
        return fixed

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.lines.put_nowait(record)
        except Full:
            self.dropped += 1
            return
        if self.dropped > self._told:
            self._told, lost = self.dropped, self.dropped - self._told
            text = f"{lost} lines were lost here: the log could not be written fast enough"
            self.enqueue(logging.LogRecord("mesh.telemetry", logging.WARNING, "", 0, text, None, None))


@final
class Limited:
    """A logger for what a client can provoke: at most ``per_second`` lines in a second, then one line with the number
    of the others.
    """

    def __init__(
        self, logger: logging.Logger, per_second: int = PER_SECOND, clock: Callable[[], float] = monotonic
    ) -> None:
        self._logger = logger
        self._per_second = per_second
        self._clock = clock
        self._since = clock()
        self._lines = 0
        self._more = 0

    def info(self, text: str, *arguments: object) -> None:
        """Log, if this second has room for it."""
        self._log(logging.INFO, text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        """Log, if this second has room for it."""
        self._log(logging.WARNING, text, arguments)

    def flush(self) -> None:
        """Say how many lines were left out so far. For the node's regular tick, and when it stops."""
        if self._more:
            more, self._more = self._more, 0
            self._logger.warning("… %d more suppressed", more)

    def _log(self, level: int, text: str, arguments: tuple[object, ...]) -> None:
        now = self._clock()
        if now - self._since >= 1.0:
            self._since = now
            self._lines = 0
            self.flush()
        if self._lines >= self._per_second:
            self._more += 1
            return
        self._lines += 1
        self._logger.log(level, text, *arguments)
