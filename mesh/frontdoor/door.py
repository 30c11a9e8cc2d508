"""The front door: it owns the vehicles' connections, and nothing else of them.

It composes listeners, links and the map. It must never know sessions or messages, which belong to the edge. What always
holds: the bytes held for edges and the bytes buffered for vehicles are bounded; unless such a bound is reached, no
vehicle's connection is closed because an edge, a core or etcd is unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from mesh.broker.claim import Ended, Ends, ignore
from mesh.broker.roles import RolesOf, roles_of_claim
from mesh.broker.trace import Tracer
from mesh.frontdoor.context import DoorContext, DoorSettings, Identify, OwnerMap
from mesh.frontdoor.links import EdgeMembers, Links
from mesh.frontdoor.status import ConnectionsStatus
from mesh.frontdoor.vehicle import Vehicle
from mesh.transport.admission import Admission
from mesh.transport.buffers import Buffers
from mesh.transport.client import ClientContext
from mesh.transport.endpoint import settle
from mesh.transport.handshake import Prover
from mesh.transport.listen import Listen
from mesh.transport.listeners import ListenerChange, Listeners, spread
from mesh.transport.status import CLIENT, SocketsStatus
from mesh.transport.stream import EAGER, LINK_PORTION, Stream, StreamGroup
from mesh.transport.turn import Turn
from mesh.transport.unixsocket import Secure, UnixPath, no_unix_path
from mesh.transport.wheel import Wheel
from mesh.wire.limits import PacketLimits

SLICE: Final = 500  # connections that are looked at in one turn: a millisecond
END: Final = 4  # the end of a connection counts as so many more
SETTLING: Final = 1.0  # seconds in which all edges take a change that they have prepared


def _no_unix_paths(_edge: str) -> UnixPath:
    return no_unix_path


@final
class FrontDoor:
    """``listen``: where to listen; the ports really bound are in ``ports``. ``epoch`` grows with each start of a door
    with this name. ``unix_path`` returns an edge's Unix socket on this machine, ``secure`` the TLS
    context of a device link.

    ``identify`` returns the claim of a CONNECT. ``prover`` proves the mesh secret (see ``handshake``).
    Several doors of one machine may listen on the same address.
    """

    def __init__(
        self,
        name: str,
        epoch: int,
        listen: list[Listen],
        map: OwnerMap,
        members: EdgeMembers,
        identify: Identify,
        prover: Prover,
        admission: Admission,
        tracer: Tracer | None = None,
        settings: DoorSettings | None = None,
        unix_path: Callable[[str], UnixPath] = _no_unix_paths,
        secure: Secure | None = None,
        roles_of: RolesOf = roles_of_claim,
    ) -> None:
        loop = asyncio.get_running_loop()
        settings = settings or DoorSettings()
        self._settings = settings
        self._largest = admission.limits.max_packet_size
        self._settling: asyncio.TimerHandle | None = None
        self.name = name
        self.turn = Turn(loop)
        self.wheel = Wheel(loop)
        self.group = StreamGroup(loop, self.wheel, high=EAGER)
        self._inside = StreamGroup(loop, self.wheel, portion=LINK_PORTION)
        self.links = Links(
            name, epoch, prover, members, unix_path, self._inside, self.turn, settings.held_per_edge,
            settings.held_per_vehicle, settings.held, secure,
        )  # fmt: skip
        self.clients = ClientContext(
            name, self.group, admission, settings.connect_timeout, settings.attach_timeout, settings.packet_rate,
            Buffers(settings.buffers),
        )  # fmt: skip
        self._context = DoorContext(
            self.clients, self.turn, map, identify, self.links.join, tracer or Tracer(),
            settings, roles_of,
        )  # fmt: skip
        self._listen = listen
        self._listeners = Listeners(
            name, self.group, self._vehicle, _dismiss, admission.most, shared=True, handshake=settings.connect_timeout,
            limits=admission.limits,
            rates=admission.arrivals.handshakes, arrive=admission.arrive,
        )  # fmt: skip

    @property
    def ports(self) -> list[int]:
        """The bound ports, in the order of ``listen``."""
        return self._listeners.ports

    async def start(self) -> None:
        """Connect to the edges and accept vehicles. Raises ``OSError``, which names the address, if listening fails."""
        self.wheel.start()
        self.links.changed()
        await self._listeners.start(self._listen)

    async def prepare(self, listen: list[Listen]) -> ListenerChange:
        """Prepare to listen elsewhere. Raises ``OSError``, which names the address, if that cannot be had."""
        return await self._listeners.prepare(listen)

    def widen(self, limits: PacketLimits, topic_aliases: int) -> None:
        """Accept from connections that open now what an edge may tell them soon, if that is more than before, until
        ``settle``: an edge may take a change before this door."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        context, admission = self._context, self.clients.admission
        admission.limits.widen(limits)
        context.settings = replace(context.settings, topic_aliases=max(context.settings.topic_aliases, topic_aliases))

    def take(self, settings: DoorSettings, limits: PacketLimits, most: int, redirect: str) -> None:
        """Other settings from now on; of more than ``most`` connections none is closed. What a vehicle was told in
        CONNACK stays. Call ``widen`` before."""
        context, clients, admission = self._context, self.clients, self.clients.admission
        self._settings = settings
        self._largest = limits.max_packet_size
        context.settings = replace(settings, topic_aliases=context.settings.topic_aliases)
        admission.limits.max_topic_levels = limits.max_topic_levels
        admission.most = most
        admission.redirect = redirect
        admission.arrivals.take(settings.arrivals)
        context.flapping.allow(settings.vehicle_connects)
        clients.connect_timeout = settings.connect_timeout
        clients.answer_timeout = settings.attach_timeout
        clients.packet_rate = settings.packet_rate
        clients.buffers.limit = settings.buffers
        self.links.take(settings.held_per_vehicle, settings.held)
        self._listeners.allow(most, settings.connect_timeout)
        self.settle()

    def settle(self) -> None:
        """End what ``widen`` began, ``SETTLING`` seconds from now: an edge may take a change after this door."""
        if self._settling is not None:
            self._settling.cancel()
        self._settling = self.group.loop.call_later(SETTLING, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self._context.settings = self._settings
        self.clients.admission.limits.resize(self._largest)

    def expel(self, ends: Ends, told: Ended = ignore) -> None:
        """End the connections of the vehicles for which ``ends`` gives a reason, in slices."""
        self._expel(list(self.group.streams), 0, 0, ends, told)

    def _expel(self, streams: list[Stream], start: int, ended: int, ends: Ends, told: Ended) -> None:
        left, index = SLICE, start
        while left > 0 and index < len(streams):
            stream = streams[index]
            index += 1
            left -= 1
            if isinstance(stream, Vehicle) and not stream.life.ended():
                reason = ends(stream.claim, stream.peer, stream.client_id())
                if reason:
                    stream.expelled(reason)
                    ended += 1
                    left -= END
        if index < len(streams):
            self.group.loop.call_soon(self._expel, streams, index, ended, ends, told)
        else:
            told(ended)

    def entitle(self) -> None:
        """Tell the edges of the vehicles that have other roles now, in slices."""
        self._review(list(self.group.streams), 0)

    def _review(self, streams: list[Stream], start: int) -> None:
        for stream in streams[start : start + SLICE]:
            if isinstance(stream, Vehicle) and stream.claim is not None and not stream.life.ended():
                stream.entitle(stream.claim)
        if start + SLICE < len(streams):
            self.group.loop.call_soon(self._review, streams, start + SLICE)

    def members_changed(self) -> None:
        """Must be called after each change of the membership."""
        self.links.changed()

    async def stop(self, grace: float) -> None:
        """Accept no more and dismiss the vehicles, spread over half of ``grace`` seconds, since all of them connect to
        other doors."""
        deadline = self.group.loop.time() + grace
        if self._settling is not None:
            self._settling.cancel()
        self._listeners.close()
        await spread(list(self.group.streams), _dismiss, grace / 2)
        await settle(self.group, max(0.0, deadline - self.group.loop.time()))
        self.turn.end()
        await self.links.drain(deadline - self.group.loop.time())
        await self.links.stop()
        await settle(self._inside, max(0.1, deadline - self.group.loop.time()))
        self.wheel.stop()

    def in_force(self) -> dict[str, object]:
        """What holds at present, by name."""
        return {
            **self.clients.in_force(), "listen": self._listeners.in_force(),
            "vehicle_connects": self._context.flapping.most,
            "topic_aliases": self._context.settings.topic_aliases, "links": self.links.in_force(),
        }  # fmt: skip

    def detail(self) -> str:
        """What is wrong with certificates, or will be soon, in one sentence; else empty."""
        return self._listeners.detail()

    def status(self) -> ConnectionsStatus:
        """The status, for ``mesh status`` and metrics."""
        counters, clients, group = self._context.counters, self.clients, self.group
        sockets = SocketsStatus(
            CLIENT, len(group.streams), clients.rejected, clients.silent, group.bytes_in, group.bytes_out,
            group.held(), self._listeners.status(), clients.outlived,
        )  # fmt: skip
        return ConnectionsStatus(
            sockets, clients.buffers.status(), clients.admission.arrivals.status(), counters.accepted,
            counters.packets_up, counters.packets_down, self.links.status(), self.turn.status(),
        )  # fmt: skip

    def _vehicle(self) -> Vehicle:
        return Vehicle(self._context)


def _dismiss(stream: Stream) -> None:
    if isinstance(stream, Vehicle):
        stream.dismiss()
