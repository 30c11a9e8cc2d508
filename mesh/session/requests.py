"""SUBSCRIBE and UNSUBSCRIBE of a client: which wait, which are unanswered, and their packet identifiers.

It knows topic filters and identifiers; it must never know why a filter is requested. What always holds:

* requests are sent in the order in which they were made, each when the journal has reached its ``position``;
* the identifier of an unanswered request is not that of a PUBLISH in flight [MQTT-2.2.1-3];
* every request is answered or abandoned, once;
* at most ``OPEN`` requests are unanswered, so that identifiers remain for messages.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.session.fifo import Fifo
from mesh.session.outbound import Delivery
from mesh.wire.packets import Packet, Subscribe, Subscription, Unsubscribe
from mesh.wire.properties import Properties

OPEN: Final = 1024
_IDENTIFIERS: Final = 65_535


@mypyc_attr(allow_interpreted_subclasses=True)
class Request:
    """A SUBSCRIBE for one topic filter, or an UNSUBSCRIBE if ``subscription`` is ``None``. ``identifier`` is the
    subscription identifier, 0 for none."""

    __slots__ = ("filter", "identifier", "position", "subscription")

    def __init__(
        self, filter: str, subscription: Subscription | None, identifier: int = 0, position: int = 0
    ) -> None:
        self.filter = filter
        self.subscription = subscription
        self.identifier = identifier
        self.position = position

    def answered(self, reason: int) -> None:
        """The server has answered."""
        raise NotImplementedError

    def abandoned(self) -> None:
        """The connection is closed: there will be no answer."""
        raise NotImplementedError

    def packet(self, packet_id: int) -> Packet:
        """The request as a packet."""
        if self.subscription is None:
            return Unsubscribe(packet_id, [self.filter])
        properties: Properties | None = None
        if self.identifier:
            properties = Properties()
            properties.subscription_ids = [self.identifier]
        return Subscribe(packet_id, [self.subscription], properties)


@final
class Requests:
    """The requests of one session. ``open``: the unanswered ones, by packet identifier."""

    __slots__ = ("_last", "open", "waiting")

    def __init__(self) -> None:
        self.waiting: Fifo[Request] = Fifo()
        self.open: dict[int, Request] = {}
        self._last = 0

    def next(self, durable: int, in_flight: dict[int, Delivery]) -> Packet | None:
        """The packet of the oldest waiting request, if it may be sent now; the request is then open."""
        waiting = self.waiting
        if not waiting or waiting.first().position > durable or len(self.open) >= OPEN:
            return None
        packet_id = self._free(in_flight)
        if packet_id == 0:
            return None
        request = waiting.popleft()
        self.open[packet_id] = request
        return request.packet(packet_id)

    def _free(self, in_flight: dict[int, Delivery]) -> int:
        """An identifier that is not in use; 0 if all are. Requests count down, because messages count up."""
        for _ in range(_IDENTIFIERS):
            self._last = self._last - 1 if self._last > 1 else _IDENTIFIERS
            if self._last not in self.open and self._last not in in_flight:
                return self._last
        return 0

    def abandon(self) -> None:
        """The connection is closed: abandon all requests."""
        requests = [*self.open.values(), *self.waiting]
        self.open.clear()
        self.waiting.clear()
        for request in requests:
            request.abandoned()
