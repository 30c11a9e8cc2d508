"""The client that published retained messages, and which of them there still are.

It knows the key of a session and topics: never what the client may do. What always holds: a sender without retained
messages is forgotten.
"""

from __future__ import annotations

from typing import final

from mesh.broker.session import Key


@final
class Sender:
    """``roles``: those that the client had when it was last seen; ``provider``: who admitted it, if this node knows
    that. ``topics``: of its retained messages, by item."""

    __slots__ = ("key", "provider", "roles", "topics")

    def __init__(self, key: Key, roles: tuple[str, ...], provider: str = "") -> None:
        self.key = key
        self.provider = provider
        self.roles = roles
        self.topics: dict[int, str] = {}
