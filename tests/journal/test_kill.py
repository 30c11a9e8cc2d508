"""Repeated kill -9: items reported durable are present, items dropped durably are absent."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.journal.child import LIMITS, body_of
from tests.journal.owner import Owner

ROUNDS = 20
LONGEST_LIFE = 0.25  # seconds from a child's first output to its kill: enough for some hundred commits
DEADLINE = 10.0


def run_and_kill(directory: Path, seed: int, life: float) -> bytes:
    """All output of a child until it is killed."""
    # Run it by its path: another package may have a folder of the same name earlier in the search path.
    command = [sys.executable, str(Path(__file__).with_name("child.py")), str(directory), str(seed)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    said: list[bytes] = []
    end = time.monotonic() + DEADLINE
    while (now := time.monotonic()) < end:
        if select.select([child.stdout], [], [], end - now)[0]:
            piece = os.read(child.stdout.fileno(), 1 << 16)
            assert piece, "the child ended by itself"
            end = end if said else time.monotonic() + life
            said.append(piece)
    child.send_signal(signal.SIGKILL)
    child.wait(DEADLINE)
    with child.stdout as rest:
        said.append(rest.read())
    assert len(said) > 1, "the child printed nothing in time"
    return b"".join(said)


def test_acknowledged_items_and_drops_survive_kill_9(tmp_path: Path) -> None:
    chance = random.Random(2024)
    kept: set[int] = set()
    gone: set[int] = set()
    for seed in range(ROUNDS):
        doubtful: set[int] = set()
        for word in run_and_kill(tmp_path, seed, chance.random() * LONGEST_LIFE).split(b"\n")[:-1]:
            id = int(word[1:])
            if word[:1] == b"+":
                kept.add(id)
            elif word[:1] == b"?":
                doubtful.add(id)
            else:
                gone.add(id)
        owner = Owner(tmp_path, limits=LIMITS)
        found = owner.bodies()
        assert not gone & found.keys()
        assert kept - gone - doubtful <= found.keys()
        for id, body in found.items():
            assert body == body_of(id)
        figures = owner.journal.status()
        assert figures.disk_bytes <= 2 * figures.live_bytes + 8 * LIMITS.segment
        owner.journal.close()
        kept = set(found)
    assert len(gone) > 1000
    assert not (tmp_path / "00000001.log").exists()  # cleaning ran in the meantime
