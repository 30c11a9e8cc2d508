"""How far a message for many receivers has come.

It knows numbers of sessions and names of groups only. What always holds: the receivers that come before a place have
the message, and the others do not.
"""

from __future__ import annotations

from typing import Final, final

ALL: Final = (1 << 63) - 1  # behind all sessions


@final
class Place:
    """Sessions up to ``session``, then shared groups up to ``group``, have the message with this ``body``. ``source``:
    the session of its publisher, 0 for none. ``plain``: sessions get it; ``groups``: the only shared groups that do,
    ``None`` for all."""

    __slots__ = ("body", "group", "groups", "plain", "session", "source")

    def __init__(self, plain: bool = True, groups: list[str] | None = None) -> None:
        self.plain = plain
        self.groups = groups
        self.body = 0
        self.source = 0
        self.session = 0
        self.group = ""
