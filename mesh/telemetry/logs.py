"""The log of a process: one line per event, in UTC, in files whose number and size are bounded.

It knows how lines look and which files they go to, never what they are about. What always holds: the thread that logs
never waits for a disk and reads no file: lines go through a queue, bounded in lines and bytes, to a thread of their
own; a line that did not fit, or could not be written, is counted, and the log says where and how many; a text from
outside cannot forge a line. What clients can provoke is bounded per second elsewhere (``transport/notices``).

The writing thread uses neither the handlers of ``logging`` nor a buffered file: Python takes the locks of both at its
end, and would wait for ever for a disk that hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import stat
import sys
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from traceback import TracebackException
from typing import Final, final

# At some 200 bytes a line this is 2 MB, and more than a node says in an hour.
LINES: Final = 10_000
# What a process may spend on lines that its disk does not take.
BYTES: Final = 4 << 20
# Four files of 8 MB hold weeks of a healthy node and are small enough to send to somebody.
FILE_BYTES: Final = 8 << 20
FILES: Final = 4
# For what is queued when the process ends; a disk that hangs may not keep it from ending.
CLOSE_SECONDS: Final = 2.0

# What a line, and one frame of a traceback, take in memory beside the text.
_LINE_BYTES: Final = 200
_FRAME_BYTES: Final = 300

_STDERR: Final = 2


@final
class Logs(logging.Handler):
    """The log of this process from its creation to ``close``, which ``logging.shutdown`` calls when Python ends.

    Lines may come from any thread, also from a finaliser that runs while another line is put into the queue (the lock
    is reentrant). ``dropped``: lines for which the queue had no room; ``failed``: lines that could not be written.
    """

    def __init__(self, path: Path, level: int = logging.INFO) -> None:
        """Open the file, make its folder, and take the lines of all loggers from ``level`` on.

        If the process dies of a fatal signal (SIGSEGV and its kin), the stacks of its threads are in the file, too.
        ``OSError`` if the file cannot be opened.
        """
        super().__init__()
        self.dropped = 0
        self.failed = 0
        self._told = 0  # of these two, how many the log has told of
        self._file = _File(path)
        self._queue: deque[_Line] = deque()
        self._bytes = 0  # of the lines that are queued or being written
        self._writing = False
        self._closing = False
        self._changed = Condition()
        root = logging.getLogger()
        self._level_before = root.level
        self._writer = Thread(target=self._write, name="mesh-logs", daemon=True)
        self._writer.start()
        root.addHandler(self)
        root.setLevel(level)

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the lock of a handler: ``logging.shutdown`` holds that while it waits for ``close``."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it if there is no room. The text is made now, as what it shows may change."""
        line = _Line(record)
        with self._changed:
            if len(self._queue) >= LINES or self._bytes + line.size > BYTES or self._closing:
                self.dropped += 1
                return
            line.dropped_before = self.dropped
            self._bytes += line.size
            self._queue.append(line)
            self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        """Wait until all that is queued is written, but no longer than ``seconds``. Not for a loop that serves."""
        end = monotonic() + seconds
        with self._changed:
            while self._queue or self._writing:
                left = end - monotonic()
                if left <= 0.0:
                    return
                self._changed.wait(left)

    def close(self) -> None:
        """Write what is queued, within ``CLOSE_SECONDS``, and end the thread. Safe to call twice."""
        if not self._closing:
            root = logging.getLogger()
            root.removeHandler(self)
            root.setLevel(self._level_before)
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._writer.join(CLOSE_SECONDS)
            if not self._writer.is_alive():  # else the disk hangs, and the thread, a daemon, keeps its file
                self._file.close()
        super().close()

    def _write(self) -> None:
        """What the writing thread does."""
        while (line := self._next()) is not None:
            self._tell(line.dropped_before)
            if not self._put(line.text()):
                self.failed += 1
            with self._changed:
                self._bytes -= line.size
                follows, dropped = bool(self._queue), self.dropped
            if not follows:
                self._tell(dropped)
        self._tell(self.dropped)

    def _next(self) -> _Line | None:
        """Wait for the next line; ``None`` when there is none left and ``close`` was called."""
        with self._changed:
            self._writing = False
            self._changed.notify_all()
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            self._writing = True
            return self._queue.popleft()

    def _tell(self, dropped: int) -> None:
        """Say how many lines are missing at this place: ``dropped`` so far, and those that could not be written."""
        lost = dropped + self.failed - self._told
        if lost:
            text = f"{lost} lines were lost here: the log could not be written, or not fast enough"
            record = logging.LogRecord("mesh.telemetry.logs", logging.WARNING, "", 0, text, None, None)
            if self._put(_Line(record).text()):
                self._told += lost

    def _put(self, text: str) -> bool:
        try:
            self._file.write(f"{text}\n".encode(errors="backslashreplace"))
        except OSError:
            return False
        return True


def lines_lost() -> int:
    """Lines that the logs of this process have lost."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped + handler.failed for handler in handlers if isinstance(handler, Logs))


@final
class _Line:
    """An event on its way into the log. ``size``: what it takes in memory, in bytes, roughly."""

    __slots__ = ("_begin", "_created", "_text", "_trouble", "dropped_before", "size")

    def __init__(self, record: logging.LogRecord) -> None:
        self._created = record.created
        self._begin = f"{record.levelname:<7} {record.name}: "
        try:
            self._text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a wrong format is told, and may not end what logs
            self._text = f"{record.msg} {record.args} ({error})"
        self._trouble: TracebackException | None = None
        self.dropped_before = 0
        self.size = _LINE_BYTES + sys.getsizeof(self._text)
        if record.exc_info and record.exc_info[1] is not None:
            # It lets go of the frames, and leaves it to the writing thread to read the source files.
            self._trouble = TracebackException.from_exception(record.exc_info[1], lookup_lines=False, compact=True)
            self.size += _frames(self._trouble) * _FRAME_BYTES

    def text(self) -> str:
        """``2026-11-23T23:40:00.123Z WARNING mesh.edge: text``, a traceback written out in the same line."""
        at = datetime.fromtimestamp(self._created, UTC).isoformat(timespec="milliseconds")
        text = self._text
        if self._trouble is not None:
            text = f"{text}\n{''.join(self._trouble.format()).rstrip()}"
        return f"{at.removesuffix('+00:00')}Z {self._begin}{one_line(text)}"


def _frames(trouble: TracebackException | None) -> int:
    """Frames in a traceback and in those of its causes."""
    number = 0
    while trouble is not None:
        number += 1 + len(trouble.stack)
        trouble = trouble.__cause__ or trouble.__context__
    return number


def one_line(text: str) -> str:
    """The text with line breaks and control characters written out, so that it is one line and moves no terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


@final
class _File:
    """An unbuffered file that is put aside when it is full: ``edge-1.log``, then ``edge-1.log.1`` and so on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._torn = False  # the last line is not whole
        self._descriptor = self._open()

    def write(self, data: bytes) -> None:
        """Append a line. ``OSError`` if it is not, or not wholly, written."""
        if 0 < self._size > self._full - len(data):
            self._rotate()
        if self._torn:
            data = b"\n" + data
        while data:
            written = os.write(self._descriptor, data)
            self._size += written
            data = data[written:]
            self._torn = bool(data)

    def close(self) -> None:
        """Close the file. From here on fatal signals are told on standard error."""
        faulthandler.enable(_STDERR)
        os.close(self._descriptor)

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        about = os.fstat(descriptor)
        self._size = about.st_size
        self._full = FILE_BYTES if stat.S_ISREG(about.st_mode) else sys.maxsize  # a pipe does not grow
        faulthandler.enable(descriptor)
        return descriptor

    def _rotate(self) -> None:
        """Begin a new file; where that is impossible the old one goes on."""
        with contextlib.suppress(OSError):
            for number in range(FILES - 1, 0, -1):
                older = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
                if older.exists():
                    older.replace(self._path.with_name(f"{self._path.name}.{number}"))
            before, self._descriptor = self._descriptor, self._open()
            os.close(before)  # only now, as a fatal signal may be told in it until then
