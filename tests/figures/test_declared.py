"""The declarations of all figures of a mesh."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mesh.cluster.etcd import EtcdStatus
from mesh.console.status import MeshView
from mesh.core.status import CoreStatus
from mesh.edge.status import EdgeStatus
from mesh.figures.instrument import Instrument
from mesh.figures.status import Status, instruments_of
from mesh.frontdoor.status import DoorStatus

KINDS: list[type[Status]] = [DoorStatus, EdgeStatus, CoreStatus, MeshView, EtcdStatus]
ALL = {instrument for kind in KINDS for instrument in instruments_of(kind)}


@pytest.mark.parametrize("instrument", sorted(ALL, key=lambda one: one.name), ids=lambda one: one.name)
def test_name_follows_the_conventions_of_prometheus(instrument: Instrument) -> None:
    name = instrument.name
    assert name.startswith("mesh_")
    assert name.endswith("_total") == (instrument.kind == "counter")
    assert name.removesuffix("_total").endswith("_seconds") == (instrument.unit == "seconds")
    assert name.removesuffix("_total").endswith("_bytes") == (instrument.unit == "bytes")
    assert not name.endswith(("_count", "_sum", "_bucket", "_info")), "Prometheus derives names with these endings"


def test_names_and_helps_are_unique() -> None:
    assert len({instrument.name for instrument in ALL}) == len(ALL)
    assert len({instrument.help for instrument in ALL}) == len(ALL)


def test_required_figures_are_declared() -> None:
    names = {instrument.name: instrument.kind for instrument in ALL}
    assert {name for name, kind in names.items() if kind == "histogram"} == {
        "mesh_journal_commit_seconds", "mesh_publish_acknowledge_seconds", "mesh_publish_deliver_seconds",
        "mesh_turn_seconds",
    }  # fmt: skip
    assert {"mesh_node_up", "mesh_node_ready", "mesh_node_restarts_total", "mesh_link_up"} < set(names)


def test_metrics_page_is_current() -> None:
    command = [sys.executable, "-P", "-m", "tools.metrics", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
