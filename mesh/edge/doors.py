"""The front doors of an edge: their processes and their links.

It knows how a link is lost and replaced, and which of its frames are confirmed: never how a connection begins. The
rules are in ``devices``. What always holds: a door has one link at a time, and frames of older links are ignored;
replayable frames are counted in the order in which they are handled, and no frame is confirmed before one that came
earlier.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import final

from mypy_extensions import mypyc_attr

from mesh.broker.api import BrokerApi
from mesh.edge.breadcrumb import Breadcrumb, source_of
from mesh.edge.device import Device, DeviceOwner
from mesh.edge.status import DoorLinkStatus
from mesh.transport.frame import (
    ATTACH,
    CHALLENGE,
    CLOSE,
    CONFIRM,
    CREDIT,
    DATA,
    HELLO,
    LINK,
    LIVE,
    OPEN,
    PROOF,
    ROLES,
    WELCOME,
    LinkError,
    Opening,
    pack_confirm,
    unpack_credit,
    unpack_roles,
)
from mesh.transport.handshake import Answering, Prover
from mesh.transport.link import Link
from mesh.transport.status import DEVICE
from mesh.transport.stream import StreamGroup
from mesh.transport.turn import Turn
from mesh.wire.limits import PacketLimits


@mypyc_attr(allow_interpreted_subclasses=True)
class DoorOwner:
    """What doors and their links use of the edge. ``instance`` identifies its process; ``grace``: seconds that
    connections wait for their lost link; ``breadcrumb`` names the frame that is handled; ``busy``: links with frames
    that were handled in this turn; ``stopping``: no more frames are handled."""

    def __init__(
        self, name: str, instance: bytes, broker: BrokerApi, turn: Turn, group: StreamGroup, prover: Prover,
        limits: PacketLimits, grace: float, breadcrumb: Breadcrumb,
    ) -> None:
        self.name = name
        self.instance = instance
        self.broker = broker
        self.turn = turn
        self.group = group
        self.prover = prover
        self.limits = limits
        self.grace = grace
        self.breadcrumb = breadcrumb
        self.links: set[DoorLink] = set()
        self.busy: set[DoorLink] = set()
        self.stopping = False

    def welcome(self, link: DoorLink, name: str, instance: bytes) -> DoorProcess:
        """A door has proved its identity. Raises ``LinkError`` if a newer process of the same name is connected."""
        raise NotImplementedError

    def forget(self, door: DoorProcess) -> None:
        """The door did not reconnect in time."""
        raise NotImplementedError

    def release(self, device: Device) -> None:
        """``device`` is no longer the connection of its session."""
        raise NotImplementedError

    def lost(self, device: Device) -> None:
        """The vehicle of ``device`` has disconnected: tell the broker, now or in one of the next turns."""
        raise NotImplementedError

    def relieved(self, door: DoorProcess) -> None:
        """The link of ``door`` has room again: resume its connections, now or in the next turns."""
        raise NotImplementedError

    def open(self, link: DoorLink, door: DoorProcess, number: int, opening: Opening) -> None:
        """OPEN: a vehicle has sent CONNECT."""
        raise NotImplementedError

    def attach(self, link: DoorLink, door: DoorProcess, number: int, opening: Opening) -> None:
        """ATTACH: a vehicle's connection outlived the link."""
        raise NotImplementedError

    def entitle(self, device: Device, roles: tuple[str, ...]) -> None:
        """The vehicle of a connection has other roles."""
        raise NotImplementedError

    def receive(self, device: Device, body: bytes) -> int:
        """DATA: packets of a vehicle. Returns how many."""
        raise NotImplementedError


@final
class DoorProcess(DeviceOwner):
    """One front door's process, with its connections."""

    __slots__ = ("_grace", "_owner", "_source", "complete", "connections", "instance", "name")

    def __init__(self, owner: DoorOwner, name: str, instance: bytes) -> None:
        super().__init__(owner.broker)
        self._owner = owner
        self.name = name
        self.instance = instance
        self._source = source_of(name, instance)
        self.connections: dict[int, Device] = {}
        self.complete = False  # it has named all its connections once, so an unknown number has ended here
        self._grace: asyncio.TimerHandle | None = None

    def joined(self, link: Link) -> None:
        """``link`` is now the only link of this door."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        old, self.link = self.link, link
        if old is not None:
            old.fail("the door has made a newer link")
            self._suspend()

    def parted(self, link: Link) -> None:
        """``link`` is closed: wait for the next one."""
        if self.link is not link:
            return
        self.link = None
        self._suspend()
        self._grace = self._owner.group.loop.call_later(self._owner.grace, self._owner.forget, self)

    def _suspend(self) -> None:
        self.jammed = False
        self.stalled.clear()
        for device in self.connections.values():
            device.named = False
            if device.connection is not None:
                self.broker.pause(device.connection)  # its output would be dropped

    def prune(self) -> None:
        """The door has named all connections that it still has: the others are lost."""
        self.complete = True
        for device in [device for device in self.connections.values() if not device.named]:
            self.lose(device)

    def lose(self, device: Device) -> None:
        """The vehicle of ``device`` has disconnected."""
        self.remove(device)
        self._owner.lost(device)

    def remove(self, device: Device) -> None:
        """``device`` has ended."""
        if self.connections.get(device.number) is device:
            del self.connections[device.number]
        self.stalled.discard(device)
        self._owner.release(device)

    def blame(self, number: int, body: bytes, index: int) -> None:
        self._owner.breadcrumb.resume(self._source, number, body, index)

    def absolve(self) -> None:
        self._owner.breadcrumb.rest()

    def status(self) -> DoorLinkStatus:
        """The status, for ``mesh status`` and metrics."""
        return DoorLinkStatus(
            DEVICE, self.name, self.link is not None, len(self.connections), len(self.stalled)
        )

    def end(self) -> None:
        """The door's process has ended: end its link and lose its connections."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        link, self.link = self.link, None
        if link is not None:
            link.fail("the door has been restarted")
        for device in list(self.connections.values()):
            self.lose(device)


@final
class DoorLink(Link):
    """One TCP connection from a door."""

    __slots__ = (
        "_answering", "_breadcrumb", "_confirmed", "_door", "_noted", "_owner", "_source", "_waiting", "handled",
        "late",
    )  # fmt: skip

    def __init__(self, owner: DoorOwner) -> None:
        super().__init__(owner.name, owner.group, owner.turn)
        self.handled = 0
        self.late: set[Device] = set()  # connections with frames of this link that the broker has still to handle
        self._owner = owner
        self._breadcrumb = owner.breadcrumb
        self._source = b""
        self._answering = Answering(owner.name, owner.instance, owner.prover)
        self._door: DoorProcess | None = None
        self._noted = 0
        self._confirmed = 0
        self._waiting: deque[tuple[int, int]] = deque()  # (frames handled, journal position that covers them)

    def received(self, data: bytes) -> None:
        self._breadcrumb.follow(self._source)
        try:
            super().received(data)
        except Exception:  # not ``finally``: what ends the loop is named
            self._breadcrumb.end()
            raise
        self._breadcrumb.end()

    def arrived(self, kind: int, connection: int, body: bytes) -> None:
        door = self._door
        if door is None:
            self._prove(kind, body)
        elif door.link is not self or self._owner.stopping:
            return  # a newer link replaced this one, or the edge stops and confirms no more
        else:
            self._breadcrumb.begin(kind, connection, body)
            if kind == DATA:
                self._count()
                device = door.connections.get(connection)
                if device is not None and device.named:
                    packets = self._owner.receive(device, body)
                    if device.connection is not None and device.connection.later is not None:
                        device.postpone(self.handled, body, packets)
                        self.late.add(device)
            else:
                self._control(door, kind, connection, body)

    def _control(self, door: DoorProcess, kind: int, connection: int, body: bytes) -> None:
        if kind == CREDIT:
            device = door.connections.get(connection)
            if device is not None:
                device.credit(unpack_credit(body))
                self.turn.wake()
        elif kind == OPEN:
            self._owner.open(self, door, connection, Opening.unpack(body))
        elif kind == CLOSE:
            self._count()
            device = door.connections.get(connection)
            if device is not None:
                door.lose(device)
        elif kind == ATTACH:
            self._owner.attach(self, door, connection, Opening.unpack(body))
        elif kind == ROLES:
            device = door.connections.get(connection)
            if device is not None and device.named:
                self._owner.entitle(device, unpack_roles(body))
        elif kind == LIVE:
            self._live(door, connection)
        else:
            raise LinkError(f"the door sent a frame of kind {kind}, which a door may not send")

    def _prove(self, kind: int, body: bytes) -> None:
        if kind == HELLO:
            self.send(CHALLENGE, LINK, self._answering.greeted(body))
        elif kind == PROOF:
            self._answering.proved(body)
            door, instance = self._answering.door, self._answering.instance
            self._source = source_of(door, instance)
            self._breadcrumb.follow(self._source)
            self._door = self._owner.welcome(self, door, instance)
            self.trust()
            self.send(WELCOME, LINK)
        else:
            raise LinkError(f"a frame of kind {kind} came before the end of the handshake")

    def _live(self, door: DoorProcess, number: int) -> None:
        if number == LINK:
            door.prune()
            return
        device = door.connections.get(number)
        if device is not None and device.connection is not None:
            door.broker.live(device.connection)
            self.turn.wake()

    def _count(self) -> None:
        self.handled += 1
        self._owner.busy.add(self)
        self.turn.wake()

    def note(self, position: int, durable: int) -> None:
        """The turn ends: the records of all frames that were handled wholly are in the journal up to ``position``."""
        handled = self._handled_wholly() if self.late else self.handled
        if handled > self._noted:
            self._noted = handled
            self._waiting.append((handled, position))
        self.confirm(durable)

    def _handled_wholly(self) -> int:
        """The frames before the first one of which the broker has still to handle packets."""
        handled = self.handled
        for device in list(self.late):
            oldest = device.oldest_late()
            if not oldest:
                self.late.discard(device)
            elif oldest <= handled:
                handled = oldest - 1
        return handled

    def confirm(self, durable: int) -> None:
        """The journal is durable up to ``durable``: confirm the frames that this covers."""
        waiting = self._waiting
        count = self._confirmed
        while waiting and waiting[0][1] <= durable:
            count = waiting.popleft()[0]
        if count > self._confirmed:
            self._confirmed = count
            self.send(CONFIRM, LINK, pack_confirm(count))

    def settled(self) -> bool:
        """Whether all handled frames are confirmed."""
        return self._confirmed == self.handled

    def congested(self) -> None:
        door = self._door
        if door is not None and door.link is self:
            door.jammed = True

    def relieved(self) -> None:
        door = self._door
        if door is not None and door.link is self:
            door.jammed = False
            self._owner.relieved(door)

    def ended(self) -> None:
        self._owner.links.discard(self)
        self._owner.busy.discard(self)
        if self._door is not None and not self._owner.stopping:
            self._door.parted(self)
