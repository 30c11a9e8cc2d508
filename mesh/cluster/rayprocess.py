"""The process that makes one call of a Ray cluster for a command (see ``raycalls``).

It reads one request from standard input and prints one line: the kind of the answer, and its value.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any, Final

from mesh.cluster import launch, runtime
from mesh.cluster.plan import ClusterPlan
from mesh.cluster.raycalls import PLACE, SNAPSHOT, STOP
from mesh.cluster.runtime import CONTROLLER

_ANSWERED: Final = "answered"
_ABSENT: Final = "absent"
_UNREACHED: Final = "unreached"


def answer(request: dict[str, str]) -> tuple[str, Any]:
    """The kind of the answer, and its value."""
    address, mesh, namespace = request["address"], request["mesh"], request["namespace"]
    try:
        runtime.connect(address, namespace)
        there = runtime.named(mesh)
        if request["verb"] == PLACE:
            launch.place(ClusterPlan.from_json(request["plan"]), namespace)
            # Ray creates the actor only if this process lives until then, and its answer shows that it runs.
            return _ANSWERED, asdict(launch.snapshot_within(mesh, namespace))
        if request["verb"] == STOP:
            if CONTROLLER in there:
                launch.stop(mesh, namespace)
            for name in sorted(runtime.named(mesh) - {CONTROLLER}):
                runtime.kill(runtime.find(name, mesh, namespace), restart=False)
            return _ANSWERED, bool(there)
        assert request["verb"] == SNAPSHOT, f"there is no request {request['verb']!r}"
        if CONTROLLER not in there:
            return _ABSENT, f"Ray at {address} has no controller of mesh {mesh!r}"
        return _ANSWERED, asdict(launch.snapshot_within(mesh, namespace))
    except (ConnectionError, RuntimeError) as error:
        return _UNREACHED, str(error)


def main() -> None:
    print(json.dumps(answer(json.load(sys.stdin))), flush=True)
    # Not sys.exit: Ray's exit handlers would try for half a minute to reach a Ray that has ended.
    os._exit(0)


if __name__ == "__main__":
    main()
