"""kill -9, again and again: what was reported durable is there, what was dropped durably is not."""

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
LONGEST_LIFE = 0.25  # of a child after its first word, in seconds: enough for some hundred commits
DEADLINE = 10.0


def live_and_die(directory: Path, seed: int, life: float) -> bytes:
    """Everything that a child said before it was killed."""
    # By its path: another package, too, may have left a folder of this name where Python looks first.
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
    assert len(said) > 1, "the child said nothing in time"
    return b"".join(said)


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    chance = random.Random(2024)
    kept: set[int] = set()
    gone: set[int] = set()
    for seed in range(ROUNDS):
        doubtful: set[int] = set()
        for word in live_and_die(tmp_path, seed, chance.random() * LONGEST_LIFE).split(b"\n")[:-1]:
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
    assert not (tmp_path / "00000001.log").exists()  # cleaning was at work in the meantime
