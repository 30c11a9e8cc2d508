"""How the process of a node ends: what it leaves behind when it crashes or hangs, and how the next process reads that.

It knows signals, threads and one file in the node's folder: never what the node did. The file ``end`` begins with a
line that names the process and the thread of its event loop. Python's ``faulthandler`` appends to it, in C and without
the interpreter lock: compiled code may hold that lock for as long as it runs, so no Python code of the same process can
notice that it hangs. What always holds:

* a crash (a signal of the processor, or ``abort``) and a hang (``alive`` was not called in time) leave a report with
  the stack of every thread; an exception that ended the event loop leaves a line;
* only the thread of the event loop is held responsible. A kill from outside leaves the first line alone, or a report of
  the main thread, which gets the signals that come from outside;
* a process that stopped in order leaves no file;
* a hang ends the process, even if the file cannot be written.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

CRASH: Final = "crash"
HANG: Final = "hang"
ERROR: Final = "error"
KILLED: Final = "killed"
"""From outside, or with the machine."""

_NOW: Final = "end"
_BEFORE: Final = "end.last"

# Bytes of a report that are read: the stack of the loop's thread, and those of its neighbours.
_REPORT: Final = 64 << 10

# Bytes of the stack on which a crash is reported. A stack overflow leaves no room on the thread's own.
_STACK: Final = 64 << 10

_HEAD: Final = re.compile(r"process (\S+)(?: thread (0x[0-9a-f]+))?")
_FATAL: Final = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
_CURRENT: Final = re.compile(r"^Current thread (0x[0-9a-f]+)", re.MULTILINE)
_TIMEOUT: Final = re.compile(r"^Timeout \(", re.MULTILINE)
_ERROR: Final = re.compile(r"^error: (.*)$", re.MULTILINE)

_random: Final = os.urandom(8).hex()

log = logging.getLogger(__name__)


def process_token() -> str:
    """A text that no other process has: process numbers are used again."""
    return f"{os.getpid()}-{_random}"


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended. ``token`` identifies it; ``how`` is one of the words above; ``responsible``: the thread of
    the event loop caused it; ``what`` is a short text; ``report`` has the stacks."""

    token: str
    how: str
    responsible: bool
    what: str
    report: str


def last_ending(folder: Path) -> Ended | None:
    """How the process before this one ended, if it did not stop in order. ``folder`` is the node's."""
    try:
        with (folder / _BEFORE).open("rb") as file:
            text = file.read(_REPORT).decode(errors="replace")
    except OSError:
        return None
    return _read(text)


def _read(text: str) -> Ended | None:
    head = _HEAD.match(text)
    if head is None:
        return None
    token, thread = head.group(1), head.group(2)
    if found := _ERROR.search(text):
        return Ended(token, ERROR, True, f"an exception ended its event loop: {found.group(1)}", text)
    fatal, late = _FATAL.search(text), _TIMEOUT.search(text)
    if fatal is not None and (late is None or fatal.start() < late.start()):
        current = _CURRENT.search(text)
        responsible = current is not None and thread is not None and int(current.group(1), 16) == int(thread, 16)
        return Ended(token, CRASH, responsible, f"it crashed: {fatal.group(1)}", text)
    if late is not None:
        return Ended(token, HANG, True, "its event loop had stopped", text)
    return Ended(token, KILLED, False, "it was killed", text)


@final
class Ending:
    """The file of this process. One for a process: ``faulthandler`` has one file. ``before``: how the process before
    this one ended; ``None`` if it stopped in order, or there was none."""

    def __init__(self, folder: Path) -> None:
        """Never raises: without a file, reports go to the standard error output."""
        self._path = folder / _NOW
        self._file = -1
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                (folder / _BEFORE).unlink()
            with contextlib.suppress(FileNotFoundError):
                self._path.replace(folder / _BEFORE)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o600)
        except OSError as error:
            log.warning("a crash of this process will not be recorded: %s", error)
        self.before = last_ending(folder)

    def watch(self) -> None:
        """Record crashes from now on. Called in the thread of the event loop, before the loop runs."""
        self._write(f"process {process_token()} thread {threading.get_ident():#x}\n")
        faulthandler.enable(self._target(), all_threads=True)
        _use_signal_stack()

    def alive(self, seconds: float) -> None:
        """The event loop runs. If this is not called again within ``seconds``, the process ends."""
        faulthandler.dump_traceback_later(seconds, file=self._target(), exit=True)

    def failed(self, why: str) -> None:
        """An exception has ended the event loop; the process ends when the time of the last ``alive`` is over."""
        self._write(f"error: {why}\n")

    def stopped(self) -> None:
        """The event loop has ended in order."""
        faulthandler.cancel_dump_traceback_later()
        if self._file < 0:
            return
        faulthandler.enable(2, all_threads=True)
        os.close(self._file)
        self._file = -1
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _target(self) -> int:
        return self._file if self._file >= 0 else 2

    def _write(self, text: str) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):  # a full disk: the node has said so, or will
                os.write(self._file, text.encode(errors="replace"))


class _SignalStack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


_memory: Final[list[ctypes.Array[ctypes.c_char]]] = []  # stacks of threads that may still run: never freed


def _use_signal_stack() -> None:
    """Give this thread a stack for signal handlers: ``faulthandler`` does so only where it was enabled first."""
    if sys.platform != "linux":
        return
    stack = ctypes.create_string_buffer(_STACK)
    wanted = _SignalStack(ctypes.cast(stack, ctypes.c_void_p), 0, _STACK)
    if ctypes.CDLL(None).sigaltstack(ctypes.byref(wanted), None) == 0:
        _memory.append(stack)
