"""One TCP connection from a front door to an edge.

It knows the door's side of the handshake and the frames that an edge may send: never connections, which its owner
keeps. What always holds: the owner gets no frame before the edge has proved its identity; ``over`` is done when the
connection is closed.
"""

from __future__ import annotations

import asyncio
from typing import final

from mypy_extensions import mypyc_attr

from mesh.transport.frame import (
    ACCEPTED,
    CHALLENGE,
    CLOSE,
    CONFIRM,
    DATA,
    HELLO,
    LINK,
    PROOF,
    TRACED,
    WELCOME,
    LinkError,
    unpack_accepted,
    unpack_confirm,
    unpack_traced,
)
from mesh.transport.handshake import Asking
from mesh.transport.link import Link
from mesh.transport.stream import StreamGroup
from mesh.transport.turn import Turn
from mesh.wire.frames import Framer
from mesh.wire.limits import MAX_REMAINING_LENGTH
from mesh.wire.tracecontext import TraceContext


@mypyc_attr(allow_interpreted_subclasses=True)
class SocketOwner:
    """Receives the frames of an edge. ``connection`` is a connection number; the owner ignores numbers that it has
    dropped while the frame was in flight."""

    def ready(self, socket: EdgeSocket) -> None:
        """The handshake has succeeded."""
        raise NotImplementedError

    def lost(self, socket: EdgeSocket) -> None:
        """The socket is closed."""
        raise NotImplementedError

    def accepted(self, connection: int, keep_alive: int, client_id: str, connack: bytes) -> None:
        """ACCEPTED: the edge accepts the connection; ``client_id`` is empty unless the edge assigned it."""
        raise NotImplementedError

    def data(self, connection: int, body: bytes, packets: list[bytes]) -> None:
        """DATA: whole packets for the vehicle; ``body`` is all of them."""
        raise NotImplementedError

    def traced(self, connection: int, context: TraceContext, publish: bytes) -> None:
        """TRACED: a PUBLISH for the vehicle, of a sampled trace."""
        raise NotImplementedError

    def closed(self, connection: int) -> None:
        """CLOSE: the edge ends the connection."""
        raise NotImplementedError

    def confirmed(self, count: int) -> None:
        """CONFIRM: ``count`` frames of this socket are durable. Raises ``LinkError`` if fewer were sent."""
        raise NotImplementedError


@final
class EdgeSocket(Link):
    """One TCP connection to the edge."""

    __slots__ = ("_asking", "_framer", "_owner", "over", "room")

    def __init__(
        self, name: str, owner: SocketOwner, group: StreamGroup, turn: Turn, asking: Asking
    ) -> None:
        super().__init__(name, group, turn)
        self._owner = owner
        self._asking = asking
        # Packets may be as long as a frame allows: the edge enforces the vehicle's own limit.
        self._framer = Framer(MAX_REMAINING_LENGTH)
        self.over: asyncio.Future[str] = group.loop.create_future()
        self.room = asyncio.Event()  # set while the write buffer has room, because the edge reads
        self.room.set()

    def opened(self) -> None:
        super().opened()
        self.send(HELLO, LINK, self._asking.hello())

    def arrived(self, kind: int, connection: int, body: bytes) -> None:
        if self.trusted:
            self._frame(kind, connection, body)
            self.turn.step()
        elif kind == CHALLENGE:
            self.send(PROOF, LINK, self._asking.challenged(body))
        elif kind == WELCOME and self._asking.edge_instance:
            self.trust()
            self._owner.ready(self)
        else:
            raise LinkError(f"a frame of kind {kind} came before the end of the handshake")

    def _frame(self, kind: int, connection: int, body: bytes) -> None:
        owner = self._owner
        if kind == DATA:
            owner.data(connection, body, self._packets(body))
        elif kind == CONFIRM:
            owner.confirmed(unpack_confirm(body))
        elif kind == TRACED:
            context, publish = unpack_traced(body)
            owner.traced(connection, context, publish)
        elif kind == ACCEPTED:
            keep_alive, client_id, connack = unpack_accepted(body)
            owner.accepted(connection, keep_alive, client_id, connack)
        elif kind == CLOSE:
            owner.closed(connection)
        else:
            raise LinkError(f"the edge sent a frame of kind {kind}, which an edge may not send")

    def _packets(self, body: bytes) -> list[bytes]:
        """The packets of a DATA frame."""
        packets = self._framer.feed(body)
        size = 0
        for raw in packets:
            size += len(raw)
        if self._framer.error is not None or size != len(body):
            raise LinkError("a DATA frame does not consist of whole packets")
        return packets

    def congested(self) -> None:
        self.room.clear()

    def relieved(self) -> None:
        self.room.set()

    def ended(self) -> None:
        self._owner.lost(self)
        if not self.over.done():
            self.over.set_result("" if self.trusted else "ended the handshake: is the mesh secret the same?")
