"""The interface of the broker to sockets and device links. ``Broker`` implements it; tests use a small fake.

A base class and not a ``Protocol``, for the reason that ``session/store.py`` gives.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.wire.packets import Connect, Packet


@mypyc_attr(allow_interpreted_subclasses=True)
class BrokerApi:
    """The calls that a client's connection makes. The broker's answers are in ``Connection.out``."""

    def open(self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
        """Open the connection of an admitted client. The connection's ``out`` has the answer to CONNECT."""
        raise NotImplementedError

    def attach(
        self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable, unacked: list[int]
    ) -> Connection:
        """Attach a connection that outlived its link. It has ``closing`` set if its session has ended."""
        raise NotImplementedError

    def live(self, connection: Connection) -> None:
        """The replay of an attached connection is complete."""
        raise NotImplementedError

    def entitle(self, connection: Connection, roles: tuple[str, ...]) -> None:
        """The client has other roles from now on."""
        raise NotImplementedError

    def receive(self, connection: Connection, packet: Packet) -> None:
        """Handle a packet that follows CONNECT."""
        raise NotImplementedError

    def set_aside(self, connection: Connection, packet: Packet) -> None:
        """Answer a packet in whose handling this process would end: a PUBLISH goes to the dead letters and is
        acknowledged, SUBSCRIBE and UNSUBSCRIBE are refused."""
        raise NotImplementedError

    def fail(self, connection: Connection, reason: int, why: str = "") -> None:
        """Close the connection of a client that broke the protocol or timed out. A 5.0 client is told ``why``."""
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        """The socket is closed."""
        raise NotImplementedError

    def pause(self, connection: Connection) -> None:
        """The client does not read: send it nothing."""
        raise NotImplementedError

    def resume(self, connection: Connection) -> None:
        """The client reads again."""
        raise NotImplementedError
