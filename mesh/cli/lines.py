"""Lines on the terminal about a mesh: the progress of its start, and its logs."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final, final

from mesh.cluster.run import FAILED, STOPPING
from mesh.cluster.status import DAMAGED, READY, MeshStatus, NodeRow

# Bytes of one log that are shown at a time, so that a node that logs without pause does not delay Ctrl-C.
_AT_A_TIME: Final = 64 << 10

# Seconds without a line until the user is told what a command waits for, and until the same is said again.
_QUIET: Final = 2.0
_AGAIN: Final = 15.0


@final
class Progress:
    """Prints a line on stderr when a node's state changes, and what is waited for while nothing does. Raises
    ``KeyboardInterrupt`` when asked to stop."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._shown: dict[str, tuple[str, str]] = {}
        self._end = threading.Event()
        self._waiting = Waiting(self._begun)

    def stop_when(self, end: threading.Event) -> None:
        self._end = end

    def __call__(self, status: MeshStatus) -> None:
        for row in status.nodes:
            now = (row.state, row.detail if row.state in (FAILED, DAMAGED) else "")
            if self._shown.get(row.name) != now:
                self._shown[row.name] = now
                said = ": ".join(part for part in now if part)
                self._waiting.show(f"{row.role:<5} {row.name:<16} {said}")
        self._waiting("; ".join(status.notes) or _waited(status))
        if self._end.is_set():
            raise KeyboardInterrupt


def _waited(status: MeshStatus) -> str:
    """What a mesh that starts waits for."""
    waits = [f"{row.name} ({_why(row)})" for row in status.nodes if row.state not in (READY, DAMAGED)]
    return f"waits for {', '.join(waits)}" if waits else ""


def _why(row: NodeRow) -> str:
    """A front door that stops sends its connections away, one after another."""
    if row.state == STOPPING and row.connections:
        return f"{STOPPING}, {row.connections} connections left"
    return row.detail or row.state


@final
class Waiting:
    """Prints on stderr what a command waits for: when nothing was printed for ``_QUIET`` seconds and it is new, and
    again every ``_AGAIN`` seconds."""

    def __init__(self, begun: float | None = None) -> None:
        self._begun = time.monotonic() if begun is None else begun
        self._printed = self._begun
        self._last = ""

    def __call__(self, line: str) -> None:
        silent = time.monotonic() - self._printed
        if line and silent > (_AGAIN if line == self._last else _QUIET):
            self._last = line
            self.show(line)

    def show(self, line: str) -> None:
        """Print a line now, with the seconds since the begin."""
        self._printed = time.monotonic()
        print(f"{self._printed - self._begun:6.1f} s  {line}", file=sys.stderr, flush=True)


@final
class LineFollower:
    """Prints the new lines of all logs in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = {path: path.stat().st_size for path in folder.glob("*.log")}

    def show(self) -> None:
        for path in sorted(self._folder.glob("*.log")):
            place = self._places.get(path, 0)
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size < place:
                    place = 0  # the log was rotated
                file.seek(place)
                text = file.read(_AT_A_TIME)
            whole = text[: text.rfind(b"\n") + 1]
            self._places[path] = place + len(whole)
            for line in whole.decode(errors="replace").splitlines():
                print(f"{path.stem:<12} {line}", flush=True)
