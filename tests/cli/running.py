"""One mesh with real sockets in this process, for tests of the ``mesh`` command.

The nodes run on one event loop in a thread, with a real etcd, so that the tests need no Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mesh.cluster.lifecycle import planned
from mesh.cluster.run import RUNNING, Run, save_plan, save_run
from mesh.topology.load import load
from tests.support.planned import Nodes
from tests.support.ports import free_ports

TOPOLOGY = """\
mesh: commands
etcd: embedded
identity: {{from: username, pattern: "[A-Z0-9-]{{3,32}}"{identity}}}
topics: {{vehicle: "vehicles/{{vehicle}}/#"}}
inbox: {{subscribe: ["vehicles/{{vehicle}}/cmd/#"]}}
front_doors: [{{name: door, listen: [{{mqtt: "127.0.0.1:{door}"}}]}}]
cores: [{{name: core, listen: [{{mqtt: "127.0.0.1:{core}"}}]}}]
backends: {{anonymous: true, users: [{{user: control, password: secret}}]}}
pools: [{{name: standard, edges: [{{name: edge-1}}]}}]
data: data
"""


@contextmanager
def running_mesh(folder: Path, extra: str = "", identity: str = "") -> Iterator[Path]:
    """A running mesh; gives its topology file. ``extra`` is appended to it, and ``identity`` to that section."""
    file = folder / "mesh.yaml"
    door, core = free_ports(2)
    file.write_text(TOPOLOGY.format(door=door, core=core, identity=identity) + extra)
    topology = load(file)
    topology.data.mkdir()
    plan = planned(topology)
    nodes = Nodes(plan)
    try:
        nodes.start()
        save_plan(plan)
        pid = os.getpid()
        save_run(
            Run(
                plan.mesh, str(file), plan.data, plan.ray, "", "", plan.endpoints, pid,
                psutil.Process(pid).create_time(), RUNNING,
            )
        )  # fmt: skip
        yield file
    finally:
        nodes.stop()
