"""The journal's record of a delivery: the fields that every item of a delivery begins with.

It knows these fields and their layout; it must never know the kind of the item, or what its owner puts behind them.
What always holds: a layout never changes, so that journals of earlier versions can be read.
"""

from __future__ import annotations

import struct
from typing import Final, final

from mesh.session.outbound import Delivery
from mesh.session.store import Item

_QOS: Final = 0x03
_RETAIN: Final = 0x04


@final
class Layout:
    """``shared``: several deliveries may share one body, so the record names its item. ``size``: bytes of a record.

    Fields, big-endian: number (u64), the shared body's item (u64; only with ``shared``), size of the message (u32),
    flags (u8), time of queuing and time of expiry (f64 each, seconds since 1970), and a count (u16) for the owner.
    """

    __slots__ = ("_fields", "_shared", "size")

    def __init__(self, shared: bool) -> None:
        self._shared = shared
        self._fields = struct.Struct("!QQIBddH" if shared else "!QIBddH")
        self.size = self._fields.size

    def pack(self, delivery: Delivery, count: int) -> bytes:
        """The record of a delivery; ``count`` is how many fields of the owner follow it."""
        flags = delivery.qos | (_RETAIN if delivery.retain else 0)
        number, size, since, expires = delivery.number, delivery.size, delivery.since, delivery.expires
        if self._shared:
            return self._fields.pack(number, delivery.body, size, flags, since, expires, count)
        return self._fields.pack(number, size, flags, since, expires, count)

    def unpack(self, item: Item) -> tuple[Delivery, int]:
        """The delivery at the start of an item's ``meta``, without its message, and the count."""
        body = 0
        if self._shared:
            number, body, size, flags, since, expires, count = self._fields.unpack_from(item.meta)
        else:
            number, size, flags, since, expires, count = self._fields.unpack_from(item.meta)
        delivery = Delivery(None, flags & _QOS, bool(flags & _RETAIN), (), since, expires, size)
        delivery.number = number
        delivery.body = body
        delivery.item = item.id
        delivery.position = item.id
        return delivery, count


SHARED: Final = Layout(True)
WHOLE: Final = Layout(False)
