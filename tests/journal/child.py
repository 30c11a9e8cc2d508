"""A process that appends and drops until it is killed: ``python child.py DIRECTORY SEED``.

It prints ``+id`` when an item is durable, ``?id`` before it drops an item, ``-id`` when the drop is durable.
"""

from __future__ import annotations

import os
import random
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from mesh.journal import Journal, JournalLimits

LIMITS = JournalLimits(segment=16_384, batch=8_192, step=2_048, picked=20)  # sometimes more items than that are live


def body_of(id: int) -> bytes:
    return id.to_bytes(8, "big") * random.Random(id).randrange(1, 60)


def run(directory: Path, seed: int) -> None:
    chance = random.Random(seed)
    calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
    journal = Journal.open(directory, limits=LIMITS, notify=calls.put)
    live = [item.id for item in journal.live()]
    promised: deque[tuple[int, bytes]] = deque()

    def durable(position: int) -> None:
        lines = []
        while promised and promised[0][0] <= position:
            lines.append(promised.popleft()[1])
        os.write(1, b"".join(lines))

    journal.on_durable = durable
    while True:
        for _ in range(chance.randrange(1, 12)):
            id = journal.append(1, 2, b"meta", body_of(journal.position + 1))
            promised.append((id, b"+%d\n" % id))
            live.append(id)
        while len(live) > 60:
            id = live.pop(chance.randrange(len(live)))
            os.write(1, b"?%d\n" % id)
            journal.drop(id)
            promised.append((journal.position, b"-%d\n" % id))
        journal.commit()
        while journal.backlog_bytes > 4_096 or not calls.empty():
            calls.get()()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
