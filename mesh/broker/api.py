"""What sockets and device links ask of the engine: ``Broker`` provides it, and tests put a small one in its place.

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
    """The way in for clients. What the engine answers comes in ``Connection.out``."""

    def open(self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
        """A client that was let in; the answer to its CONNECT comes in the connection's ``out``."""
        raise NotImplementedError

    def attach(
        self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable, unacked: list[int]
    ) -> Connection:
        """A connection that outlived its link; ``closing`` if its session is gone."""
        raise NotImplementedError

    def live(self, connection: Connection) -> None:
        """The replay of an attached connection is over."""
        raise NotImplementedError

    def receive(self, connection: Connection, packet: Packet) -> None:
        """A packet after CONNECT."""
        raise NotImplementedError

    def fail(self, connection: Connection, reason: int, why: str = "") -> None:
        """The client broke the protocol or is silent; ``why`` is told to a 5.0 client."""
        raise NotImplementedError

    def lost(self, connection: Connection) -> None:
        """The socket is gone."""
        raise NotImplementedError

    def pause(self, connection: Connection) -> None:
        """The client does not read."""
        raise NotImplementedError

    def resume(self, connection: Connection) -> None:
        """The client reads again."""
        raise NotImplementedError
