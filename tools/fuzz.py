"""Fuzz the engine in this process, or a whole mesh through its sockets, until so much has been said.

    ./scripts/fuzz --packets 10000000 --sequences 100000 --seed 1
    ./scripts/fuzz --sequences 2000 --sockets        against the processes of a mesh, at core and door
    ./scripts/fuzz --seed 1 --round 17               one round again, as a failure says

What is under test is the installed package, compiled or not; with PYTHONPATH set to a checkout, its sources. Counts are
printed as it goes, and the memory at the start, in the middle and at the end. Ends with 0 if nothing failed: no
exception, no rule broken, no growth of memory in the second half, and the neighbours got all of their messages. What it
checks is in tests/fuzz; the packets that count are those that the server took or refused.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import psutil

import mesh
import tools.checkout  # noqa: F401
from mesh.version import compiled

# isort: split
from tests.fuzz.rounds import SEQUENCES, Failure, rounds, run_round
from tests.fuzz.target_engine import Tally
from tests.fuzz.watch import Breach

SHOW = 10.0  # seconds between two lines
MB = 1 << 20
ENGINE_GROWTH = 16 * MB  # in the second half of a run
MESH_GROWTH = 16 * MB  # of one process


def resident() -> int:
    """Bytes that this process has in memory."""
    used: int = psutil.Process().memory_info().rss
    return used


def line(tally: Tally, begun: float) -> str:
    """What has been done so far, and how fast."""
    seconds = time.monotonic() - begun
    return (
        f"{seconds:6.0f} s  {tally.judged:>10,} packets ({tally.judged / seconds:,.0f} a second; {tally.refused:,}"
        f" refused, {tally.sent:,} sent)  {tally.sequences:>7,} sequences ({tally.sequences / seconds:,.0f} a second)"
        f"  {tally.connections:,} connections  {tally.crashes:,} crashes  {tally.neighbour:,} messages of neighbours"
    )


def engine(seed: int, packets: int, sequences: int) -> bool:
    """Round after round in this process; whether its memory stayed flat."""
    begun = shown = time.monotonic()
    looks: list[int] = []
    tally = Tally()
    for tally in rounds(seed, packets, sequences):
        looks.append(resident())
        if time.monotonic() - shown > SHOW:
            shown = time.monotonic()
            print(line(tally, begun), f" {looks[-1] / MB:.1f} MB", flush=True)
    print(line(tally, begun))
    return flat({"this process": looks}, ENGINE_GROWTH)


def flat(memory: dict[str, list[int]], growth: int) -> bool:
    """Whether nobody took ``growth`` bytes more in the second half than in the first; says how much all have."""
    good = True
    for name, looks in memory.items():
        middle = len(looks) // 2
        grown = max(looks[middle:]) - max(looks[: middle or 1])
        good = good and grown < growth
        print(
            f"memory of {name}: {looks[0] / MB:.1f} MB at the start, {looks[middle] / MB:.1f} in the middle,"
            f" {looks[-1] / MB:.1f} at the end; {grown / MB:+.1f} in the second half"
        )
    return good


async def sockets(seed: int, sequences: int) -> bool:
    """A mesh of two edges, a core and a front door, each a process of its own."""
    from tests.fuzz.target_sockets import LIMITS, fuzz
    from tests.support.processes import Processes

    with tempfile.TemporaryDirectory(prefix="mesh-fuzz-") as folder:
        group = Path(folder) / "fuzzed"
        group.mkdir()
        running = Processes(group, ["edge-1", "edge-2"], extra=LIMITS)
        try:
            await asyncio.to_thread(running.start)
            begun = time.monotonic()
            tally, watchman = await fuzz(running, seed, sequences, MESH_GROWTH)
        finally:
            await asyncio.to_thread(running.stop)
    print(line(tally, begun))
    return flat(watchman.memory, MESH_GROWTH)


def run(options: argparse.Namespace) -> bool:
    """What the options ask for; whether the memory stayed flat. Raises ``Failure``, ``Breach``, ``AssertionError``."""
    if options.round >= 0:
        begun = time.monotonic()
        print(line(run_round(options.seed, options.round, options.of), begun))
        return True
    if options.sockets:
        return asyncio.run(sockets(options.seed, options.sequences or 2000))
    return engine(options.seed, options.packets, options.sequences)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--packets", type=int, default=0, help="how many, at least")
    parser.add_argument("--sequences", type=int, default=0, help="how many, at least")
    parser.add_argument("--seed", type=int, default=1, help="the same seed says the same")
    parser.add_argument("--sockets", action="store_true", help="a whole mesh, in place of the engine alone")
    parser.add_argument("--round", type=int, default=-1, help="this round of the engine only")
    parser.add_argument("--of", type=int, default=SEQUENCES, help="how many sequences a round has")
    options = parser.parse_args()
    if not (options.packets or options.sequences or options.round >= 0):
        options.packets = 200_000
    print(f"seed {options.seed}, the {'compiled' if compiled() else 'pure'} package of {mesh.__path__[0]}", flush=True)
    try:
        good = run(options)
    except (Failure, Breach, AssertionError) as error:
        print(f"FAILED with seed {options.seed}: {error}")
        return 1
    print("as it should be" if good else f"FAILED with seed {options.seed}: the memory has grown")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
