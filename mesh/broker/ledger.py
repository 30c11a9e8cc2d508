"""How far an edge has taken the QoS 1 messages of one core, so that a repeat over the tier link is known as one.

A core repeats what was not acknowledged when the link broke. The edge may have it already, and to a vehicle the second
copy would be a new message, with no DUP to tell it by: DUP is not passed on [MQTT-3.3.1-3]. It knows identifiers
of packets: never topics or queues. What always holds:

* a core numbers its messages for an edge in their order and repeats them in that order, so whatever is not after the
  last one taken was taken; identifiers count modulo 65535, and far fewer are under way than half of that;
* the numbers begin anew with each process of the core, so its ``instance`` is part of the ledger;
* a message that was refused is not passed over later: the ledger then forgets, and a repeat is a new message again.
"""

from __future__ import annotations

from typing import Final, final

_IDENTIFIERS: Final = 65_535
_HALF: Final = 32_768

# The user property of a core's CONNECT that names its process.
INSTANCE: Final = "mesh-instance"


@final
class Ledger:
    """``last`` is the packet identifier of the last message taken, 0 for none; ``item`` is its journal item."""

    __slots__ = ("instance", "item", "last", "touched")

    def __init__(self, instance: str, last: int = 0) -> None:
        self.instance = instance
        self.last = last
        self.item = 0
        self.touched = False  # ``last`` is newer than the journal's record

    def has(self, packet_id: int) -> bool:
        """Whether the message that bore ``packet_id``, which comes again, was taken."""
        return self.last != 0 and (self.last - packet_id) % _IDENTIFIERS < _HALF
