"""A TLS client on a blocking socket, which may resume a session."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

SECONDS = 10


class Client:
    """One connection. Use it in a thread."""

    def __init__(self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        plain = socket.create_connection(("127.0.0.1", port), SECONDS)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)
        except BaseException:
            plain.close()
            raise

    def echo(self) -> bytes:
        """What comes back; nothing from a server that ends the connection."""
        try:
            self.socket.sendall(b"hello")
            return self.socket.recv(100)
        except (ssl.SSLError, ConnectionError):
            return b""

    def close(self) -> None:
        """Close as a client that may resume its session: TLS first."""
        with contextlib.suppress(OSError):
            self.socket.unwrap()
        self.socket.close()


async def call(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[bytes, Client]:
    """Connect and echo, in a thread."""

    def both() -> tuple[bytes, Client]:
        client = Client(port, context, session)
        return client.echo(), client

    return await asyncio.to_thread(both)


async def close(client: Client) -> None:
    """Close, in a thread."""
    await asyncio.to_thread(client.close)
