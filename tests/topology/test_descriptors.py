"""How many clients a node may let in follows from what its process may open."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from mesh.topology.descriptors import MOST, connections, members, openable, reserve
from mesh.topology.load import loads
from mesh.topology.mistakes import TopologyErrors
from mesh.topology.topology import Topology
from tests.support.configs import TOPOLOGY, config


def topology(more: str = "") -> Topology:
    return loads((TOPOLOGY + more).encode(), "mesh.yaml", Path("."))


def allow(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))


def test_reserve_grows_with_the_mesh() -> None:
    assert reserve(topology()) == 448 + 4 * 5


def test_default_is_what_the_reserve_leaves() -> None:
    assert connections(topology(), 20_000) == 20_000 - 468
    assert connections(topology(), 1024) == 1024 - 468
    assert connections(topology(), 1 << 30) == MOST
    assert connections(topology("limits: {connections: auto}"), 1024) == 1024 - 468


def test_explicit_number_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 1024)
    assert connections(topology("limits: {connections: 556}"), 1024) == 556
    with pytest.raises(TopologyErrors) as errors:
        topology("limits: {connections: 557}")
    assert "limits.connections: 557 connections are more than the 556 that a node can have" in str(errors.value)
    assert "use at most 556" in str(errors.value)


def test_process_that_may_open_too_little_for_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="may open 468 files, and a node needs 468 without any client"):
        connections(topology(), 468)


def test_other_machines_are_checked_by_their_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 1 << 20)
    node = config("door", 'ray: "10.0.0.5:6379"\nlimits: {connections: 100000}')
    assert node.connections() == 100_000
    allow(monkeypatch, 1024)
    with pytest.raises(OSError, match=r"door: limits.connections: 100000 connections are more than the 556"):
        node.connections()
    assert config("core").connections() == 556


def test_internal_ports_share_what_the_reserve_leaves() -> None:
    assert members(topology(), 20_000, 1024) == 1024
    assert members(topology(), 1024, 1024) == (1024 - 468) // 2
    assert members(topology(), 100, 1024) == 5


def test_unlimited_files_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, resource.RLIM_INFINITY)
    assert openable() == 1 << 30
