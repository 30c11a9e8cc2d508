"""The front doors of an edge: their processes, and the links that those make.

It knows how a link is lost and comes back, and what of it is confirmed; the rules are in ``devices``. What always
holds: a door has one link at a time, and frames of any other are ignored; replayable frames are counted in the order in
which they are handled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, final

from mesh.edge.device import Device
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
    SLACK,
    WELCOME,
    LinkError,
    Opening,
    pack_confirm,
    unpack_credit,
)
from mesh.transport.handshake import Answering
from mesh.transport.link import Link

if TYPE_CHECKING:
    from mesh.edge.devices import Devices


@final
class Door:
    """One front door's process, with its connections."""

    __slots__ = ("_devices", "_grace", "complete", "connections", "instance", "link", "name")

    def __init__(self, devices: Devices, name: str, instance: bytes) -> None:
        self._devices = devices
        self.name = name
        self.instance = instance
        self.connections: dict[int, Device] = {}
        self.complete = False  # it has named all its connections once, so a number that is not here has ended here
        self.link: DoorLink | None = None
        self._grace: asyncio.TimerHandle | None = None

    def joined(self, link: DoorLink) -> None:
        """``link`` is now the one link of this door."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        old, self.link = self.link, link
        if old is not None:
            old.fail("the door has made a newer link")
            self._suspend()

    def parted(self, link: DoorLink) -> None:
        """``link`` is gone: wait for the next one."""
        if self.link is not link:
            return
        self.link = None
        self._suspend()
        self._grace = self._devices.home.loop.call_later(self._devices.grace, self._devices.forget, self)

    def _suspend(self) -> None:
        for device in self.connections.values():
            device.named = False
            if device.connection is not None:
                self._devices.engine.pause(device.connection)  # what it would send is dropped

    def prune(self) -> None:
        """The door has named all that it still has: the rest is lost."""
        self.complete = True
        for device in [device for device in self.connections.values() if not device.named]:
            self.lose(device)

    def lose(self, device: Device) -> None:
        """The vehicle of ``device`` is gone."""
        self.remove(device)
        connection = device.connection
        if connection is not None and not connection.closing:
            self._devices.engine.lost(connection)
            self._devices.turn.wake()

    def remove(self, device: Device) -> None:
        """``device`` is over."""
        if self.connections.get(device.number) is device:
            del self.connections[device.number]
        if self.link is not None:
            self.link.stalled.discard(device)
        self._devices.release(device)

    def end(self) -> None:
        """The door's process is gone: so are its connections."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        link, self.link = self.link, None
        if link is not None:
            link.fail("the door has been started anew")
        for device in list(self.connections.values()):
            self.lose(device)


@final
class DoorLink(Link):
    """One TCP connection from a door."""

    __slots__ = ("_answering", "_confirmed", "_door", "_noted", "_waiting", "devices", "handled", "jammed", "stalled")

    def __init__(self, devices: Devices) -> None:
        super().__init__(devices.name, devices.home, devices.turn, devices.limits.max_packet_size + SLACK)
        self.devices = devices
        self.jammed = False  # the door does not read fast enough
        self.stalled: set[Device] = set()  # connections that wait for that
        self.handled = 0
        self._answering = Answering(devices.name, devices.instance, devices.prove)
        self._door: Door | None = None
        self._noted = 0
        self._confirmed = 0
        self._waiting: deque[tuple[int, int]] = deque()  # (frames handled, journal position that covers them)

    def arrived(self, kind: int, connection: int, body: bytes) -> None:
        door = self._door
        if door is None:
            self._prove(kind, body)
        elif door.link is not self or self.devices.stopping:
            return  # replaced by a newer link, or not to be confirmed any more
        elif kind == DATA:
            self._count()
            device = door.connections.get(connection)
            if device is not None and device.named:
                self.devices.receive(device, body)
        elif kind == CREDIT:
            device = door.connections.get(connection)
            if device is not None:
                device.credit(self, unpack_credit(body))
                self.turn.wake()
        elif kind == OPEN:
            self.devices.open(self, door, connection, Opening.unpack(body))
        elif kind == CLOSE:
            self._count()
            device = door.connections.get(connection)
            if device is not None:
                door.lose(device)
        elif kind == ATTACH:
            self.devices.attach(self, door, connection, Opening.unpack(body))
        elif kind == LIVE:
            self._live(door, connection)
        else:
            raise LinkError(f"the door sent a frame of kind {kind}, which is not for it to send")

    def _prove(self, kind: int, body: bytes) -> None:
        if kind == HELLO:
            self.send(CHALLENGE, LINK, self._answering.greeted(body))
        elif kind == PROOF:
            self._answering.proved(body)
            self._door = self.devices.welcome(self, self._answering.door, self._answering.instance)
            self.trust()
            self.send(WELCOME, LINK)
        else:
            raise LinkError(f"a frame of kind {kind} came before the handshake was over")

    def _live(self, door: Door, number: int) -> None:
        if number == LINK:
            door.prune()
            return
        device = door.connections.get(number)
        if device is not None and device.connection is not None:
            self.devices.engine.live(device.connection)
            self.turn.wake()

    def _count(self) -> None:
        self.handled += 1
        self.devices.busy.add(self)
        self.turn.wake()

    def note(self, position: int, durable: int) -> None:
        """The turn ends: all that was handled is in the journal up to ``position``."""
        if self.handled > self._noted:
            self._noted = self.handled
            self._waiting.append((self.handled, position))
        self.confirm(durable)

    def confirm(self, durable: int) -> None:
        """The journal is durable up to ``durable``: tell the door what that covers."""
        waiting = self._waiting
        count = self._confirmed
        while waiting and waiting[0][1] <= durable:
            count = waiting.popleft()[0]
        if count > self._confirmed:
            self._confirmed = count
            self.send(CONFIRM, LINK, pack_confirm(count))

    def settled(self) -> bool:
        """Whether all that was handled is confirmed."""
        return self._confirmed == self.handled

    def congested(self) -> None:
        self.jammed = True

    def relieved(self) -> None:
        self.jammed = False
        for device in list(self.stalled):
            device.resume(self)
        self.turn.wake()

    def ended(self) -> None:
        self.devices.links.discard(self)
        self.devices.busy.discard(self)
        if self._door is not None and not self.devices.stopping:
            self._door.parted(self)
