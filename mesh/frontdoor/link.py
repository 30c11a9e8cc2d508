"""The door's end of the device link to one edge, over all the times that it is lost and made again.

It knows which connections belong to the edge and what is not confirmed: never what a packet means. What always holds:

* a connection is *linked* when its OPEN or ATTACH is on the present socket; before that its packets are kept, after it
  they are sent at once;
* when a socket is ready every connection is linked in the order of its age (an older connection of the same session
  must not take it over from a newer one): OPEN if the edge never accepted it, else ATTACH; then its unconfirmed
  entries; then LIVE. At the end LIVE for the link itself says that whatever was not named is not coming back;
* ``sent`` holds the entries of the present socket in their order on it, so that CONFIRM, a count, names them;
* ``held`` is the sum of all unconfirmed entries. Above ``limit`` every vehicle that brings more is not read until it
  has fallen to the half.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, cast, final

from mesh.frontdoor.exchange import Entry
from mesh.frontdoor.socket import EdgeSocket
from mesh.transport.frame import (
    ACCEPTED,
    ATTACH,
    CLOSE,
    CONFIRM,
    CREDIT,
    DATA,
    LINK,
    LIVE,
    OPEN,
    TRACED,
    LinkError,
    pack_credit,
    unpack_accepted,
    unpack_confirm,
    unpack_traced,
)
from mesh.transport.handshake import Asking, Prove
from mesh.transport.near import Near, connect
from mesh.transport.stream import Home
from mesh.transport.turn import Turn

if TYPE_CHECKING:
    from mesh.frontdoor.vehicle import Vehicle

AWAY: Final = "away"
REPLAYING: Final = "replaying"
UP: Final = "up"

DIAL: Final = 3.0  # seconds for a TCP connection within one site
FIRST_RETRY: Final = 0.05  # seconds; an edge is back within a few, and its vehicles wait
LAST_RETRY: Final = 1.0  # seconds; a hundred doors at that pace cost an edge nothing
SLICE: Final = 200  # connections that are linked in one go: about a millisecond of the loop
JAM: Final = 10.0  # seconds that a replay waits for an edge that does not read

log = logging.getLogger(__name__)


class Directory(Protocol):
    """Where edges are."""

    def address(self, edge: str) -> tuple[str, int] | None:
        """Host and device port of an edge; ``None`` while nobody knows."""


@final
class EdgeLink:
    """``near``: the edge's socket on this machine; ``limit``: bytes that may be held for this edge in all."""

    def __init__(
        self,
        door: str,
        edge: str,
        instance: bytes,
        prove: Prove,
        directory: Directory,
        near: Near,
        home: Home,
        turn: Turn,
        max_packet: int,
        limit: int,
    ) -> None:
        self.name = f"{door} to {edge}"
        self.edge = edge
        self.state = AWAY
        self.vehicles: dict[int, Vehicle] = {}
        self.held = 0
        self.limit = limit
        self.losses = 0
        self._door = door
        self._instance = instance
        self._prove = prove
        self._directory = directory
        self._near = near
        self._home = home
        self._turn = turn
        self._max_packet = max_packet
        self._socket: EdgeSocket | None = None
        self._sent: deque[Entry] = deque()
        self._confirmed = 0
        self._blocked: set[Vehicle] = set()
        self._poke = asyncio.Event()
        self._told = ""  # what the log says about this edge at present
        self._replay: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None

    # Life

    def start(self) -> None:
        """Connect, and connect again whenever the link is lost."""
        if self._runner is None:
            self._runner = self._home.loop.create_task(self._run(), name=f"device link {self.name}")

    async def stop(self) -> None:
        """Close the link for good."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)
        if self._replay is not None:
            self._replay.cancel()
        if self._socket is not None:
            self._socket.finish()

    def poke(self) -> None:
        """There is news of the edge: do not wait for the next attempt's time."""
        self._poke.set()

    def moved(self) -> None:
        """The edge has another address: whoever is at the old one is not it any more."""
        if self._socket is not None:
            self._socket.abort()
        self._poke.set()

    def drained(self) -> bool:
        """Whether the edge has confirmed everything that it can get."""
        return self.state == AWAY or not self._sent

    def status(self) -> dict[str, object]:
        """Figures for people and metrics."""
        return {
            "edge": self.edge,
            "state": self.state,
            "connections": len(self.vehicles),
            "held_bytes": self.held,
            "unconfirmed": len(self._sent),
            "losses": self.losses,
        }

    async def _run(self) -> None:
        delay = FIRST_RETRY
        while True:
            socket = await self._dial()
            if socket is not None:
                await socket.over
                if socket.trusted:
                    delay = FIRST_RETRY
                else:
                    self._tell("ended the handshake: is the mesh secret the same?")
            self._poke.clear()
            try:
                # Doors that lost the same edge must not come back in step.
                async with asyncio.timeout(delay * random.uniform(0.5, 1.0)):
                    await self._poke.wait()
                delay = FIRST_RETRY
            except TimeoutError:
                delay = min(2 * delay, LAST_RETRY)

    async def _dial(self) -> EdgeSocket | None:
        address = self._directory.address(self.edge)
        if address is None:
            self._tell("its address is not known yet")
            return None
        asking = Asking(self._door, self.edge, self._instance, self._prove)
        socket = EdgeSocket(self, self._home, self._turn, asking, self._max_packet)
        try:
            async with asyncio.timeout(DIAL):
                protocol = cast(asyncio.BaseProtocol, socket)
                await connect(self._home.loop, lambda: protocol, self._near(address[1]), *address)
        except (OSError, TimeoutError) as error:
            socket.abort()
            self._tell(f"cannot be reached at {address[0]}:{address[1]}: {error or 'no answer'}")
            return None
        return socket

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            log.warning("%s: edge %s %s", self._door, self.edge, what)

    # Vehicles

    def add(self, vehicle: Vehicle) -> None:
        """A connection belongs to this edge."""
        self.vehicles[vehicle.exchange.number] = vehicle
        if self.state == UP:
            self._link(vehicle)

    def carry(self, vehicle: Vehicle, entry: Entry) -> bool:
        """Bring an entry of ``vehicle`` to the edge, now or later; False: enough is held, so read no more until
        ``ease``."""
        self.held += entry.size
        if vehicle.linked:
            self._transmit(entry)
        if self.held > self.limit:
            self._blocked.add(vehicle)
            return False
        return True

    def full(self, vehicle: Vehicle) -> bool:
        """Whether ``vehicle`` is blocked by the sum of what is held."""
        return vehicle in self._blocked

    def leave(self, vehicle: Vehicle) -> None:
        """The vehicle's socket is gone: tell the edge, if it knows the connection at all."""
        vehicle.gone = True
        if vehicle.exchange.over:
            return
        if vehicle.linked or vehicle.answered:
            entry = vehicle.exchange.close()
            if vehicle.linked:
                self._transmit(entry)
        else:
            self._forget(vehicle)

    def credit(self, vehicle: Vehicle, size: int) -> None:
        """``size`` bytes have left towards the vehicle."""
        if vehicle.linked and self._socket is not None:
            self._socket.send(CREDIT, vehicle.exchange.number, pack_credit(size))

    def _forget(self, vehicle: Vehicle) -> None:
        exchange = vehicle.exchange
        self.vehicles.pop(exchange.number, None)
        self._blocked.discard(vehicle)
        self._lower(exchange.held)
        exchange.abandon()
        vehicle.linked = False

    def _lower(self, size: int) -> None:
        self.held -= size
        if self._blocked and self.held <= self.limit // 2:
            blocked, self._blocked = self._blocked, set()
            for vehicle in blocked:
                vehicle.ease()

    # The socket

    def ready(self, socket: EdgeSocket) -> None:
        """The handshake is over: bring the edge up to date."""
        if self._told:
            log.info("%s: edge %s is back", self._door, self.edge)
            self._told = ""
        self._socket = socket
        self.state = REPLAYING
        self._replay = self._home.loop.create_task(self._relink(socket), name=f"replay {self.name}")

    def lost(self, socket: EdgeSocket) -> None:
        """The socket is gone: everything waits for the next one."""
        if socket is not self._socket:
            return
        self._socket = None
        self.state = AWAY
        self.losses += 1
        self._tell("is away")
        if self._replay is not None:
            self._replay.cancel()
            self._replay = None
        self._sent.clear()
        self._confirmed = 0
        for vehicle in list(self.vehicles.values()):
            vehicle.linked = False
            if vehicle.gone and not vehicle.answered:
                self._forget(vehicle)

    async def _relink(self, socket: EdgeSocket) -> None:
        try:
            while True:
                waiting = [vehicle for vehicle in self.vehicles.values() if not vehicle.linked]
                if not waiting:
                    break
                for start in range(0, len(waiting), SLICE):
                    for vehicle in waiting[start : start + SLICE]:
                        if not vehicle.linked and not vehicle.exchange.over:
                            self._link(vehicle)
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

    def _link(self, vehicle: Vehicle) -> None:
        """Put a connection on the present socket."""
        socket = self._socket
        if socket is None:
            return
        exchange = vehicle.exchange
        kind = ATTACH if vehicle.answered else OPEN
        if kind == ATTACH:
            exchange.reopen()
        socket.send(kind, exchange.number, vehicle.opening().pack())
        vehicle.linked = True
        before = exchange.held
        for entry in exchange.replay():
            self._transmit(entry)
        self._lower(before - exchange.held)
        if kind == ATTACH:
            socket.send(LIVE, exchange.number)

    def _transmit(self, entry: Entry) -> None:
        socket = self._socket
        if socket is None:
            return
        exchange = entry.exchange
        body = exchange.frame(entry)
        self._sent.append(entry)
        socket.send(CLOSE if entry.packets is None else DATA, exchange.number, body)

    def arrived(self, kind: int, connection: int, body: bytes) -> None:
        """A frame came from the edge."""
        if kind == CONFIRM:
            self._confirm(unpack_confirm(body))
            return
        vehicle = self.vehicles.get(connection)
        if vehicle is None:
            return  # it was given up here while the frame was on its way
        if kind == DATA and self._socket is not None:
            vehicle.down(body, self._socket.packets(body))
        elif kind == TRACED:
            context, publish = unpack_traced(body)
            vehicle.traced(context, publish)
            vehicle.down(publish, [publish])
        elif kind == ACCEPTED:
            vehicle.accept(*unpack_accepted(body))
        elif kind == CLOSE:
            self._forget(vehicle)
            vehicle.shut()
        else:
            raise LinkError(f"the edge sent a frame of kind {kind}, which is not for it to send")

    def _confirm(self, count: int) -> None:
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
            exchange.confirmed(entry)
            freed += entry.size
            vehicle = self.vehicles.get(exchange.number)
            if vehicle is None:
                continue
            if entry.packets is None:
                self._forget(vehicle)
            else:
                vehicle.ease()
        self._lower(freed)
