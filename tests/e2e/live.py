"""A mesh on a real Ray whose settings change while it serves, and what its nodes say is in force."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

from mesh.cluster.find import find
from mesh.cluster.inforce import InForce, in_force
from mesh.cluster.present import asked, put_in_force
from mesh.cluster.run import load_run
from mesh.registry.errors import RegistryError
from mesh.topology.load import load
from mesh.topology.topology import Topology
from tests.support.cluster import Cluster
from tests.support.ports import free_ports

IN_FORCE = 2.0  # seconds from the commit until all nodes have a live change
OVER = 5.0

TEXT = """\
mesh: {name}
etcd: embedded
identity: {{from: username, pattern: "[A-Za-z0-9_-]{{1,64}}"}}
topics: {{vehicle: "vehicles/{{vehicle}}/#", fleet: ["fleet/#"]}}
inbox: {{subscribe: ["vehicles/{{vehicle}}/cmd/#"], qos: 1, max_messages: 1000}}
front_doors: [{{name: door, replicas: 2, listen: [{{mqtt: "127.0.0.1:{vehicles}"}}]}}]
cores:
  - {{name: core, listen: [{{mqtt: "127.0.0.1:{backends}"}}]}}
  - {{name: second, listen: [{{mqtt: "127.0.0.1:{second}"}}]}}
backends: {{anonymous: true, users: [{{user: app, password: first-1}}, {{user: old, password: first-2}}]}}
pools: [{{name: standard, edges: [{{name: edge-1}}, {{name: edge-2}}]}}]
telemetry: {{sys_interval: 10s}}
data: {data}
ray: local
"""

# Values by path, such as ``broker.max_packet``, for each kind of node.
Expected = Mapping[str, Mapping[str, Any]]


@final
class Live(Cluster):
    """Two doors, two edges and two cores. ``topology`` is what was put in force last."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ["edge-1", "edge-2"])
        (self.second,) = free_ports(1)
        self.topology: Topology

    def write(self) -> None:
        self.file.touch(mode=0o600)  # it has passwords
        self.file.write_text(
            TEXT.format(
                name=self.name, vehicles=self.vehicles, backends=self.backends, second=self.second, data=self._data
            )
        )
        self.topology = load(self.file)

    async def change(self, edit: Callable[[Topology], Topology], expected: Expected | None = None) -> None:
        """Put a change in force as ``mesh up`` does. All nodes must have what is ``expected`` in their parts within
        ``IN_FORCE`` of the commit."""
        self.topology = edit(self.topology)
        await asyncio.to_thread(self._put, expected or {})

    def _put(self, expected: Expected) -> None:
        committed: list[float] = []

        def tell(text: str) -> None:
            if "confirmations" in text:
                committed.append(time.monotonic())

        done = put_in_force(self.topology, find(self.topology), OVER, tell)
        begun = [*committed, time.monotonic()][0]
        assert done.changed is not None, "there was no difference"
        assert not any(done.changed.confirmed.values()), done.changed.confirmed
        assert not done.changed.silent, f"no confirmation of {done.changed.silent}"
        found = self.in_force(begun + IN_FORCE - time.monotonic())
        wrong = [
            f"{name}: {path} is {present}, not {value}"
            for name, one in found.items()
            for path, value in expected.get(kind_of(name), {}).items()
            if (present := at(one, path)) != value
        ]
        assert not wrong, "\n".join(wrong)

    def in_force(self, wait: float = IN_FORCE) -> dict[str, InForce]:
        """What each node says; all of them must answer."""
        run = load_run(self._data)
        assert run is not None
        found, silent = asked(self.topology, run.endpoints, lambda client: in_force(client, self.name, wait))
        assert not silent, f"no answer of {silent} within {wait:.1f} s"
        return found

    async def told(self) -> dict[str, InForce]:
        """As ``in_force``, on an event loop."""
        return await asyncio.to_thread(self.in_force)

    def answers(self) -> dict[str, int]:
        """The revision that each node follows, as far as they answer."""
        run = load_run(self._data)
        assert run is not None
        try:
            found, _ = asked(self.topology, run.endpoints, lambda client: in_force(client, self.name, IN_FORCE))
        except RegistryError:
            return {}
        return {name: one.revision for name, one in found.items()}

    def revisions(self) -> dict[str, int]:
        """The revision that each node follows, as the controller knows it."""
        return {row.name: row.revision for row in self._rows() if row.role not in ("etcd", "console")}


def kind_of(node: str) -> str:
    """The kind of a node, from its name."""
    kind = node.partition("-")[0]
    return "core" if kind == "second" else kind


def at(one: InForce, path: str) -> Any:
    """The value at a path of what is in force; ``None`` if there is none."""
    value: Any = one.settings
    for name in path.split("/"):
        value = value.get(name) if isinstance(value, dict) else None
    return value
