"""The counters of a listener, and the peer of a connection, with and without TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import cast

import pytest
import trustme

from mesh.broker.peer import Peer
from mesh.transport.listen import Listen
from mesh.transport.listener import Listener
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.wheel import Wheel
from tests.support.loop import run
from tests.support.waiting import until


class Quiet(Stream):
    """Ends at its deadline, which starts at accept."""

    def accepted(self) -> None:
        self.group.wheel.watch(self, 0.5)

    def opened(self) -> None:
        self.group.wheel.forget(self)

    def received(self, data: bytes) -> None:
        self.write(data)

    def expired(self) -> None:
        self.finish()


class Hall:
    """A listener for ``limit`` connections; ``tls`` is the server's TLS context, if any."""

    def __init__(self, limit: int = 10, tls: ssl.SSLContext | None = None) -> None:
        self.limit = limit
        self.tls = tls

    async def __aenter__(self) -> Hall:
        loop = asyncio.get_running_loop()
        self.wheel = Wheel(loop)
        self.wheel.start()
        self.group = StreamGroup(loop, self.wheel)
        kind = "mqtt" if self.tls is None else "mqtts"
        listen = Listen(kind, "127.0.0.1", 0, tls=self.tls)
        self.listener = Listener("door", listen, self.group, lambda: Quiet(self.group), self.limit)
        await self.listener.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.listener.stop()
        for stream in list(self.group.streams):
            stream.abort()
        self.wheel.stop()

    def streams(self) -> list[Stream]:
        return list(self.group.streams)


def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_side(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if names:
        authority.issue_cert(*names, common_name="VIN7").configure_cert(context)
    return context


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


@pytest.mark.parametrize("names", [(), ("car.example", "car@example.com")])
def test_peer_of_a_tls_connection_has_its_tls_facts(names: tuple[str, ...]) -> None:
    async def main() -> None:
        authority = trustme.CA()
        async with Hall(tls=server_side(authority)) as hall:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", hall.listener.port, ssl=client_side(authority, *names)
            )
            writer.write(b"hello")
            async with asyncio.timeout(10):
                assert await reader.readexactly(5) == b"hello"
            tls = hall.streams()[0].peer.tls
            assert tls is not None
            session = cast(ssl.SSLObject, writer.get_extra_info("ssl_object"))
            cipher = session.cipher()
            assert cipher is not None
            assert (tls.version, tls.cipher) == (session.version(), cipher[0])
            assert (tls.dns, tls.email, tls.uri) == (names[:1], names[1:], ())
            assert tls.common_name == ("VIN7" if names else "")
            assert (len(tls.fingerprint), bool(tls.serial), tls.not_after > time.time()) == (
                (64, True, True) if names else (0, False, False)
            )
            writer.close()

    run(main())


def test_tls_handshake_counts_as_a_connection_until_it_ends() -> None:
    async def main() -> None:
        async with Hall(limit=1, tls=server_side(trustme.CA())) as hall:
            _, silent = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            await until(lambda: len(hall.streams()) == 1)
            assert hall.streams()[0].transport is None
            _, second = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            await until(lambda: hall.listener.refused == 1)
            await until(lambda: not hall.streams())
            for writer in (silent, second):
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
