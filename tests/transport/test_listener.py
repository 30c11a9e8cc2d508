"""The counters of a listener, and the peer of a plain connection."""

from __future__ import annotations

import asyncio

import pytest

from mesh.broker.peer import Peer
from mesh.transport.listen import Listen
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.waiting import until


def test_peer_of_a_plain_connection_has_address_and_listener() -> None:
    async def main() -> None:
        async with Hall() as hall:
            _, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            await until(lambda: hall.streams() and hall.streams()[0].transport is not None)
            peer = hall.streams()[0].peer
            assert (peer.address, peer.port) == writer.get_extra_info("sockname")
            assert (peer.listener, peer.tls, peer.headers) == (f"mqtt://127.0.0.1:{hall.listener.port}", None, ())
            writer.close()

    run(main())


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (Peer("192.0.2.7", 5), "192.0.2.7:5"),
        (Peer("2001:db8::7", 5), "[2001:db8::7]:5"),
        (Peer(listener="mqtt://127.0.0.1:1883"), "this machine"),
    ],
)
def test_a_peer_is_shown_as_its_address(peer: Peer, text: str) -> None:
    assert str(peer) == text


def test_a_listener_is_named_as_a_uri() -> None:
    assert str(Listen("wss", "::1", 8083, "/mqtt")) == "wss://[::1]:8083/mqtt"
