"""The memory budget of a node: from the topology, the machine, or the control group."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.node.budget import SMALLEST, machine_memory, memory_budget
from tests.support.configs import config

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    return folder


def process(groups: Path, line: str) -> Path:
    path = groups.parent / "self"
    path.write_text(line + "\n")
    return path


def limit(folder: Path, text: str, file: str = "memory.max") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text + "\n")


def test_without_a_control_group_it_is_the_memory_of_the_machine(groups: Path) -> None:
    assert machine_memory(groups, groups / "missing") == MACHINE


def test_the_limit_of_the_control_group_counts(groups: Path) -> None:
    limit(groups / "system.slice" / "mesh.service", str(300 << 20))
    assert machine_memory(groups, process(groups, "0::/system.slice/mesh.service")) == 300 << 20


def test_the_lowest_limit_of_all_groups_above_counts(groups: Path) -> None:
    limit(groups / "a" / "b", "max")
    limit(groups / "a", str(500 << 20))
    assert machine_memory(groups, process(groups, "0::/a/b")) == 500 << 20


def test_a_container_sees_its_own_group_as_the_root(groups: Path) -> None:
    limit(groups, str(400 << 20))
    assert machine_memory(groups, process(groups, "0::/outside/of/the/container")) == 400 << 20


def test_version_1_of_control_groups(groups: Path) -> None:
    limit(groups / "memory" / "docker" / "1", str(200 << 20), "memory.limit_in_bytes")
    assert machine_memory(groups, process(groups, "4:cpu,memory:/docker/1")) == 200 << 20


def test_nodes_of_a_local_mesh_share_the_machine(groups: Path) -> None:
    limit(groups, str(1 << 30))
    path = process(groups, "0::/")
    four, eight = (memory_budget(0, nodes, True, groups, path) for nodes in (4, 8))
    assert abs(four - 2 * eight) <= 1
    assert four < (1 << 30) // 4
    assert memory_budget(0, 100, False, groups, path) == memory_budget(0, 2, True, groups, path)
    assert memory_budget(0, 1000, True, groups, path) == SMALLEST
    assert memory_budget(123 << 20, 4, True, groups, path) == 123 << 20


def test_the_settings_of_a_node_have_the_limits_of_the_topology() -> None:
    settings = config("edge-1", "limits: {memory: 256MiB, disk: 1GiB, vehicle_sessions: 3}").broker_settings()
    assert (settings.memory, settings.disk, settings.vehicle_sessions) == (256 << 20, 1 << 30, 3)
    settings = config("edge-1").broker_settings()
    assert settings.memory >= SMALLEST
    assert settings.disk == 0
