"""Runs of the broker target, in rounds that can each be replayed by the seed and their number."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from typing import Final

from tests.fuzz.target_engine import Tally, World
from tests.fuzz.watch import insist

SEQUENCES: Final = 500  # in one round: some 50,000 packets
# Objects that a broker may keep when all its sessions have ended: cached routes, figures of $SYS.
_LEFT: Final = 4000


class Failure(Exception):
    """A round failed. The text names the round, the reason and the last packets."""


def run_round(seed: int, number: int, sequences: int = SEQUENCES) -> Tally:
    """Run one broker from its start to the end of all sessions: an edge's in odd rounds, a core's in even ones."""
    world = World(f"{seed}:{number}", edge=number % 2 == 1)
    logging.disable()  # pytest keeps every line
    try:
        before = _objects()
        world.run(sequences)
        world.finish()
        left = _objects() - before
        insist(left < _LEFT, f"{left} objects more than before, though all sessions have ended")
    except Exception as error:
        story = "\n".join(world.story())
        replay = f"scripts/fuzz --seed {seed} --round {number} --of {sequences}"
        raise Failure(f"{type(error).__name__}: {error}\nreplay it with {replay}\n{story}") from error
    finally:
        logging.disable(logging.NOTSET)
    return world.tally


def _objects() -> int:
    gc.collect()
    return sys.getallocatedblocks()


def rounds(seed: int, packets: int, sequences: int) -> Iterator[Tally]:
    """Run rounds until at least ``packets`` were judged and ``sequences`` sent; yields the tally so far."""
    total = Tally()
    number = 0
    while total.judged < packets or total.sequences < sequences:
        total.add(run_round(seed, number))
        number += 1
        yield total
