"""The host that a node announces."""

from __future__ import annotations

import asyncio

import pytest

from mesh.node.address import own_host


@pytest.mark.parametrize(
    ("bind", "endpoint", "host"),
    [
        ("10.1.2.3", "http://127.0.0.1:2379", "10.1.2.3"),
        ("edge.example", "http://127.0.0.1:2379", "edge.example"),
        ("0.0.0.0", "http://127.0.0.1:2379", "127.0.0.1"),
        ("0.0.0.0", "https://127.0.0.9", "127.0.0.1"),
        ("0.0.0.0", "http://[::1]:2379", "127.0.0.1"),  # no route from IPv4
        ("::", "http://127.0.0.1:2379", "::1"),
    ],
)
def test_wildcard_becomes_a_reachable_address(bind: str, endpoint: str, host: str) -> None:
    assert asyncio.run(own_host(bind, (endpoint,))) == host


def test_announced_address_is_on_the_route_to_etcd(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> str:
        async def resolved(*_: object, **__: object) -> list[object]:
            return [(0, 0, 0, "", ("127.0.0.9", 2379))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
        return await own_host("0.0.0.0", ("http://etcd.example:2379",))

    assert asyncio.run(run()) == "127.0.0.1"
