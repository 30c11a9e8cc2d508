"""Prometheus' text format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mesh.figures.instrument import Distribution, Label, counter, gauge, histogram
from mesh.figures.status import Status
from mesh.telemetry.prometheus import exposition


@dataclass(frozen=True, slots=True)
class Link(Status):
    peer: Annotated[str, Label("peer")]
    up: Annotated[bool, gauge("mesh_link_up", "Whether it is up.", ("peer",))]
    sent: Annotated[int, counter("mesh_link_sent_total", "Messages sent.", ("peer",))]


@dataclass(frozen=True, slots=True)
class Node(Status):
    links: tuple[Link, ...]
    commit: Annotated[Distribution, histogram("mesh_commit_seconds", "Time of a commit.")]


def test_status_is_rendered_in_the_text_format() -> None:
    node = Node((Link("edge-1", True, 3), Link('e"\\\n2', False, 4)), Distribution((0.5, 1.0), (3, 0, 2), 4.5))
    assert exposition(node, {"mesh": "demo", "node": "core"}).decode() == (
        "# HELP mesh_commit_seconds Time of a commit.\n"
        "# TYPE mesh_commit_seconds histogram\n"
        'mesh_commit_seconds_bucket{le="0.5",mesh="demo",node="core"} 3.0\n'
        'mesh_commit_seconds_bucket{le="1.0",mesh="demo",node="core"} 3.0\n'
        'mesh_commit_seconds_bucket{le="+Inf",mesh="demo",node="core"} 5.0\n'
        'mesh_commit_seconds_count{mesh="demo",node="core"} 5.0\n'
        'mesh_commit_seconds_sum{mesh="demo",node="core"} 4.5\n'
        "# HELP mesh_link_up Whether it is up.\n"
        "# TYPE mesh_link_up gauge\n"
        'mesh_link_up{mesh="demo",node="core",peer="edge-1"} 1.0\n'
        'mesh_link_up{mesh="demo",node="core",peer="e\\"\\\\\\n2"} 0.0\n'
        "# HELP mesh_link_sent_total Messages sent.\n"
        "# TYPE mesh_link_sent_total counter\n"
        'mesh_link_sent_total{mesh="demo",node="core",peer="edge-1"} 3.0\n'
        'mesh_link_sent_total{mesh="demo",node="core",peer="e\\"\\\\\\n2"} 4.0\n'
    )


def test_own_label_replaces_a_common_one() -> None:
    @dataclass(frozen=True, slots=True)
    class View(Status):
        node: Annotated[str, Label("node")]
        ready: Annotated[bool, gauge("mesh_node_ready", "Whether it serves.", ("node",))]

    text = exposition(View("edge-1", True), {"mesh": "demo", "node": "console"}).decode()
    assert text.splitlines()[-1] == 'mesh_node_ready{mesh="demo",node="edge-1"} 1.0'
