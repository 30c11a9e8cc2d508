"""Messages for very many receivers, and those that must not overtake them: queued for their receivers in portions.

It knows messages and their receivers: never packets, connections or subscriptions. What always holds:

* messages reach each session, and each shared group, in the order in which they came: a message waits behind the others
  here if a receiver of it is still to get one of them (``overtakes``); all others pass;
* a message of QoS 1 or 2 for durable sessions is in the journal, with its place in the list of its receivers, from the
  turn in which it came until all have it. The place is written with the deliveries and dead letters of each portion, so
  a crash neither loses nor repeats any: the rest get it after the restart;
* its publisher is answered when all have it. It is never refused then: what finds no room goes to the dead letters;
* messages that move into a session from elsewhere (``move``) are not overtaken either;
* a message takes the same memory and the same time to begin, whatever the number of its receivers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.persistence import Persistence
from mesh.broker.place import ALL, Place
from mesh.broker.principal import TIER
from mesh.broker.refusals import Missed, Refusals
from mesh.broker.session import Session
from mesh.broker.subscriptions import SORTED, Route, RouteTarget, SharedGroup, id_of, name_of
from mesh.broker.work import Work
from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.wire.reasons import SUCCESS, UNSPECIFIED_ERROR, is_error

_PORTION: Final = 32  # receivers between two records of the place
_DELIVERY: Final = 10  # steps of one delivery, see ``work``
_LETTER: Final = 30  # of a dead letter, for a receiver without room
_BEGIN: Final = Place()
_ROUTES: Final = 8  # routes that are remembered: one of 20,000 receivers takes 4 MB

# Messages that wait, and bytes of those that are in memory only. Publishers bound the rest: they wait for an answer.
_MOST: Final = 65_536
_MOST_BYTES: Final = 64 << 20


@final
class FanOut:
    """A message and its receivers: the targets and groups of ``route``; ``None`` until they are looked up again.
    ``source``: the session of its publisher. ``item``: its journal item, 0 for none; ``body``: that of the message,
    which is not in memory then. ``moving``: in place of a message, what moves others into a session."""

    __slots__ = (
        "body", "from_tier", "item", "message", "missed", "moving", "place", "receipt", "route", "size", "source",
        "topic",
    )  # fmt: skip

    def __init__(
        self,
        message: Message | None,
        source: Session | None,
        receipt: Receipt | None,
        route: Route | None,
        place: Place,
        moving: Iterator[int] | None = None,
    ) -> None:
        self.message = message
        self.moving = moving
        self.topic = "" if message is None else message.topic
        self.from_tier = message is None or message.from_tier
        self.source = source
        self.receipt = receipt
        self.route = route
        self.place = place
        self.item = 0
        self.body = 0
        self.size = 0
        self.missed: list[Missed] = []


@final
class FanOuts:
    """``busy``: there are messages. ``find`` gives the present route of one; ``deliver`` queues one for a receiver,
    unless that is not to get it, and returns a reason code; ``answered`` is called with a receipt that no longer
    waits."""

    __slots__ = (
        "_answered", "_blind", "_bytes", "_deliver", "_due", "_find", "_local", "_persistence", "_refusals", "_routes",
        "_work", "busy",
    )  # fmt: skip

    def __init__(
        self,
        persistence: Persistence,
        refusals: Refusals,
        work: Work,
        find: Callable[[str, Place], Route],
        deliver: Callable[[RouteTarget, Message, Session | None, Receipt | None, str], int],
        answered: Callable[[Receipt], None],
    ) -> None:
        self._persistence = persistence
        self._refusals = refusals
        self._work = work
        self._find = find
        self._deliver = deliver
        self._answered = answered
        self._due: Fifo[FanOut] = Fifo()
        self._routes: dict[Route, int] = {}  # of the messages that wait, and of how many of them
        self._local = 0  # messages of other publishers than cores
        self._blind = 0  # messages whose route is not remembered
        self._bytes = 0
        self.busy = False

    def __len__(self) -> int:
        return len(self._due)

    def overtakes(self, message: Message, targets: list[RouteTarget], groups: list[SharedGroup]) -> bool:
        """Whether a message for these receivers must wait behind those that are here. Messages of cores never go to
        cores."""
        if self._blind:
            return True
        cores = self._local > 0 and not message.from_tier
        first = self._due.first()
        for route, count in self._routes.items():
            place = first.place if route is first.route and count == 1 else _BEGIN
            for target in targets:
                session = target.session
                if (cores or session.kind != TIER) and session.id > place.session and route.has(session):
                    return True
            for group in groups:
                if (cores or not group.of_cores) and group.full > place.group and route.has(group):
                    return True
        return False

    def has_room(self, message: Message) -> bool:
        """Whether one more message may wait here. The publisher of one of QoS 1 or 2 waits for its answer."""
        return message.qos > 0 or (len(self._due) < _MOST and self._bytes + message.size() <= _MOST_BYTES)

    def add(
        self, message: Message, source: Session | None, receipt: Receipt | None, route: Route, place: Place
    ) -> None:
        """Begin to queue a message for the receivers of ``route``. The first of them get it at the end of this turn.
        ``place`` says which receivers ``route`` has."""
        fan_out = FanOut(message, source, receipt, route, place)
        message.fan_out = True
        if message.qos and (route.groups or any(target.session.durable for target in route.targets)):
            self._persistence.share(message)
            fan_out.body = message.body
            fan_out.message = None
            message.body = 0
            self._record(fan_out)
        else:
            fan_out.size = message.size()
            self._bytes += fan_out.size
        if receipt is not None:
            receipt.pending += 1
            if receipt.position < fan_out.item:
                receipt.position = fan_out.item
        self._begin(fan_out)

    def restore(self, message: Message, source: Session | None, item: int, place: Place) -> None:
        """Go on with a message after a restart, from a place that the journal has."""
        fan_out = FanOut(message, source, None, None, place)
        fan_out.message = None
        fan_out.body, fan_out.item = place.body, item
        self._begin(fan_out)

    def move(self, session: Session, moving: Iterator[int]) -> None:
        """Do what moves messages into a session of a vehicle, in slices. Messages that come meanwhile wait."""
        self._begin(FanOut(None, None, None, Route([], [], session), Place(), moving))

    def _begin(self, fan_out: FanOut) -> None:
        route = fan_out.route
        if route is not None and fan_out.moving is None and route not in self._routes and len(self._routes) >= _ROUTES:
            route = fan_out.route = None
        if route is None:
            self._blind += 1
        else:
            self._routes[route] = self._routes.get(route, 0) + 1
        if not fan_out.from_tier:
            self._local += 1
        self._due.append(fan_out)
        if not self.busy:
            self.busy = True
            self._work.add(self._serve())

    def _serve(self) -> Iterator[int]:
        while self._due:
            fan_out = self._due.first()
            try:
                yield from self._send(fan_out)
            except Exception:  # an error in this program must not stop the others; the journal keeps the message
                self._end(fan_out, UNSPECIFIED_ERROR)
                if self.busy:
                    self._work.add(self._serve())
                raise
            self._end(fan_out, SUCCESS)

    def _send(self, fan_out: FanOut) -> Iterator[int]:
        if fan_out.moving is not None:
            yield from fan_out.moving
            return
        message = self._load(fan_out)
        route = fan_out.route
        if route is None:
            route = fan_out.route = self._find(fan_out.topic, fan_out.place)
            self._blind -= 1
            self._routes[route] = self._routes.get(route, 0) + 1
        for count in self._portions(fan_out, message, route):
            steps = count * _DELIVERY + len(fan_out.missed) * _LETTER
            self._settle(fan_out, message)
            if fan_out.item:
                self._record(fan_out)
            yield steps
        if fan_out.item:
            self._persistence.forget_fan_out(fan_out.item, message)
        elif message.body:
            self._persistence.unshare(message)

    def _settle(self, fan_out: FanOut, message: Message) -> None:
        """Keep the message for the receivers of this portion that had no room, before the place says that they have it.
        """
        missed, fan_out.missed = fan_out.missed, []
        if missed:
            receipt = fan_out.receipt
            told = None if receipt is None or receipt.closed else receipt
            self._refusals.settle(message, fan_out.source, told, missed, True)

    def _load(self, fan_out: FanOut) -> Message:
        message = fan_out.message
        if message is None:
            message = self._persistence.read(fan_out.body)
            message.body = fan_out.body
            message.fan_out = True
        return message

    def _portions(self, fan_out: FanOut, message: Message, route: Route) -> Iterator[int]:
        """Queue the message for the receivers behind the present place. Yields how many were looked at, at least one.
        """
        targets, groups = route.targets, route.groups
        if len(targets) <= SORTED:
            targets = sorted(targets, key=id_of)
        if len(groups) <= SORTED:
            groups = sorted(groups, key=name_of)
        looked = 0
        for target in targets:
            looked += 1
            if target.session.id > fan_out.place.session:
                fan_out.place.session = target.session.id
                self._give(fan_out, message, target, "")
            if looked == _PORTION:
                yield looked
                looked = 0
        fan_out.place.session = ALL
        for group in groups:
            looked += 1
            if group.full > fan_out.place.group:
                fan_out.place.group = group.full
                chosen = None if message.from_tier and group.of_cores else group.choose()
                if chosen is not None:
                    self._give(fan_out, message, chosen, group.full)
            if looked == _PORTION:
                yield looked
                looked = 0
        yield looked + 1

    def _give(self, fan_out: FanOut, message: Message, target: RouteTarget, group: str) -> None:
        if target.session.ended:
            return
        if is_error(self._deliver(target, message, fan_out.source, fan_out.receipt, group)):
            fan_out.missed.append(Missed(target.session, target, group))

    def _record(self, fan_out: FanOut) -> None:
        """Write which receivers have the message."""
        place = fan_out.place
        place.body = fan_out.body
        place.source = 0 if fan_out.source is None else fan_out.source.id
        fan_out.item = self._persistence.keep_fan_out(fan_out.item, place)

    def _end(self, fan_out: FanOut, reason: int) -> None:
        self._due.popleft()
        self.busy = bool(self._due)
        self._bytes -= fan_out.size
        if not fan_out.from_tier:
            self._local -= 1
        route = fan_out.route
        if route is None:
            self._blind -= 1
        else:
            left = self._routes[route] - 1
            if left:
                self._routes[route] = left
            else:
                del self._routes[route]
        receipt = fan_out.receipt
        if receipt is not None:
            receipt.pending -= 1
            receipt.note(reason)
            self._answered(receipt)
