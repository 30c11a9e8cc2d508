"""The door's end of the device link to one edge, across all its sockets: it stays when a socket is lost and replaced.

It knows which connections belong to the edge and what is not confirmed: never what a packet means. What always holds:

* a path is *linked* when its OPEN or ATTACH was sent on the present socket; before that its packets are kept, after it
  they are sent at once;
* when a socket is ready, all paths are linked in the order of their age (an older connection must not take a session
  over from a newer one): OPEN if the edge never accepted the connection, else ATTACH; then its unconfirmed entries;
  then LIVE. Last, LIVE for the link itself says that connections that were not named have ended;
* ``sent`` holds the entries of the present socket in the order of sending, so that CONFIRM, a count, identifies them;
* ``held`` is the sum of what the exchanges hold. Above ``limit``, a vehicle that sends more is not read until ``held``
  has fallen to half of ``limit``. What such vehicles had sent before is held as well, until all links together hold
  ``Allowance.most``; then the vehicle is closed. A vehicle that sends nothing is read, and its PINGREQs are answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, Protocol, final

from mypy_extensions import mypyc_attr

from mesh.frontdoor.edgepath import EdgePath, VehicleConnection
from mesh.frontdoor.exchange import Exchange, HeldFrame
from mesh.frontdoor.socket import EdgeSocket, SocketOwner
from mesh.frontdoor.status import EdgeLinkStatus
from mesh.transport.dialler import Dialler
from mesh.transport.frame import (
    ATTACH,
    CLOSE,
    CREDIT,
    DATA,
    LINK,
    LIVE,
    OPEN,
    ROLES,
    LinkError,
    Opening,
    pack_credit,
    pack_roles,
)
from mesh.transport.handshake import Asking, Prover
from mesh.transport.states import REJECTED
from mesh.transport.status import DEVICE
from mesh.transport.stream import StreamGroup
from mesh.transport.turn import Turn
from mesh.transport.unixsocket import Secure, UnixPath
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Disconnect
from mesh.wire.tracecontext import TraceContext

AWAY: Final = "away"
REPLAYING: Final = "replaying"
UP: Final = "up"

SLICE: Final = 200  # connections that are linked or resumed at a time: about a millisecond of the loop
_DISCONNECT: Final = encode(Disconnect(), MQTT5)  # with success, so without the will: the same bytes in 3.1.1
JAM: Final = 10.0  # seconds that a replay waits for an edge that does not read its socket

log = logging.getLogger(__name__)


class Directory(Protocol):
    """The addresses of the edges."""

    def address(self, edge: str) -> tuple[str, int] | None:
        """Host and device port of an edge; ``None`` while they are unknown."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Allowance:
    """What all links of a door may hold together: ``most`` bytes."""

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        self.most = most

    def held(self) -> int:
        """The bytes that all links hold at present."""
        raise NotImplementedError


@final
class DevicePath(EdgePath):
    """A vehicle's connection on the device link. ``linked``: its OPEN or ATTACH was sent on the present socket;
    ``client_id`` is the one that the edge assigned, else empty. Only the link changes both."""

    __slots__ = ("_link", "client_id", "exchange", "linked", "vehicle")

    def __init__(self, link: EdgeLink, vehicle: VehicleConnection, number: int) -> None:
        self._link = link
        self.vehicle = vehicle
        self.exchange = Exchange(number)
        self.client_id = ""
        self.linked = False

    def carry(self, packets: list[bytes]) -> bool:
        link = self._link
        if link.held > link.limit:
            return link.overrun(self, packets)
        return link.carry(self, self.exchange.up(packets))

    def free(self) -> bool:
        return self._link.free(self)

    def credit(self, size: int) -> None:
        self._link.credit(self, size)

    def assigned(self) -> str:
        return self.client_id

    def conclude(self) -> None:
        self._link.carry(self, self.exchange.up([_DISCONNECT]))  # whatever is held already: it is the last packet

    def entitle(self) -> None:
        self._link.entitle(self)

    def leave(self) -> None:
        self._link.leave(self)

    def opening(self) -> Opening:
        """The body of OPEN or ATTACH."""
        vehicle = self.vehicle
        opening = Opening(vehicle.name, vehicle.epoch, vehicle.since, vehicle.peer, vehicle.connect)
        opening.roles = vehicle.roles
        if vehicle.claim is not None:
            opening.provider = vehicle.claim.provider
        if vehicle.life.was_open():
            opening.client_id = self.client_id
            opening.unacked = self.exchange.unacked()
            opening.under_way = vehicle.uncredited
        return opening


@final
class EdgeLink(SocketOwner):
    """``unix_path``: the edge's Unix socket on this machine; ``limit``: bytes that may be held for this edge in total,
    and ``share`` for one vehicle; ``overruns`` counts the vehicles that were closed because of ``allowance``."""

    def __init__(
        self,
        door: str,
        edge: str,
        instance: bytes,
        prover: Prover,
        directory: Directory,
        unix_path: UnixPath,
        group: StreamGroup,
        turn: Turn,
        limit: int,
        share: int,
        allowance: Allowance,
        secure: Secure | None = None,
    ) -> None:
        self.name = f"{door} to {edge}"
        self.edge = edge
        self.state = AWAY
        self.paths: dict[int, DevicePath] = {}
        self.held = 0
        self.limit = limit
        self.share = share
        self.losses = 0
        self.overruns = 0
        self._door = door
        self._instance = instance
        self._prover = prover
        self._group = group
        self._turn = turn
        self._allowance = allowance
        self._socket: EdgeSocket | None = None
        self._sent: deque[HeldFrame] = deque()
        self._confirmed = 0
        self._blocked: set[DevicePath] = set()
        self._easing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._replay: asyncio.Task[None] | None = None
        self._dialler = Dialler(door, f"edge {edge}", lambda: directory.address(edge), unix_path, self._make, secure)

    # Life

    def start(self) -> None:
        """Connect, and connect again after each loss of the link."""
        self._dialler.start()

    async def stop(self) -> None:
        """Close the link for good."""
        await self._dialler.stop()
        for task in (self._replay, self._easing, self._reading):
            if task is not None:
                task.cancel()
        if self._socket is not None:
            self._socket.finish()

    def poke(self) -> None:
        """There is news of the edge: make the next attempt at once."""
        self._dialler.poke()

    def moved(self) -> None:
        """The edge has a new address: drop the connection to the old one."""
        self._dialler.moved()

    def take(self, limit: int, share: int) -> None:
        """Other bounds from now on, also for what is held already."""
        more = share > self.share
        self.limit = limit
        self.share = share
        self._lower(0)
        if more and self._reading is None and self.paths:
            self._reading = self._group.loop.create_task(self._read(), name=f"read vehicles of {self.name}")

    def drained(self) -> bool:
        """Whether the edge has confirmed everything that was sent; true while it is disconnected."""
        return self.state == AWAY or not self._sent

    def status(self) -> EdgeLinkStatus:
        """The status, for ``mesh status`` and metrics."""
        return EdgeLinkStatus(
            DEVICE, self.edge, self.state == UP, len(self.paths), self.held, len(self._sent), self.losses,
            self.overruns, self.state,
        )  # fmt: skip

    def _make(self) -> EdgeSocket:
        asking = Asking(self._door, self.edge, self._instance, self._prover)
        return EdgeSocket(self.name, self, self._group, self._turn, asking)

    # Paths

    def add(self, vehicle: VehicleConnection, number: int) -> DevicePath:
        """Add a connection that belongs to this edge; ``number`` is its number on the link."""
        path = self.paths[number] = DevicePath(self, vehicle, number)
        if self.state == UP:
            self._link(path)
        return path

    def carry(self, path: DevicePath, entry: HeldFrame) -> bool:
        """Send an entry to the edge, now or later. False: the vehicle's share is used, so read no more until
        ``ease``."""
        self.held += entry.size
        if path.linked:
            self._transmit(entry)
        return path.exchange.held <= self.share

    def overrun(self, path: DevicePath, packets: list[bytes]) -> bool:
        """``carry`` above ``limit``. False: read no more until ``ease``."""
        self._blocked.add(path)
        held, most = self._allowance.held(), self._allowance.most
        if held > most:
            self.overruns += 1
            path.vehicle.shed(f"{held} bytes are held for edges, {self.held} of them for {self.edge}; {most} may be")
        else:
            self.carry(path, path.exchange.up(packets))
        return False

    def free(self, path: DevicePath) -> bool:
        """Whether more of the vehicle's packets are accepted."""
        return path.exchange.held <= self.share // 2 and path not in self._blocked

    def leave(self, path: DevicePath) -> None:
        """The vehicle's connection has ended: tell the edge, if the edge knows the connection."""
        if path.exchange.over:
            return
        if path.linked or path.vehicle.life.was_open():
            entry = path.exchange.close()
            if path.linked:
                self._transmit(entry)
        else:
            self._forget(path)

    def credit(self, path: DevicePath, size: int) -> None:
        """``size`` bytes were written to the vehicle."""
        if path.linked and self._socket is not None:
            self._socket.send(CREDIT, path.exchange.number, pack_credit(size))

    def entitle(self, path: DevicePath) -> None:
        """The vehicle has other roles. An edge that is away gets them with ATTACH or OPEN."""
        if path.linked and self._socket is not None:
            self._socket.send(ROLES, path.exchange.number, pack_roles(path.vehicle.roles))

    def _forget(self, path: DevicePath) -> None:
        exchange = path.exchange
        self.paths.pop(exchange.number, None)
        self._blocked.discard(path)
        self._lower(exchange.held + exchange.take_freed())
        exchange.abandon()
        path.linked = False

    def _lower(self, size: int) -> None:
        self.held -= size
        if self._blocked and self._easing is None and self.held <= self.limit // 2:
            self._easing = self._group.loop.create_task(self._ease(), name=f"resume vehicles of {self.name}")

    async def _ease(self) -> None:
        """Read the blocked vehicles again, a slice at a time, while half of the limit is free."""
        try:
            while self._blocked and self.held <= self.limit // 2:
                for _ in range(min(SLICE, len(self._blocked))):
                    self._blocked.pop().vehicle.ease()
                await asyncio.sleep(0)
        except Exception:
            log.exception("%s: the vehicles could not be read again", self.name)
        finally:
            self._easing = None

    async def _read(self) -> None:
        """Read the vehicles again that had used their share, a slice at a time."""
        try:
            paths = list(self.paths.values())
            for start in range(0, len(paths), SLICE):
                for path in paths[start : start + SLICE]:
                    path.vehicle.ease()
                await asyncio.sleep(0)
        except Exception:
            log.exception("%s: the vehicles could not be read again", self.name)
        finally:
            self._reading = None

    # The socket

    def ready(self, socket: EdgeSocket) -> None:
        """The handshake has succeeded: start the replay."""
        self._dialler.welcomed()
        self._socket = socket
        self.state = REPLAYING
        self._replay = self._group.loop.create_task(self._relink(socket), name=f"replay {self.name}")

    def lost(self, socket: EdgeSocket) -> None:
        """The socket is closed: everything waits for the next one."""
        if socket is not self._socket:
            return
        self._socket = None
        self.state = AWAY
        self.losses += 1
        if self._replay is not None:
            self._replay.cancel()
            self._replay = None
        self._sent.clear()
        self._confirmed = 0
        for path in list(self.paths.values()):
            path.linked = False
            if path.vehicle.life.state == REJECTED:
                self._forget(path)

    async def _relink(self, socket: EdgeSocket) -> None:
        try:
            while True:
                waiting = [path for path in self.paths.values() if not path.linked]
                if not waiting:
                    break
                for start in range(0, len(waiting), SLICE):
                    for path in waiting[start : start + SLICE]:
                        if not path.linked and not path.exchange.over:
                            self._link(path)
                    await asyncio.sleep(0)
                    async with asyncio.timeout(JAM):
                        await socket.room.wait()
            socket.send(LIVE, LINK)
            self.state = UP
        except TimeoutError:
            socket.fail(f"the edge did not read for {JAM:g} s")
        except Exception:
            log.exception("%s: the replay failed", self.name)
            socket.abort()

    def _link(self, path: DevicePath) -> None:
        """Link a connection to the present socket."""
        socket = self._socket
        if socket is None:
            return
        exchange = path.exchange
        kind = ATTACH if path.vehicle.life.was_open() else OPEN
        if kind == ATTACH:
            exchange.reopen()
        socket.send(kind, exchange.number, path.opening().pack())
        path.linked = True
        before = exchange.held + exchange.take_freed()
        for entry in exchange.replay():
            self._transmit(entry)
        self._lower(before - exchange.held)
        if kind == ATTACH:
            socket.send(LIVE, exchange.number)

    def _transmit(self, entry: HeldFrame) -> None:
        socket = self._socket
        if socket is None:
            return
        exchange = entry.exchange
        body = exchange.frame(entry)
        self._sent.append(entry)
        socket.send(CLOSE if entry.packets is None else DATA, exchange.number, body)

    def accepted(self, connection: int, keep_alive: int, client_id: str, connack: bytes) -> None:
        path = self.paths.get(connection)
        if path is not None:
            path.client_id = client_id
            path.vehicle.welcome(keep_alive, connack)

    def data(self, connection: int, body: bytes, packets: list[bytes]) -> None:
        path = self.paths.get(connection)
        if path is not None:
            exchange = path.exchange
            path.vehicle.down(exchange.down(body, packets), len(body), len(packets))
            freed = exchange.take_freed()
            if freed:
                self._lower(freed)
                path.vehicle.ease()

    def traced(self, connection: int, context: TraceContext, publish: bytes) -> None:
        path = self.paths.get(connection)
        if path is not None:
            path.vehicle.traced(context, publish, path.client_id)
            self.data(connection, publish, [publish])

    def closed(self, connection: int) -> None:
        path = self.paths.get(connection)
        if path is not None:
            self._forget(path)
            path.vehicle.shut()

    def confirmed(self, count: int) -> None:
        fresh = count - self._confirmed
        if not 0 <= fresh <= len(self._sent):
            raise LinkError(f"the edge confirms {count} frames, but {self._confirmed + len(self._sent)} were sent")
        self._confirmed = count
        freed = 0
        for _ in range(fresh):
            entry = self._sent.popleft()
            exchange = entry.exchange
            if exchange.over:
                continue
            freed += exchange.confirmed(entry)
            path = self.paths.get(exchange.number)
            if path is None:
                continue
            if entry.packets is None:
                self._forget(path)
            else:
                path.vehicle.ease()
        self._lower(freed)
