"""Leaky buckets by key, in a bounded table (a token bucket, counted from empty to full).

It knows keys and times: never what a key stands for. What always holds: the table has at most ``ENTRIES`` keys; at the
limit the key that was used least recently is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, final

ENTRIES: Final = 65_536
"""Keys of one table; some 15 MB."""


@final
class Buckets:
    """A bucket for each key: ``most`` at once, which leak out again within ``seconds``. Times are in seconds, of any
    clock that never goes back."""

    __slots__ = ("_most", "_rate", "_seconds", "_taken")

    def __init__(self, most: int, seconds: float) -> None:
        self._seconds = seconds
        self._most = most
        self._rate = most / seconds
        # Key: what is taken, and when that was so. A key that is not there has taken nothing.
        self._taken: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._taken)

    @property
    def most(self) -> int:
        """What each key may take at once."""
        return self._most

    def allow(self, most: int) -> None:
        """Another ``most`` from now on; what is taken stays taken."""
        self._most = most
        self._rate = most / self._seconds

    def wait(self, key: str, now: float) -> float:
        """Seconds until the key has something left; 0 if it has."""
        return max(0.0, (1.0 - self._most + self.taken(key, now)) / self._rate)

    def take(self, key: str, now: float) -> None:
        """Take one of what the key has left."""
        self._taken[key] = (self.taken(key, now) + 1.0, now)
        self._taken.move_to_end(key)
        if len(self._taken) > ENTRIES:
            self._taken.popitem(last=False)

    def taken(self, key: str, now: float) -> float:
        """What the key has taken and has not leaked out yet."""
        found = self._taken.get(key)
        if found is None:
            return 0.0
        return max(0.0, found[0] - (now - found[1]) * self._rate)
