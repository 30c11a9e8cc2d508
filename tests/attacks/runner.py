"""Runs one attack beside the bystanders, and tells what they noticed and what it cost.

It knows the order of a run: the bystanders' round trips at rest, the attack, the round trips during it, the costs, and
a pause after which the memory is read again. It must never know what an attack does. What always holds: the bystanders
and every connection of an attack are ended, whatever happens.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, final

from tests.attacks.attack import Attack, Target
from tests.attacks.cost import Cost, Meter, Pids

VEHICLE: Final = "bystander"
REST: Final = 3.0  # seconds before an attack, and at least during one
_START: Final = 60.0
_ANSWER: Final = 120.0
# The process finds ``mesh`` as this one does, and ``tests`` in this checkout.
_PROGRAM: Final = (
    "import sys, mesh, runpy; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('tests.attacks.bystanders', run_name='__main__', alter_sys=True)"
)
_CHECKOUT: Final = Path(__file__).parents[2]


@final
@dataclass
class Result:
    """``trips`` has the counts of ``Pair.end``; ``calm``: the same before the attack. ``failed``: what must not happen,
    or empty."""

    name: str
    about: str
    size: float
    seconds: float
    seen: dict[str, int]
    calm: dict[str, float]
    trips: dict[str, float]
    costs: dict[str, Cost] = field(default_factory=dict)
    failed: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


@final
class Bystanders:
    """The process of ``bystanders.py``."""

    def __init__(self, target: Target) -> None:
        door, core = (f"{host}:{port}" for host, port in (target.door, target.core))
        command = [sys.executable, "-P", "-c", _PROGRAM, str(_CHECKOUT), door, core, VEHICLE]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    async def ready(self) -> None:
        """Wait until both are connected."""
        assert await self._read(_START) == "ready"

    async def begin(self) -> None:
        """Count from now on."""
        self._write("begin")
        assert await self._read(_ANSWER) == "begun"

    async def end(self) -> dict[str, float]:
        """The counts since ``begin``."""
        self._write("end")
        counts: dict[str, float] = json.loads(await self._read(_ANSWER))
        return counts

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    async def _read(self, seconds: float) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            return (await asyncio.to_thread(self._process.stdout.readline)).strip()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


async def run(kind: type[Attack], target: Target, pids: Pids, size: float = 1.0, rest: float = REST) -> Result:
    """Run one attack on a mesh that is ready."""
    attack = kind(target, size)
    bystanders, meter = Bystanders(target), Meter(pids)
    loop = asyncio.get_running_loop()
    try:
        await bystanders.ready()
        await bystanders.begin()
        await asyncio.sleep(rest)
        calm = await bystanders.end()
        await bystanders.begin()
        meter.begin()
        begun, failed = loop.time(), ""
        try:
            await attack.run()
        except AssertionError as error:
            failed = str(error) or repr(error)
        seconds = loop.time() - begun
        await asyncio.sleep(max(0.0, rest - seconds))  # a short attack, too, needs some round trips
        trips = await bystanders.end()
        await asyncio.sleep(rest)
        costs = await meter.end()
    finally:
        bystanders.close()
    name = kind.__module__.rpartition(".")[2]
    return Result(name, kind.about, size, seconds, attack.seen, calm, trips, costs, failed)
