"""One node in one process: ``python -P runner.py FILE NAME ENDPOINT FOLDER``, from the package that the tests import.

It writes its figures into FOLDER/status.json five times a second once it is ready, and ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from mesh.core.node import CoreNode
from mesh.edge.node import EdgeNode
from mesh.figures.status import by_series
from mesh.frontdoor.node import DoorNode
from mesh.node.config import NodeConfig
from mesh.topology.load import load
from mesh.topology.nodes import nodes

ROLES: dict[str, type[CoreNode] | type[EdgeNode] | type[DoorNode]] = {
    "edge": EdgeNode,
    "core": CoreNode,
    "door": DoorNode,
}
SECRET = b"e2e" * 16
GRACE = 3.0


async def main(file: Path, name: str, endpoint: str, folder: Path) -> None:
    """Run the node until SIGTERM or the end of the parent process."""
    parent = os.getppid()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    topology = load(file)
    spec = next(spec for spec in nodes(topology) if spec.name == name)
    node = ROLES[spec.role](NodeConfig(topology, spec, (endpoint,), folder, SECRET))
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


if __name__ == "__main__":
    own = Path(sys.argv[4])
    own.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    gc.freeze()
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], own))
