"""One node in one process: ``python -P runner.py FILE NAME ENDPOINT FOLDER``, from the package that the tests import.

It writes its figures into FOLDER/status.json five times a second once it is ready, and ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from mesh.cluster.node import Node
from mesh.figures.status import by_series
from mesh.node.config import NodeConfig
from mesh.policy.secrets import MeshSecret
from mesh.topology.load import load
from mesh.topology.nodes import nodes

Make = Callable[[NodeConfig], Node]
ROLES = {
    "edge": ("mesh.edge.node", "EdgeNode"),
    "core": ("mesh.core.node", "CoreNode"),
    "door": ("mesh.frontdoor.node", "DoorNode"),
}
SECRET = b"e2e!" * 8
GRACE = 3.0


def nothing() -> None:
    """The loop runs."""


async def main(
    file: Path, name: str, endpoint: str, folder: Path, make: Make | None = None, alive: Callable[[], None] = nothing
) -> None:
    """Run the node until SIGTERM or the end of the parent process. ``make`` builds it; ``alive`` is called five times a
    second."""
    parent = os.getppid()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    topology = load(file)
    spec = next(spec for spec in nodes(topology) if spec.name == name)
    node = (make or maker(spec.role))(NodeConfig(topology, spec, (endpoint,), folder, MeshSecret(SECRET)))
    beats = asyncio.create_task(beat(alive))
    await node.start()
    while not ended.is_set() and os.getppid() == parent:
        draft = folder / "status.draft"
        status = node.status()
        told = {"pid": os.getpid(), "metrics": status.metrics, "figures": by_series(status)}
        draft.write_text(json.dumps(told))
        draft.replace(folder / "status.json")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), 0.2)
    await node.stop(GRACE)
    beats.cancel()


def maker(role: str) -> Make:
    """What makes a node of this role. The code of the others is not loaded: nodes are started very often."""
    module, name = ROLES[role]
    found: Make = getattr(importlib.import_module(module), name)
    return found


async def beat(alive: Callable[[], None]) -> None:
    """Say from the first turn of the loop on that it runs: a node handles packets before its start is over."""
    while True:
        alive()
        await asyncio.sleep(0.2)


def run(make: Make | None = None, alive: Callable[[], None] = nothing) -> None:
    """Run the node that the command line names."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    gc.freeze()
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], own_folder(), make, alive))


def own_folder() -> Path:
    """The folder that the command line names."""
    own = Path(sys.argv[4])
    own.mkdir(parents=True, exist_ok=True)
    return own


if __name__ == "__main__":
    run()
