"""Leaky buckets by key, in a bounded table (a token bucket, counted from empty to full).

It knows keys and times: never what a key stands for. What always holds: the table has at most ``ENTRIES`` keys; at the
limit the older half of them is forgotten, and the keys that were used most recently stay.
"""

from __future__ import annotations

from typing import Final, final

ENTRIES: Final = 65_536
"""Keys of one table; some 15 MB."""


@final
class _Bucket:
    """``taken`` at the time ``since``."""

    __slots__ = ("since", "taken")

    def __init__(self, now: float) -> None:
        self.taken = 0.0
        self.since = now


@final
class Buckets:
    """A bucket for each key: ``most`` at once, which leak out again within ``seconds``. Times are in seconds, of any
    clock that never goes back."""

    __slots__ = ("_most", "_older", "_rate", "_seconds", "_taken")

    def __init__(self, most: int, seconds: float) -> None:
        self._seconds = seconds
        self._most = most
        self._rate = most / seconds
        # A key that is not there has taken nothing. Those that were used lately, and the others: a table that is
        # ordered by use costs more at each use.
        self._taken: dict[str, _Bucket] = {}
        self._older: dict[str, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._taken) + len(self._older)

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
        above = 1.0 - self._most + self.taken(key, now)
        return above / self._rate if above > 0 else 0.0

    def take(self, key: str, now: float) -> None:
        """Take one of what the key has left."""
        bucket = self._taken.get(key)
        if bucket is None:
            bucket = self._used(key, now)
        bucket.taken = self._left(bucket, now) + 1.0
        bucket.since = now

    def taken(self, key: str, now: float) -> float:
        """What the key has taken and has not leaked out yet."""
        bucket = self._taken.get(key) or self._older.get(key)
        return 0.0 if bucket is None else self._left(bucket, now)

    def _left(self, bucket: _Bucket, now: float) -> float:
        left = bucket.taken - (now - bucket.since) * self._rate
        return left if left > 0 else 0.0

    def _used(self, key: str, now: float) -> _Bucket:
        """A key that was not used lately is so from now on."""
        bucket = self._older.get(key)
        if bucket is None:
            bucket = _Bucket(now)
        else:
            del self._older[key]
        if len(self._taken) >= ENTRIES // 2:
            self._taken, self._older = {}, self._taken
        self._taken[key] = bucket
        return bucket
