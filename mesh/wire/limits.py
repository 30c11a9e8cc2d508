"""What a peer may make us hold, as one value."""

from __future__ import annotations

from typing import Final, final

MAX_REMAINING_LENGTH: Final = 268_435_455  # four bytes of seven bits, section 1.5.5
MAX_LEVELS: Final = 128


@final
class PacketLimits:
    """Limits of one connection; sizes in bytes. A packet beyond one of them ends the connection with a reason code.

    * ``max_packet_size``: the whole packet, header included. It bounds what is buffered for one connection; 1 MiB
      holds any command or report of a vehicle, while 10,000 connections that all stop inside a packet still fit the
      memory of one machine.
    * ``max_connect_size``: the same for CONNECT: a peer that nobody has authenticated yet gets less. Will, password
      and user name may be 64 KiB each.
    * ``max_user_properties``: in one list of properties. Every message keeps them as objects, at about 200 bytes for
      a few on the wire.
    * ``max_topic_levels``: of a name or a filter; a filter costs a node of the tree for each level.
    * ``max_subscriptions``: in one SUBSCRIBE, UNSUBSCRIBE, SUBACK or UNSUBACK, and the subscription identifiers of
      one PUBLISH. A packet of 1 MiB could bring 260,000, and all would be handled in one turn of the loop.
    """

    __slots__ = ("max_connect_size", "max_packet_size", "max_subscriptions", "max_topic_levels", "max_user_properties")

    def __init__(
        self,
        max_packet_size: int = 1 << 20,
        max_user_properties: int = 100,
        max_topic_levels: int = MAX_LEVELS,
        max_subscriptions: int = 4096,
        max_connect_size: int = 256 << 10,
    ) -> None:
        if not 2 <= max_packet_size <= MAX_REMAINING_LENGTH + 5:
            raise ValueError(f"max_packet_size is {max_packet_size}: it must be 2 to {MAX_REMAINING_LENGTH + 5} bytes")
        self.max_packet_size = max_packet_size
        self.max_user_properties = max_user_properties
        self.max_topic_levels = max_topic_levels
        self.max_subscriptions = max_subscriptions
        self.max_connect_size = min(max_connect_size, max_packet_size)
