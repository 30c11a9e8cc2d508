"""The figures of a node, and a scrape of them."""

from __future__ import annotations

from mesh.figures.instrument import Distribution
from mesh.frontdoor.status import ConnectionsStatus, DoorStatus
from mesh.node.status import ServicesStatus
from mesh.policy.status import AttemptsStatus
from mesh.transport.status import CLIENT, ArrivalsStatus, BuffersStatus, Held, SocketsStatus, TurnStatus
from tests.support.exchange import exchange

TURNS = TurnStatus(0.25, Distribution((0.5,), (1, 0), 0.25))
DOOR = DoorStatus(
    door=ConnectionsStatus(
        SocketsStatus(CLIENT, 3, 0, 0, 10, 20, Held(link=1), ()), BuffersStatus(0, 1, 0),
        ArrivalsStatus(0, 0, 0, 0), 5, 7, 8, (), TURNS,
    ),
    attempts=AttemptsStatus(2, 3),
    services=ServicesStatus(1.5, True, 4, 0, None),
)


async def get(port: int, host: str = "127.0.0.1") -> str:
    """The whole answer to a GET of the metrics on this port."""
    return (await exchange(port, f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).decode()
