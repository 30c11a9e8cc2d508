"""Puts per second of the journal and of SQLite, and the speed that another thread keeps at the same time.

Both store 100 items of 200 bytes for each synced batch, one batch after another. SQLite is in WAL mode with
``synchronous=FULL`` and gets one packed row for each batch. A second thread counts in pure Python: its remaining speed
shows how much an event loop is slowed while the disk is written; it also includes the time that the writer takes to
append. The journal is measured twice: waiting for each sync (a quiet node), and appending as fast as possible.

    ./scripts/measure journal [DIRECTORY] [SECONDS]
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from mesh.journal import Journal

ITEMS = 100
BODY = bytes(200)
META = bytes(24)


class Spinner:
    """A thread that counts."""

    def __init__(self) -> None:
        self.turns = 0
        self._on = True
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def _spin(self) -> None:
        while self._on:
            self.turns += 1

    def __enter__(self) -> Spinner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._on = False
        self._thread.join(5)


def run_for(seconds: float, batch: Callable[[], None]) -> tuple[int, float]:
    """Batches done, and the seconds they took."""
    count = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        batch()
        count += 1
    return count, elapsed


class JournalStore:
    def __init__(self, directory: Path) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.journal = Journal.open(directory / "journal", notify=self._calls.put)

    def batch(self) -> None:
        """Append, commit and wait for the sync."""
        journal = self.journal
        for _ in range(ITEMS):
            journal.append(1, 7, META, BODY)
        journal.commit()
        while journal.durable_position < journal.position:
            self._calls.get()()

    def stream(self) -> None:
        """Append and commit; wait only when a megabyte is not synced yet."""
        journal = self.journal
        for _ in range(ITEMS):
            journal.append(1, 7, META, BODY)
        journal.commit()
        while journal.backlog_bytes > 1 << 20 or not self._calls.empty():
            self._calls.get()()

    def close(self) -> None:
        self.journal.close()


class SqliteStore:
    def __init__(self, directory: Path) -> None:
        self._base = sqlite3.connect(directory / "rows.db", isolation_level=None)
        self._base.execute("pragma journal_mode=wal")
        self._base.execute("pragma synchronous=full")
        self._base.execute("create table batches (id integer primary key, packed blob)")

    def batch(self) -> None:
        row = b"".join([META + BODY for _ in range(ITEMS)])
        self._base.execute("insert into batches (packed) values (?)", (row,))

    def close(self) -> None:
        self._base.close()


def alone(seconds: float) -> float:
    """Turns per second of the spinner alone."""
    with Spinner() as spinner:
        time.sleep(seconds)
        return spinner.turns / seconds


def measure(batch: Callable[[], None], seconds: float) -> tuple[float, float, float]:
    """Puts/s alone; then puts/s beside a spinner, and the share of its speed that the spinner keeps."""
    count, elapsed = run_for(seconds, batch)
    before = alone(seconds / 2)
    with Spinner() as spinner:
        beside, both = run_for(seconds, batch)
        turns = spinner.turns / both
    full = (before + alone(seconds / 2)) / 2
    return count * ITEMS / elapsed, beside * ITEMS / both, turns / full


def main() -> None:
    base = sys.argv[1] if len(sys.argv) > 1 else None
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    print(f"{'store':<34}{'puts/s':>10}{'puts/s beside a spinner':>26}{'spinner keeps':>15}")
    with tempfile.TemporaryDirectory(dir=base) as name:
        journal = JournalStore(Path(name))
        sqlite = SqliteStore(Path(name))
        rows: list[tuple[str, Callable[[], None]]] = [
            ("journal, each batch waited for", journal.batch),
            ("journal, handed over", journal.stream),
            ("SQLite WAL FULL, one packed row", sqlite.batch),
        ]
        for label, batch in rows:
            puts, beside, share = measure(batch, seconds)
            print(f"{label:<34}{puts:>10,.0f}{beside:>26,.0f}{share:>14.0%}")
        journal.close()
        sqlite.close()


if __name__ == "__main__":
    main()
