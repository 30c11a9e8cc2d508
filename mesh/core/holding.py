"""Which messages of one tier link are held back because the queues of their vehicles are full at the edge.

It knows vehicles, the edge's signals and the order of deliveries: never packets, publishers or the journal. What always
holds:

* messages of one vehicle pass in the order in which they came; those of other vehicles are not delayed;
* a held message whose publisher waits is refused when the vehicle's queue has been full for ``patience``
  seconds. That time is granted once until the queue reaches its low watermark. A message from the spool is
  acknowledged already, so it is never refused here;
* a lost link changes no state: the edge names the vehicles whose queues are full when it is connected again, before
  messages are sent, and the others drain then;
* what waits for the edge's acknowledgement is a *portion*: after LOW, one portion is sent at a time, so that HIGH can
  come before the next one.
"""

from __future__ import annotations

from typing import Final, final

from mesh.session.fifo import Fifo
from mesh.session.outbound import Delivery

# States of a vehicle.
FREE: Final = 0  # its messages pass
HELD: Final = 1  # its queue is full: its messages are held
DRAINING: Final = 2  # its queue has drained: the held messages are sent in portions
REFUSING: Final = 3  # its queue has been full for too long: messages are refused

# Events.
HIGH: Final = 0  # the edge: the queue is full
LOW: Final = 1  # the edge: the queue has drained
SPENT: Final = 2  # the patience is spent
EMPTY: Final = 3  # the last portion is acknowledged, and none is left

STATES: Final[dict[int, str]] = {FREE: "free", HELD: "held", DRAINING: "draining", REFUSING: "refusing"}
EVENTS: Final[dict[int, str]] = {HIGH: "high", LOW: "low", SPENT: "spent", EMPTY: "empty"}

TRANSITIONS: Final[dict[tuple[int, int], int]] = {
    (FREE, HIGH): HELD,
    (FREE, LOW): FREE,
    (HELD, HIGH): HELD,
    (HELD, LOW): DRAINING,
    (HELD, SPENT): REFUSING,
    (DRAINING, HIGH): HELD,
    (DRAINING, LOW): DRAINING,
    (DRAINING, EMPTY): FREE,
    (REFUSING, HIGH): REFUSING,
    (REFUSING, LOW): DRAINING,
}

# What becomes of a delivery at the head of the link's queue.
PASSES: Final = 0
KEPT: Final = 1
REFUSED: Final = 2

PORTION: Final = 64  # far fewer than the edge lets a queue exceed its limit; enough that the wait for it costs little

# Held messages of a link whose publishers wait. The receive maximum of the publishers (1,024 for one) bounds them too.
_MESSAGES: Final = 65_536
_BYTES: Final = 64 << 20
# Held deliveries of one vehicle, with those of the spool, beyond which new messages are refused: a message of QoS 2 is
# acknowledged when it is in the spool, and one vehicle must not fill that.
_OF_VEHICLE: Final = 16_384


@final
class IllegalEvent(Exception):
    """The state of the vehicle does not allow the event."""


@final
class HeldVehicle:
    """``since``: when its queue became full, in seconds since 1970. ``returned``: deliveries of the last portion that
    were not sent before the queue was full again; they come before those in ``held``. ``open``: how many deliveries of
    the portion are not acknowledged or returned."""

    __slots__ = ("held", "name", "open", "returned", "since", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = FREE
        self.since = 0.0
        self.open = 0
        self.returned: Fifo[Delivery] = Fifo()
        self.held: Fifo[Delivery] = Fifo()

    def step(self, event: int) -> None:
        """Change the state. Raises ``IllegalEvent`` if the table does not allow it."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            raise IllegalEvent(f"{EVENTS[event]}: not possible while {STATES[self.state]}")
        self.state = following

    def take(self) -> Delivery | None:
        """Take out the oldest delivery that is held."""
        if self.returned:
            return self.returned.popleft()
        return self.held.popleft() if self.held else None


@final
class Holding:
    """``vehicles``: those that are not free. ``messages`` and ``bytes`` count the held deliveries whose publishers
    wait, ``refused`` the refused ones. ``patience`` in seconds."""

    __slots__ = ("_portions", "bytes", "messages", "overflowed", "patience", "refused", "vehicles")

    def __init__(self, patience: float) -> None:
        self.vehicles: dict[str, HeldVehicle] = {}
        self.messages = 0
        self.bytes = 0
        self.refused = 0
        self.overflowed = ""  # a vehicle whose message was refused because too many are held; its reader clears it
        self.patience = patience
        self._portions: dict[Delivery, HeldVehicle] = {}  # the deliveries that ``HeldVehicle.open`` counts

    def __len__(self) -> int:
        """How many deliveries are held."""
        return sum(len(vehicle.returned) + len(vehicle.held) for vehicle in self.vehicles.values())

    # Before a message is queued

    def admits(self, name: str, size: int) -> bool:
        """Whether a new message of ``size`` bytes for a vehicle is queued; otherwise its publisher is refused."""
        vehicle = self.vehicles.get(name)
        if vehicle is None:
            return True
        full = self.messages >= _MESSAGES or self.bytes + size > _BYTES or len(vehicle.held) >= _OF_VEHICLE
        if full or vehicle.state == REFUSING:
            self.refused += 1
            if full:
                self.overflowed = name
            return False
        return True

    # At the head of the queue

    def judge(self, name: str, delivery: Delivery) -> int:
        """PASSES: send the delivery of a vehicle now. KEPT: it is held here. REFUSED: refuse it."""
        vehicle = self.vehicles.get(name)
        if vehicle is None:
            return PASSES
        portion = self._portions.get(delivery)
        if portion is not None and vehicle.state == DRAINING and not vehicle.returned:
            return PASSES
        if portion is not None:
            del self._portions[delivery]
            vehicle.open -= 1
        if vehicle.state == REFUSING and not delivery.item:
            self.refused += 1
            return REFUSED
        (vehicle.held if portion is None else vehicle.returned).append(delivery)
        self._count(delivery, 1)
        return KEPT

    def _count(self, delivery: Delivery, change: int) -> None:
        if not delivery.item:
            self.messages += change
            self.bytes += change * delivery.size

    # Events

    def signal(self, name: str, high: bool, now: float) -> HeldVehicle | None:
        """The edge's signal for a vehicle. Returns the vehicle if its next portion may be due."""
        vehicle = self.vehicles.get(name)
        if vehicle is None:
            if not high:
                return None
            vehicle = self.vehicles[name] = HeldVehicle(name)
        before = vehicle.state
        vehicle.step(HIGH if high else LOW)
        if vehicle.state == HELD and before != HELD:
            vehicle.since = now
        return vehicle if vehicle.state == DRAINING else None

    def answered(self, delivery: Delivery) -> HeldVehicle | None:
        """A delivery was acknowledged or has expired. Returns its vehicle if the next portion may be due."""
        vehicle = self._portions.pop(delivery, None)
        if vehicle is not None:
            vehicle.open -= 1
        return vehicle

    def portion(self, vehicle: HeldVehicle) -> list[Delivery]:
        """Take out the next portion, if the last one is done and the vehicle is draining. The vehicle is free when
        nothing is left."""
        taken: list[Delivery] = []
        if vehicle.state != DRAINING or vehicle.open:
            return taken
        while len(taken) < PORTION:
            delivery = vehicle.take()
            if delivery is None:
                break
            self._count(delivery, -1)
            self._portions[delivery] = vehicle
            taken.append(delivery)
        vehicle.open = len(taken)
        if not taken:
            vehicle.step(EMPTY)
            del self.vehicles[vehicle.name]
        return taken

    def impatient(self, now: float) -> list[HeldVehicle]:
        """The vehicles whose patience is spent now; their held messages have to be refused with ``refuse``."""
        spent = [
            vehicle
            for vehicle in self.vehicles.values()
            if vehicle.state == HELD and now - vehicle.since >= self.patience
        ]
        for vehicle in spent:
            vehicle.step(SPENT)
        return spent

    def refuse(self, held: Fifo[Delivery], place: int) -> Delivery | None:
        """Take out the delivery at a place of ``HeldVehicle.returned`` or ``held``, if its publisher waits."""
        delivery = held.at(place)
        if delivery is None or delivery.item:
            return None
        held.remove(place)
        self._count(delivery, -1)
        self.refused += 1
        return delivery

    def spooled(self, delivery: Delivery) -> None:
        """The publisher of a held delivery was answered: it is in the spool from now on, and waits."""
        self.messages -= 1
        self.bytes -= delivery.size
