"""The console over real sockets, with a made-up mesh behind it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mesh.cluster.plan import plan_of
from mesh.console.node import Console
from mesh.console.source import NoAnswer
from mesh.topology.load import load
from mesh.topology.units import Address
from tests.e2e.files import topology


class Made:
    """A mesh with one node and one vehicle."""

    def __init__(self) -> None:
        self.away = False

    async def status(self) -> dict[str, object]:
        if self.away:
            raise NoAnswer("the status cannot be read")
        return {"mesh": "made", "state": "ready", "nodes": [{"name": "edge-1", "state": "ready"}]}

    async def vehicle(self, name: str) -> dict[str, object] | None:
        return {"vehicle": name, "edge": "edge-1"} if name == "CAR1" else None

    async def close(self) -> None:
        return


async def ask(console: Console, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, str]:
    url = f"http://127.0.0.1:{console.port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        return answer.status, answer.headers, await answer.text()


def run(scenario: Any) -> None:
    async def around() -> None:
        made = Made()
        console = Console(made, Address("127.0.0.1", 0))
        await console.start()
        try:
            await scenario(console, made)
        finally:
            await console.stop(2.0)

    asyncio.run(around())


def test_the_api_gives_what_the_commands_give() -> None:
    async def scenario(console: Console, made: Made) -> None:
        status, _, body = await ask(console, "/api/status")
        assert (status, json.loads(body)["nodes"][0]["name"]) == (200, "edge-1")
        status, _, body = await ask(console, "/api/vehicles/CAR1")
        assert (status, json.loads(body)) == (200, {"vehicle": "CAR1", "edge": "edge-1"})
        assert (await ask(console, "/healthz"))[0] == 200

    run(scenario)


def test_errors_are_json_with_one_sentence() -> None:
    async def scenario(console: Console, made: Made) -> None:
        made.away = True
        wrong = [("/api/status", "GET", 503), ("/api/vehicles/CAR2", "GET", 404), ("/../etc/passwd", "GET", 404)]
        wrong += [("/api/status", "POST", 405), ("/web/", "GET", 404)]
        for path, method, expected in wrong:
            status, _, body = await ask(console, path, method)
            assert (status, list(json.loads(body))) == (expected, ["error"]), path

    run(scenario)


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/icon.svg"])
def test_the_page_loads_nothing_from_elsewhere(path: str) -> None:
    async def scenario(console: Console, made: Made) -> None:
        status, headers, body = await ask(console, path)
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "http://" not in body.replace("http://www.w3.org/", "")
        assert "https://" not in body

    run(scenario)


def test_a_foreign_name_for_this_machine_is_refused() -> None:
    async def scenario(console: Console, made: Made) -> None:
        assert (await ask(console, "/api/status", Host="evil.example"))[0] == 421

    run(scenario)


def test_the_topology_leads_to_a_console(tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    folder.mkdir()
    file = topology(folder, 2883, 2884, ["edge-1"], extra="console: 127.0.0.1:2885")
    plan = plan_of(load(file), (), bytes(32))
    node = plan.node("console")
    assert node is not None
    assert plan.assignment(node).factory == "mesh.console.node:build"
    assert node.listens == ("http://127.0.0.1:2885",)
