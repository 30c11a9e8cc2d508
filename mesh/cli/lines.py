"""Lines on the terminal about a mesh: the progress of its start, and its logs."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final, final

from mesh.cluster.run import FAILED
from mesh.cluster.status import DAMAGED, MeshStatus

# Bytes of one log that are shown at a time, so that a node that logs without pause does not delay Ctrl-C.
_AT_A_TIME: Final = 64 << 10


@final
class Progress:
    """Prints a line on stderr when a node's state changes. Raises ``KeyboardInterrupt`` when asked to stop."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._shown: dict[str, tuple[str, str]] = {}
        self._end = threading.Event()

    def stop_when(self, end: threading.Event) -> None:
        self._end = end

    def __call__(self, status: MeshStatus) -> None:
        for row in status.nodes:
            now = (row.state, row.detail if row.state in (FAILED, DAMAGED) else "")
            if self._shown.get(row.name) != now:
                self._shown[row.name] = now
                seconds = time.monotonic() - self._begun
                said = ": ".join(part for part in now if part)
                print(f"{seconds:6.1f} s  {row.role:<5} {row.name:<16} {said}", file=sys.stderr)
        if self._end.is_set():
            raise KeyboardInterrupt


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
