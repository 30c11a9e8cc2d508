"""The log of a process: one line per event, in UTC, in files whose number and size are bounded.

It knows the format of lines and their files. It must never know their content. What always holds: the thread that logs
never waits for a disk and reads no file: lines go through a queue, bounded in lines and bytes, to a writing thread; a
line that does not fit or cannot be written is counted, and the log shows where and how many; text from outside cannot
forge a line. ``broker/notices`` bounds the lines per second that clients can cause.

The writing thread uses neither the handlers of ``logging`` nor a buffered file: Python takes the locks of both when it
ends, and would wait for ever for a disk that hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import stat
import sys
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from traceback import TracebackException
from typing import Final, final

# At some 200 bytes a line this is 2 MB, and more than a node logs in an hour.
LINES: Final = 10_000
# The memory that a process may use for lines that its disk does not accept.
BYTES: Final = 4 << 20
# Four files of 8 MB hold weeks of a healthy node and are small enough to send.
FILE_BYTES: Final = 8 << 20
FILES: Final = 4
# For the queued lines when the process ends; a disk that hangs must not block the end.
CLOSE_SECONDS: Final = 2.0

# The memory of a line, and of one frame of a traceback, in addition to the text.
_LINE_BYTES: Final = 200
_FRAME_BYTES: Final = 300

_STDERR: Final = 2

_MESH: Final = "mesh"
_NUMBERS: Final = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
}  # fmt: skip


def log_levels() -> dict[str, str]:
    """The levels that are set in this process: ``root``, and the loggers that have a level of their own."""
    known = list(logging.root.manager.loggerDict.items())
    own = {name: logger for name, logger in known if name.startswith("mesh")}
    levels = {name: logger.level for name, logger in own.items() if isinstance(logger, logging.Logger) and logger.level}
    return {name: logging.getLevelName(level) for name, level in {"root": logging.root.level, **levels}.items()}


def set_levels(level: str, modules: Mapping[str, str]) -> None:
    """The levels of this process's log (see ``Logs.take``); without a log nothing changes."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Logs):
            handler.take(level, modules)


@final
class Logs(logging.Handler):
    """The log of this process from its creation to ``close``, which ``logging.shutdown`` calls when Python ends.

    Any thread may log, also a finaliser that runs while another line is put into the queue (the lock is reentrant).
    ``dropped``: lines for which the queue had no room; ``failed``: lines that could not be written.
    """

    def __init__(self, path: Path, level: int = logging.INFO) -> None:
        """Open the file, create its folder, and take the lines of all loggers from ``level`` on.

        If a fatal signal (such as SIGSEGV) ends the process, the stacks of its threads are written to the file, too.
        Raises ``OSError`` if the file cannot be opened.
        """
        super().__init__()
        self.dropped = 0
        self.failed = 0
        self._reported = 0  # the part of these two that the log has reported
        self._file = _File(path)
        self._queue: deque[_Line] = deque()
        self._bytes = 0  # of the lines queued or being written
        self._writing = False
        self._closing = False
        self._changed = Condition()
        self._levels: dict[str, str] = {}  # of the mesh's loggers, as set here
        root = logging.getLogger()
        self._level_before = root.level
        self._writer = Thread(target=self._write, name="mesh-logs", daemon=True)
        self._writer.start()
        root.addHandler(self)
        root.setLevel(level)

    def take(self, level: str, modules: Mapping[str, str]) -> None:
        """Take the lines of the mesh's loggers from ``level`` on; ``modules`` are loggers with levels of their own.
        Lines of libraries below ``info`` are never taken."""
        levels = {_MESH: level, **modules}
        for name in {**self._levels, **levels}:
            logging.getLogger(name).setLevel(_NUMBERS[levels[name]] if name in levels else logging.NOTSET)
        logging.getLogger().setLevel(max(_NUMBERS[level], logging.INFO))
        self._levels = levels

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit without the lock of a handler: ``logging.shutdown`` holds it while it waits for ``close``."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or count it if there is no room. The text is formatted now, as its arguments may change."""
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
        """Wait until the queued lines are written, at most ``seconds``. Blocks: do not call it on a serving loop."""
        end = monotonic() + seconds
        with self._changed:
            while self._queue or self._writing:
                left = end - monotonic()
                if left <= 0.0:
                    return
                self._changed.wait(left)

    def close(self) -> None:
        """Write the queued lines within ``CLOSE_SECONDS`` and end the thread. A second call is harmless."""
        if not self._closing:
            root = logging.getLogger()
            root.removeHandler(self)
            root.setLevel(self._level_before)
            for name in self._levels:
                logging.getLogger(name).setLevel(logging.NOTSET)
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._writer.join(CLOSE_SECONDS)
            if not self._writer.is_alive():  # else the disk hangs, and the daemon thread keeps its file
                self._file.close()
        super().close()

    def _write(self) -> None:
        """The writing thread."""
        while (line := self._next()) is not None:
            self._report_lost(line.dropped_before)
            if not self._put(line.text()):
                self.failed += 1
            with self._changed:
                self._bytes -= line.size
                follows, dropped = bool(self._queue), self.dropped
            if not follows:
                self._report_lost(dropped)
        self._report_lost(self.dropped)

    def _next(self) -> _Line | None:
        """Wait for the next line; ``None`` if the queue is empty and ``close`` was called."""
        with self._changed:
            self._writing = False
            self._changed.notify_all()
            while not self._queue:
                if self._closing:
                    return None
                self._changed.wait()
            self._writing = True
            return self._queue.popleft()

    def _report_lost(self, dropped: int) -> None:
        """Log the number of lines missing at this place: ``dropped`` so far, and those that could not be written."""
        lost = dropped + self.failed - self._reported
        if lost:
            text = f"{lost} lines were lost here: the log could not be written, or not fast enough"
            record = logging.LogRecord("mesh.telemetry.logs", logging.WARNING, "", 0, text, None, None)
            if self._put(_Line(record).text()):
                self._reported += lost

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
    """An event in the queue. ``size``: its approximate memory in bytes."""

    __slots__ = ("_begin", "_created", "_text", "_traceback", "dropped_before", "size")

    def __init__(self, record: logging.LogRecord) -> None:
        self._created = record.created
        self._begin = f"{record.levelname:<7} {record.name}: "
        try:
            self._text = record.getMessage()
        except Exception as error:  # noqa: BLE001 - a wrong format is logged, and must not end the caller
            self._text = f"{record.msg} {record.args} ({error})"
        self._traceback: TracebackException | None = None
        self.dropped_before = 0
        self.size = _LINE_BYTES + sys.getsizeof(self._text)
        if record.exc_info and record.exc_info[1] is not None:
            # It does not keep the frames, and the writing thread reads the source files.
            self._traceback = TracebackException.from_exception(record.exc_info[1], lookup_lines=False, compact=True)
            self.size += _frames(self._traceback) * _FRAME_BYTES

    def text(self) -> str:
        """``2026-11-23T23:40:00.123Z WARNING mesh.edge: text``, with a traceback in the same line."""
        at = datetime.fromtimestamp(self._created, UTC).isoformat(timespec="milliseconds")
        text = self._text
        if self._traceback is not None:
            text = f"{text}\n{''.join(self._traceback.format()).rstrip()}"
        return f"{at.removesuffix('+00:00')}Z {self._begin}{one_line(text)}"


def _frames(traceback: TracebackException | None) -> int:
    """The number of frames in a traceback and in those of its causes."""
    number = 0
    while traceback is not None:
        number += 1 + len(traceback.stack)
        traceback = traceback.__cause__ or traceback.__context__
    return number


def one_line(text: str) -> str:
    """The text with line breaks and control characters escaped: one line, without effect on a terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


@final
class _File:
    """An unbuffered file that is renamed when it is full: ``edge-1.log`` to ``edge-1.log.1`` and so on."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._torn = False  # the last line is incomplete
        self._descriptor = self._open()

    def write(self, data: bytes) -> None:
        """Append a line. Raises ``OSError`` if it is not or only partly written."""
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
        """Close the file. From here on fatal signals are reported on standard error."""
        faulthandler.enable(_STDERR)
        os.close(self._descriptor)

    def _open(self) -> int:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        about = os.fstat(descriptor)
        self._size = about.st_size
        self._full = FILE_BYTES if stat.S_ISREG(about.st_mode) else sys.maxsize  # a pipe does not grow
        faulthandler.enable(descriptor)
        return descriptor

    def _rotate(self) -> None:
        """Start a new file; if that fails, continue with the old one."""
        with contextlib.suppress(OSError):
            for number in range(FILES - 1, 0, -1):
                older = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
                if older.exists():
                    older.replace(self._path.with_name(f"{self._path.name}.{number}"))
            before, self._descriptor = self._descriptor, self._open()
            os.close(before)  # only now: until then a fatal signal may be reported there
