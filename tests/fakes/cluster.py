"""A cluster in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import final

from mesh.cluster import host
from mesh.cluster.host import Report
from mesh.cluster.plan import ClusterPlan, PlannedNode


@final
class FakeRuntime:
    """A ``Runtime``. ``steps`` holds the calls in order; tests change ``nodes`` to simulate events."""

    def __init__(self) -> None:
        self.nodes: dict[str, Report | None] = {}
        self.mute: set[str] = set()
        self.steps: list[str] = []
        self.refuse: set[str] = set()
        self.pids = 100
        self.host = "127.0.0.1"
        self.roles: dict[str, str] = {}
        self.starts: dict[str, int] = {}
        self.revision = 0
        """Of the settings with which nodes start."""

    def names(self) -> set[str]:
        return set(self.nodes)

    def reports(self, names: Iterable[str]) -> Mapping[str, Report | None]:
        return {name: self.nodes[name] for name in names if name not in self.mute}

    def create(self, node: PlannedNode, plan: ClusterPlan) -> None:
        self.steps.append(f"create {node.name}")
        if node.name in self.refuse:
            raise RuntimeError(f"there is no machine for {node.name}")
        self.roles[node.name] = node.role
        self.revision = max(self.revision, plan.revision)
        self.come(node.name, host.HELD)

    def begin(self, name: str) -> None:
        self.steps.append(f"begin {name}")
        self.say(name, host.READY)

    def restart(self, name: str) -> None:
        self.steps.append(f"restart {name}")
        self.nodes[name] = None

    def finish(self, name: str, grace: float) -> None:
        self.steps.append(f"finish {name} {grace:g}")
        self.say(name, host.STOPPING)

    def end(self, names: Iterable[str], grace: float) -> None:
        self.steps.append(f"end {' '.join(sorted(names))}")

    def remove(self, name: str) -> None:
        self.steps.append(f"remove {name}")
        self.nodes.pop(name, None)

    def come(self, name: str, state: str) -> None:
        """A node gets a new process."""
        self.pids += 1
        before = self.starts.get(name, 0)
        self.starts[name] = before + 1
        role = self.roles.get(name, "")
        self.nodes[name] = Report(
            state, self.pids, host=self.host, role=role, begun=self.revision, restarts=before
        )

    def say(self, name: str, state: str, **more: object) -> None:
        report = self.nodes[name]
        assert report is not None
        kept = Report(
            state, report.pid, host=self.host, role=report.role, begun=report.begun, restarts=report.restarts
        )
        self.nodes[name] = replace(kept, **more)  # type: ignore[arg-type]
