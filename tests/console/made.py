"""A console on real sockets, with an invented mesh as its source."""

from __future__ import annotations

from typing import Any

import aiohttp

from mesh.cluster.status import MeshStatus, NodeRow
from mesh.console.listener import Console
from mesh.console.source import NoAnswer
from mesh.topology.units import Address
from tests.support import loop


class Made:
    """A mesh with one edge, a core that is not running, and one vehicle."""

    def __init__(self) -> None:
        self.away = False
        self.rows = [
            NodeRow("etcd", "etcd", "ready", pid=6),
            NodeRow("edge-1", "edge", "ready", pid=7, restarts=2, metrics="127.0.0.1:9464"),
            NodeRow("core", "core", "starting", metrics="127.0.0.1:9465"),
        ]

    async def status(self) -> MeshStatus:
        if self.away:
            raise NoAnswer("the status cannot be read")
        return MeshStatus("made", "ready", "", "made.yaml", "/made", "", (), 1, tuple(self.rows))

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

    loop.run(around())
