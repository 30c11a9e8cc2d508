"""A client that may not come from where it comes from costs no handshake and no upgrade."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.broker.peer import Peer
from mesh.transport.listen import NONE, Listen
from mesh.transport.refusal import Refused
from mesh.wire.reasons import BANNED
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.proxyheaders import PROXY, TCP4, TCP6, block, inet, inet6
from tests.support.town import Town

SECONDS = 10
HERE = (ip_network("127.0.0.1/32"),)
LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 8883\r\n"
BLOCK = block(PROXY, TCP4, inet("192.0.2.7", "198.51.100.1", 50123, 8883))
SIX = block(PROXY, TCP6, inet6("2001:db8::7", "2001:db8::1", 50123, 8883))


class Watchman:
    """Refuses some addresses, and remembers who came."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.came: list[str] = []

    def __call__(self, peer: Peer) -> None:
        self.came.append(peer.address)
        if peer.address in self.refused:
            raise Refused(BANNED, "banned by a test")


def place(folder: Path, kind: str, proxied: bool) -> Listen:
    tls = Town(folder).files(NONE) if kind in ("mqtts", "wss") else None
    return Listen(
        kind, "127.0.0.1", 0, "/mqtt" if kind.startswith("ws") else "", tls=tls, proxy=HERE if proxied else ()
    )


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came until the end of the connection."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(1000), SECONDS):
            found += data
    return found


@pytest.mark.parametrize("kind", ["mqtts", "ws", "wss"])
@pytest.mark.parametrize(
    ("header", "address"), [(b"", "127.0.0.1"), (LINE, "192.0.2.7"), (BLOCK, "192.0.2.7"), (SIX, "2001:db8::7")]
)
def test_a_refused_address_is_closed_before_it_sent_a_byte_of_its_own(
    tmp_path: Path, kind: str, header: bytes, address: str
) -> None:
    watchman = Watchman(address)

    async def main() -> None:
        async with Hall(listen=place(tmp_path, kind, bool(header)), arrive=watchman) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(header)
            assert await ended(reader) == b""
            status = hall.listener.status()
            assert (status.turned_away, watchman.came) == (1, [address])
            assert status.tls is None or (status.tls.begun, status.tls.failed) == (0, 0)
            assert hall.streams() == []
            writer.close()

    run(main())


@pytest.mark.parametrize("proxied", [False, True])
def test_at_a_plain_listener_the_client_is_answered_so_it_is_not_refused_before_connect(
    tmp_path: Path, proxied: bool
) -> None:
    watchman = Watchman("127.0.0.1", "192.0.2.7")

    async def main() -> None:
        async with Hall(listen=place(tmp_path, "mqtt", proxied), arrive=watchman) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write((LINE if proxied else b"") + b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert watchman.came == []
            writer.close()

    run(main())


def test_behind_a_load_balancer_only_the_client_is_refused_and_not_the_load_balancer(tmp_path: Path) -> None:
    watchman = Watchman("127.0.0.1")

    async def main() -> None:
        async with Hall(listen=place(tmp_path, "ws", True), arrive=watchman) as hall:
            _, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(LINE)
            async with asyncio.timeout(SECONDS):
                while not watchman.came:
                    await asyncio.sleep(0.01)
            assert (watchman.came, hall.listener.status().turned_away) == (["192.0.2.7"], 0)
            writer.close()

    run(main())
