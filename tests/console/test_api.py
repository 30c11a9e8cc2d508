"""The console's HTTP API: its answers and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.cluster.plan import plan_of
from mesh.cluster.status import NodeRow
from mesh.console.listener import Console
from mesh.topology.load import load
from tests.console.made import Made, ask, run
from tests.support.topologies import topology


def test_the_api_answers_as_the_commands_do() -> None:
    async def scenario(console: Console, made: Made) -> None:
        status, _, body = await ask(console, "/api/status")
        assert (status, json.loads(body)["nodes"][1]["name"]) == (200, "edge-1")
        status, _, body = await ask(console, "/api/vehicles/CAR1")
        assert (status, json.loads(body)) == (200, {"vehicle": "CAR1", "edge": "edge-1"})
        assert (await ask(console, "/healthz"))[0] == 200

    run(scenario)


def test_api_errors_are_json_with_one_sentence() -> None:
    async def scenario(console: Console, made: Made) -> None:
        made.away = True
        wrong = [(path, "GET", 503) for path in ("/api/status", "/api/targets", "/metrics")]
        wrong += [("/api/vehicles/CAR2", "GET", 404), ("/../etc/passwd", "GET", 404)]
        wrong += [("/api/status", "POST", 405), ("/web/", "GET", 404)]
        for path, method, expected in wrong:
            status, _, body = await ask(console, path, method)
            assert (status, list(json.loads(body))) == (expected, ["error"]), path

    run(scenario)


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/icon.svg"])
def test_the_page_loads_only_from_the_console(path: str) -> None:
    async def scenario(console: Console, made: Made) -> None:
        status, headers, body = await ask(console, path)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "http://" not in body.replace("http://www.w3.org/", "")
        assert "https://" not in body

    run(scenario)


def test_targets_list_every_node_and_the_console() -> None:
    def target(place: str, name: str, role: str) -> dict[str, Any]:
        return {"targets": [place], "labels": {"mesh": "made", "node": name, "role": role}}

    async def scenario(console: Console, made: Made) -> None:
        known = [
            target("127.0.0.1:9464", "edge-1", "edge"),
            target("127.0.0.1:9465", "core", "core"),
            target(f"127.0.0.1:{console.port}", "console", "console"),
        ]
        status, headers, body = await ask(console, "/api/targets")
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        assert json.loads(body) == known
        made.rows.append(NodeRow("edge-2", "edge", "ready", metrics="127.0.0.1:9466"))
        _, _, body = await ask(console, "/api/targets")
        assert json.loads(body) == [*known[:2], target("127.0.0.1:9466", "edge-2", "edge"), known[2]]

    run(scenario)


def test_metrics_show_the_controllers_view_of_the_nodes() -> None:
    async def scenario(console: Console, made: Made) -> None:
        status, headers, body = await ask(console, "/metrics")
        assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        lines = body.splitlines()
        assert 'mesh_node_up{mesh="made",node="edge-1",role="edge"} 1.0' in lines
        assert 'mesh_node_ready{mesh="made",node="edge-1",role="edge"} 1.0' in lines
        assert 'mesh_node_restarts_total{mesh="made",node="edge-1",role="edge"} 2.0' in lines
        assert 'mesh_node_up{mesh="made",node="core",role="core"} 0.0' in lines
        assert 'mesh_node_ready{mesh="made",node="core",role="core"} 0.0' in lines
        assert 'mesh_console_connections{mesh="made",node="console"} 1.0' in lines

    run(scenario)


def test_a_foreign_host_header_is_refused() -> None:
    async def scenario(console: Console, made: Made) -> None:
        assert (await ask(console, "/api/status", Host="evil.example"))[0] == 421

    run(scenario)


def test_a_topology_with_a_console_plans_its_node(tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    folder.mkdir()
    file = topology(folder, 2883, 2884, ["edge-1"], extra="console: 127.0.0.1:2885")
    plan = plan_of(load(file), (), bytes(32))
    node = plan.node("console")
    assert node is not None
    assert plan.assignment(node).factory == "mesh.console.node:build"
    assert node.listens == ("http://127.0.0.1:2885",)
