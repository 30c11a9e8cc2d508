"""Fuzz the broker in this process, then a core with an edge, or a whole mesh through its sockets.

    ./scripts/fuzz --packets 10000000 --sequences 100000 --seed 1
    ./scripts/fuzz --links 1000                      a core and an edge alone: full queues, lost links, crashes
    ./scripts/fuzz --ways 1000000                    the PROXY protocol, requests and frames of WebSocket
    ./scripts/fuzz --sequences 2000 --sockets        against the processes of a mesh, at core and door
    ./scripts/fuzz --seed 1 --round 17               one round again, with the numbers from a failure

It tests the installed package, compiled or not; with PYTHONPATH set to a checkout, its sources. It prints counts while
it runs, and the memory at the start, in the middle and at the end. The exit code is 0 if there was no exception and no
broken rule, if memory did not grow in the second half, and if the neighbours got all of their messages. The checks are
in tests/fuzz, those of core and edge in tests/core/link_world.py. Only packets that the server accepted or refused are
counted. For each 100 sequences of the broker alone, one world of core and edge runs.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

import mesh
import tools.checkout  # noqa: F401
from mesh.version import compiled

# isort: split
from tests.core.link_world import Breach as LinkBreach
from tests.core.link_world import run_link
from tests.fuzz.rounds import SEQUENCES, Failure, rounds, run_round
from tests.fuzz.target_engine import Tally
from tests.fuzz.target_ways import ROUND as CASES
from tests.fuzz.target_ways import run_ways
from tests.fuzz.watch import Breach

SHOW = 10.0  # seconds between two lines
MB = 1 << 20
ENGINE_GROWTH = 16 * MB  # in the second half of a run
MESH_GROWTH = 16 * MB  # of one process
LINK_STEPS = 250  # events of one world of a core and an edge
SEQUENCES_OF_A_LINK = 100
PACKETS = 100  # of one sequence, about


def resident() -> int:
    """Bytes of memory of this process."""
    used: int = psutil.Process().memory_info().rss
    return used


def line(tally: Tally, begun: float) -> str:
    """The counts and rates so far, as a line."""
    seconds = time.monotonic() - begun
    return (
        f"{seconds:6.0f} s  {tally.judged:>10,} packets ({tally.judged / seconds:,.0f} a second; {tally.refused:,}"
        f" refused, {tally.sent:,} sent)  {tally.sequences:>7,} sequences ({tally.sequences / seconds:,.0f} a second)"
        f"  {tally.connections:,} connections  {tally.crashes:,} crashes  {tally.neighbour:,} messages of neighbours"
    )


def fuzz_broker(seed: int, packets: int, sequences: int) -> bool:
    """Run rounds in this process; ``True`` if its memory did not grow."""
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


def fuzz_links(seed: int, worlds: int) -> None:
    """Run worlds of a core and an edge, every third of them calm."""
    logging.getLogger().addHandler(logging.NullHandler())  # each refusal would be a line
    begun = shown = time.monotonic()
    messages = refusals = rejected = 0
    for number in range(worlds):
        try:
            world = run_link(f"{seed}:{number}", LINK_STEPS, calm=number % 3 == 0)
        except LinkBreach as error:
            raise LinkBreach(f"core and edge, world {number}: {error}") from error
        messages, refusals, rejected = messages + world.messages, refusals + world.refusals, rejected + world.rejected
        if time.monotonic() - shown > SHOW or number == worlds - 1:
            shown = time.monotonic()
            print(
                f"{shown - begun:6.0f} s  core and edge: {number + 1:,} of {worlds:,} worlds"
                f" ({(number + 1) * LINK_STEPS:,} events)  {messages:,} messages"
                f"  {refusals:,} refused after the patience  {rejected:,} refused from the spool",
                flush=True,
            )


def fuzz_ways(seed: int, cases: int) -> bool:
    """Run rounds of cases; ``True`` if the memory of this process did not grow."""
    begun = shown = time.monotonic()
    looks: list[int] = []
    ends: Counter[str] = Counter()
    for number in range(-(-cases // CASES)):
        ends += run_ways(seed, number)
        looks.append(resident())
        if time.monotonic() - shown > SHOW or ends.total() >= cases:
            shown = time.monotonic()
            what = ", ".join(f"{count:,} {end}" for end, count in ends.most_common())
            print(f"{shown - begun:6.0f} s  {ends.total():,} cases: {what}", flush=True)
    return flat({"this process": looks}, ENGINE_GROWTH)


def flat(memory: dict[str, list[int]], growth: int) -> bool:
    """Whether no process grew by ``growth`` bytes in the second half; prints the memory of each process."""
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
    """A mesh of two edges, a core and a front door, each in its own process."""
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
    """Run the selected work; ``True`` if memory did not grow. Raises ``Failure``, ``Breach``, ``AssertionError``."""
    if options.round >= 0:
        begun = time.monotonic()
        print(line(run_round(options.seed, options.round, options.of), begun))
        return True
    if options.sockets:
        return asyncio.run(sockets(options.seed, options.sequences or 2000))
    if options.ways:
        return fuzz_ways(options.seed, options.ways)
    links = options.links
    good = True
    if options.packets or options.sequences:
        good = fuzz_broker(options.seed, options.packets, options.sequences)
        if links < 0:
            links = max(1, (options.sequences or options.packets // PACKETS) // SEQUENCES_OF_A_LINK)
    fuzz_links(options.seed, links)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--packets", type=int, default=0, help="how many, at least")
    parser.add_argument("--sequences", type=int, default=0, help="how many, at least")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same packets")
    parser.add_argument("--links", type=int, default=-1, help="how many worlds of a core and an edge")
    parser.add_argument("--ways", type=int, default=0, help="how many cases of what comes before MQTT, and around it")
    parser.add_argument("--sockets", action="store_true", help="fuzz a whole mesh instead of the broker alone")
    parser.add_argument("--round", type=int, default=-1, help="run only this round, of the broker alone")
    parser.add_argument("--of", type=int, default=SEQUENCES, help="number of sequences in a round")
    options = parser.parse_args()
    if not (options.ways or options.packets or options.sequences or options.round >= 0 or options.links >= 0):
        options.packets = 200_000
    print(f"seed {options.seed}, the {'compiled' if compiled() else 'pure'} package of {mesh.__path__[0]}", flush=True)
    try:
        good = run(options)
    except (Failure, Breach, LinkBreach, AssertionError) as error:
        print(f"FAILED with seed {options.seed}: {error}")
        return 1
    print("passed" if good else f"FAILED with seed {options.seed}: memory has grown")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
