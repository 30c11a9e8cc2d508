"""All device links of one front door.

It knows the edges by name and assigns connection numbers: never what happens on a link. What always holds: each edge
has one link, created when its name is first used and kept for the life of the door; no connection number is assigned
twice in that life.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

from mesh.frontdoor.edgepath import EdgePath, VehicleConnection
from mesh.frontdoor.link import UP, Allowance, EdgeLink
from mesh.frontdoor.status import EdgeLinkStatus
from mesh.node.closing import close_together
from mesh.transport.handshake import Prover, new_instance
from mesh.transport.stream import StreamGroup
from mesh.transport.turn import Turn
from mesh.transport.unixsocket import Secure, UnixPath
from mesh.transport.waiting import until


class EdgeMember(Protocol):
    """A node that has announced itself. ``ports`` holds ``device`` for an edge."""

    @property
    def name(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def ports(self) -> dict[str, int]: ...


class EdgeMembers(Protocol):
    """The members of the mesh."""

    def get(self, name: str) -> EdgeMember | None:
        """One node, as it last announced itself."""

    def all(self, role: str) -> Sequence[EdgeMember]:
        """All nodes of a role: ``edge``."""


@final
class Links(Allowance):
    """``unix_path`` returns an edge's Unix socket on this machine. ``group`` is the group of the links' sockets, not of
    the vehicles'. ``limit``: bytes held for one edge, fewer if there are so many edges that they would hold more than
    half of ``most`` together; ``share``: bytes held for one vehicle; ``most``: bytes held for all edges. ``secure``
    gives the TLS context of a link, if links have TLS."""

    def __init__(
        self,
        door: str,
        epoch: int,
        prover: Prover,
        members: EdgeMembers,
        unix_path: Callable[[str], UnixPath],
        group: StreamGroup,
        turn: Turn,
        limit: int,
        share: int,
        most: int,
        secure: Secure | None = None,
    ) -> None:
        super().__init__(most)
        self._door = door
        self._instance = new_instance(epoch)
        self._prover = prover
        self._members = members
        self._unix_path = unix_path
        self._group = group
        self._turn = turn
        self._limit = limit
        self._share = share
        self._secure = secure
        self._links: dict[str, EdgeLink] = {}
        self._addresses: dict[str, tuple[str, int]] = {}
        self._next = 0

    def join(self, edge: str, vehicle: VehicleConnection) -> EdgePath:
        """A new path of a connection to ``edge``, which need not be connected at present."""
        self._next += 1  # 32 bits on the wire: 2^32 connections are more than a door accepts between two upgrades
        return self.get(edge).add(vehicle, self._next)

    def get(self, edge: str) -> EdgeLink:
        """The link to ``edge``, which need not be connected at present."""
        link = self._links.get(edge)
        if link is None:
            link = EdgeLink(
                self._door, edge, self._instance, self._prover, self, self._unix_path(edge), self._group, self._turn,
                self._limit, self._share, self, self._secure,
            )  # fmt: skip
            self._links[edge] = link
            self._divide()
            link.start()
        return link

    def in_force(self) -> dict[str, object]:
        """What holds at present, by name."""
        return {"held": self.most, "held_per_vehicle": self._share}

    def take(self, share: int, most: int) -> None:
        """Other bounds from now on, also for what is held already."""
        self._share = share
        self.most = most
        self._divide()

    def _divide(self) -> None:
        for link in self._links.values():
            link.take(min(self._limit, self.most // 2 // len(self._links)), self._share)

    def held(self) -> int:
        return sum(link.held for link in self._links.values())

    def address(self, edge: str) -> tuple[str, int] | None:
        """The last announced address of ``edge``: it stays when the lease ends, since the edge may only restart."""
        member = self._members.get(edge)
        if member is not None and "device" in member.ports:
            self._addresses[edge] = (member.host, member.ports["device"])
        return self._addresses.get(edge)

    def changed(self) -> None:
        """The membership has changed: connect to new edges, and at once to those that have moved."""
        for member in self._members.all("edge"):
            before = self._addresses.get(member.name)
            link = self.get(member.name)
            if self.address(member.name) != before:
                link.moved()
            elif link.state != UP:
                link.poke()

    async def drain(self, seconds: float) -> None:
        """Wait until the connected edges have confirmed what was sent, for ``seconds`` at most."""
        await until(lambda: all(link.drained() for link in self._links.values()), seconds)

    async def stop(self) -> None:
        """Close all links for good."""
        await close_together(link.stop() for link in self._links.values())

    def status(self) -> tuple[EdgeLinkStatus, ...]:
        """One for each edge."""
        return tuple([link.status() for link in self._links.values()])
