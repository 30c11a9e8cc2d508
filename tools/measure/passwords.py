"""How long a fleet needs to log in with passwords after all its connections were lost, and what the loop notices.

All vehicles come within ``--within`` seconds, to one front door's provider of passwords that remembers nothing, on all
processors of this machine. One that is told that the server is busy comes again after one to ``--again`` seconds. It
prints the time until all are admitted, how often vehicles were sent away, and how late the loop's timers were
meanwhile; then the same for vehicles whose proof is remembered. Sockets and TLS are left out: they are measured by
other means.

    ./scripts/measure passwords [--vehicles 20000] [--cost made|chosen|MEMORY,TIME]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import uvloop

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy.attempts import Attempts
from mesh.policy.chain import Chain
from mesh.policy.hashes import CHOSEN, MADE, Cost, make_hash
from mesh.policy.passwordfile import write_passwords
from mesh.policy.passwords import Passwords
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect

SAMPLE = 0.01  # seconds between two timers of the loop
COSTS = {"made": MADE, "chosen": CHOSEN}


class Storm(NamedTuple):
    """Seconds until all were admitted, how often one was sent away, and how late timers were, in milliseconds."""

    seconds: float
    busy: int
    median: float
    p99: float
    worst: float


def cost_of(text: str) -> Cost:
    if text in COSTS:
        return COSTS[text]
    memory, time = text.split(",")
    return Cost(int(time), int(memory))


async def storm(chain: Chain, names: list[str], within: float, again: float) -> Storm:
    dice, busy, late = random.Random(7), 0, list[float]()

    async def vehicle(number: int, name: str) -> None:
        nonlocal busy
        await asyncio.sleep(dice.random() * within)
        while True:
            try:
                found = chain.decide(Connect(username=name, password=b"password"), Peer(f"10.0.{number % 250}.7", 5))
                if not isinstance(found, Claim):
                    await found
                return
            except Refused:
                busy += 1
                await asyncio.sleep(1 + dice.random() * (again - 1))

    async def watch() -> None:
        while True:
            due = time.perf_counter() + SAMPLE
            await asyncio.sleep(SAMPLE)
            late.append(max(0.0, time.perf_counter() - due) * 1000)

    begun = time.perf_counter()
    fleet = [asyncio.create_task(vehicle(number, name)) for number, name in enumerate(names)]
    await asyncio.sleep(0)  # to make so many tasks takes a while, which is not what is measured
    watcher = asyncio.create_task(watch())
    await asyncio.gather(*fleet)
    watcher.cancel()
    late.sort()
    p99 = late[len(late) * 99 // 100]
    return Storm(time.perf_counter() - begun, busy, statistics.median(late), p99, late[-1])


async def measure(count: int, cost: Cost, within: float, again: float, folder: Path) -> None:
    names = [f"VIN{number:06}" for number in range(count)]
    begun = time.perf_counter()
    hash = make_hash(b"password", cost)
    took = (time.perf_counter() - begun) * 1000
    write_passwords(folder / "passwords.txt", dict.fromkeys(names, hash))
    provider = Passwords("file", folder / "passwords.txt", lambda connect: connect.username or "", Attempts(20))
    await provider.start()
    chain = Chain((provider,))
    print(f"argon2id m={cost.memory} KiB, t={cost.time}: {took:.2f} ms for one alone; {count} vehicles in {within:g} s")
    for what in ("not remembered", "remembered"):
        found = await storm(chain, names, within, again)
        print(
            f"{what}: all admitted after {found.seconds:.1f} s, {found.busy} times one was sent away; "
            f"timers late by {found.median:.1f} / {found.p99:.1f} / {found.worst:.1f} ms (p50 / p99 / worst)"
        )
    await provider.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", type=int, default=20_000)
    parser.add_argument("--cost", type=cost_of, default=MADE)
    parser.add_argument("--within", type=float, default=5.0)
    parser.add_argument("--again", type=float, default=30.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        uvloop.run(measure(given.vehicles, given.cost, given.within, given.again, Path(place)))
