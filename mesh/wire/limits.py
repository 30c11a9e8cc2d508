"""The limits for the packets of a peer, as one value."""

from __future__ import annotations

from typing import Final, final

MAX_REMAINING_LENGTH: Final = 268_435_455  # four bytes of seven bits, section 1.5.5
MAX_LEVELS: Final = 128
MAX_CONNECT: Final = 256 << 10


@final
class PacketLimits:
    """Limits of one connection; sizes in bytes. A packet that exceeds one ends the connection with a reason code.

    * ``max_packet_size``: the whole packet, header included. It bounds the buffer of one connection: 1 MiB is
      enough for any command or report of a vehicle, and 10,000 connections that all stop inside a packet still fit the
      memory of one machine.
    * ``max_connect_size``: the same for CONNECT: a peer that is not authenticated yet may use less. Will, password
      and user name may have 64 KiB each.
    * ``max_user_properties``: in one list of properties. A message keeps each as objects of about 200 bytes, for a
      few bytes on the wire.
    * ``max_topic_levels``: of a name or a filter; a filter costs a node of the tree for each level.
    * ``max_subscriptions``: in one SUBSCRIBE, UNSUBSCRIBE, SUBACK or UNSUBACK, and the subscription identifiers of
      one PUBLISH. A packet of 1 MiB could have 260,000, all handled in one turn of the event loop. As many as allowed
      take 10 ms with ten levels each, 55 ms with a hundred.
    """

    __slots__ = ("max_connect_size", "max_packet_size", "max_subscriptions", "max_topic_levels", "max_user_properties")

    def __init__(
        self,
        max_packet_size: int = 1 << 20,
        max_user_properties: int = 100,
        max_topic_levels: int = MAX_LEVELS,
        max_subscriptions: int = 1024,
        max_connect_size: int = MAX_CONNECT,
    ) -> None:
        if not 2 <= max_packet_size <= MAX_REMAINING_LENGTH + 5:
            raise ValueError(f"max_packet_size is {max_packet_size}: it must be 2 to {MAX_REMAINING_LENGTH + 5} bytes")
        self.max_packet_size = max_packet_size
        self.max_user_properties = max_user_properties
        self.max_topic_levels = max_topic_levels
        self.max_subscriptions = max_subscriptions
        self.max_connect_size = min(max_connect_size, max_packet_size)

    def in_force(self) -> dict[str, object]:
        """All limits, by name."""
        return {
            "max_packet_size": self.max_packet_size, "max_connect_size": self.max_connect_size,
            "max_user_properties": self.max_user_properties, "max_topic_levels": self.max_topic_levels,
            "max_subscriptions": self.max_subscriptions,
        }  # fmt: skip

    def resize(self, max_packet_size: int) -> None:
        """Have another largest packet."""
        self.max_packet_size = max_packet_size
        self.max_connect_size = min(MAX_CONNECT, max_packet_size)

    def widen(self, other: PacketLimits) -> None:
        """Raise the limits that a topology sets to those of ``other``, if these are higher."""
        self.max_packet_size = max(self.max_packet_size, other.max_packet_size)
        self.max_topic_levels = max(self.max_topic_levels, other.max_topic_levels)
        self.max_connect_size = max(self.max_connect_size, other.max_connect_size)
