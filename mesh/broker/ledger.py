"""How far an edge has taken the QoS 1 messages of one core, so that a repeat over the tier link is known as one.

A core repeats what was not acknowledged when the link broke. The edge may have it already, and to a vehicle the second
copy would be a new message, with no DUP to tell it by: DUP is not passed on [MQTT-3.3.1-3]. It knows identifiers
of packets: never topics or queues. What always holds:

* a core numbers its messages for an edge in their order and repeats them in that order, so whatever lies between the
  first and the last one taken was taken; identifiers count modulo 65535, and far fewer are under way than half of that;
* the numbers begin anew with each process of the core, so its ``instance`` is part of the ledger;
* a message that was refused is never between them: when it comes again it is a new message, and its publisher hears
  what becomes of it then.
"""

from __future__ import annotations

from typing import Final, final

_IDENTIFIERS: Final = 65_535
_SPAN: Final = 16_384  # identifiers that are remembered: twice what a core has under way

# The user property of a core's CONNECT that names its process.
INSTANCE: Final = "mesh-instance"


@final
class Ledger:
    """``first`` to ``last`` are the packet identifiers taken, 0 for none; ``item`` is the ledger's journal item."""

    __slots__ = ("first", "instance", "item", "last", "touched")

    def __init__(self, instance: str, first: int = 0, last: int = 0) -> None:
        self.instance = instance
        self.first = first
        self.last = last
        self.item = 0
        self.touched = False  # it is newer than the journal's record

    def take(self, packet_id: int) -> None:
        """The message that bears ``packet_id``, which is after all before it, was taken."""
        self.last = packet_id
        if self.first == 0:
            self.first = packet_id
        elif (packet_id - self.first) % _IDENTIFIERS >= _SPAN:
            self.first = (packet_id - _SPAN) % _IDENTIFIERS + 1

    def forget(self) -> None:
        """A message was refused, or the numbers begin anew: nothing so far is known as taken."""
        self.first = 0
        self.last = 0

    def has(self, packet_id: int) -> bool:
        """Whether the message that bore ``packet_id``, which comes again, was taken."""
        return self.last != 0 and (self.last - packet_id) % _IDENTIFIERS <= (self.last - self.first) % _IDENTIFIERS
