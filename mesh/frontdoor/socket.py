"""One TCP connection from a front door to an edge.

It knows the door's side of the handshake: never connections, which are ``EdgeLink``'s. What always holds: ``EdgeLink``
gets no frame before the edge has proved who it is; ``over`` is done once the connection is gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from mesh.transport.frame import CHALLENGE, HELLO, LINK, PROOF, SLACK, WELCOME, LinkError
from mesh.transport.handshake import Asking
from mesh.transport.link import Link
from mesh.transport.stream import Home
from mesh.transport.turn import Turn
from mesh.wire.frames import Framer
from mesh.wire.limits import MAX_REMAINING_LENGTH

if TYPE_CHECKING:
    from mesh.frontdoor.link import EdgeLink


@final
class EdgeSocket(Link):
    """One TCP connection to the edge."""

    __slots__ = ("_asking", "_edge_link", "_framer", "over", "room")

    def __init__(self, edge_link: EdgeLink, home: Home, turn: Turn, asking: Asking, max_packet: int) -> None:
        super().__init__(edge_link.name, home, turn, max_packet + SLACK)
        self._edge_link = edge_link
        self._asking = asking
        # The edge may send what it likes up to the frame's limit: the vehicle's own limit is the edge's business.
        self._framer = Framer(MAX_REMAINING_LENGTH)
        self.over: asyncio.Future[None] = home.loop.create_future()
        self.room = asyncio.Event()  # the edge reads
        self.room.set()

    def opened(self) -> None:
        super().opened()
        self.send(HELLO, LINK, self._asking.hello())

    def arrived(self, kind: int, connection: int, body: bytes) -> None:
        if self.trusted:
            self._edge_link.arrived(kind, connection, body)
            self.turn.step()
        elif kind == CHALLENGE:
            self.send(PROOF, LINK, self._asking.challenged(body))
        elif kind == WELCOME and self._asking.edge_instance:
            self.trust()
            self._edge_link.ready(self)
        else:
            raise LinkError(f"a frame of kind {kind} came before the handshake was over")

    def packets(self, body: bytes) -> list[bytes]:
        """The packets of a DATA frame."""
        packets = self._framer.feed(body)
        size = 0
        for raw in packets:
            size += len(raw)
        if self._framer.error is not None or size != len(body):
            raise LinkError("a DATA frame holds something else than whole packets")
        return packets

    def congested(self) -> None:
        self.room.clear()

    def relieved(self) -> None:
        self.room.set()

    def ended(self) -> None:
        self._edge_link.lost(self)
        if not self.over.done():
            self.over.set_result(None)
