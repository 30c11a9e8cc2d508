"""Follows the numbers of the revision in force and of the proposed one.

It knows two keys. It must never know what the settings mean. What always holds:

- The listener sees states, not steps: when it is called, ``current`` and ``proposed`` are what etcd had at one moment.
  A commit changes both at once.
- Without etcd both stay as they were. An emptied etcd has neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient
from mesh.registry.errors import BadRecord
from mesh.registry.keys import Keys, after
from mesh.registry.settings import number_in
from mesh.registry.watch import Watch

log = logging.getLogger("mesh.registry.settingswatch")


def nothing() -> None:
    """The default: no listener."""


@final
class SettingsWatch:
    """One watch of one mesh's settings."""

    __slots__ = ("_found", "_keys", "_numbers", "_watch", "known", "on_change")

    def __init__(self, client: EtcdClient, mesh: str) -> None:
        keys = self._keys = Keys(mesh)
        # One stream for both, so that they stay in order. Other keys in the range (the last number) are ignored.
        self._watch = Watch(client, keys.current, self, end=after(keys.proposed))
        self._numbers: dict[bytes, int] = {}
        self._found: dict[bytes, int] = {}
        self.known = False
        """Whether etcd was asked once. Before, 0 means nothing."""
        self.on_change: Callable[[], None] = nothing
        """Called after each change, and after the first answer of etcd."""

    @property
    def current(self) -> int:
        """The revision in force; 0 for none."""
        return self._numbers.get(self._keys.current, 0)

    @property
    def proposed(self) -> int:
        """The revision that is proposed; 0 for none."""
        return self._numbers.get(self._keys.proposed, 0)

    @property
    def live(self) -> bool:
        """Whether the watch is open and up to date."""
        return self._watch.live

    async def start(self, wait: float) -> bool:
        """Start following; return whether etcd answered within ``wait`` seconds. If not, the attempts continue.

        Raises RegistryError if waiting cannot help (wrong password)."""
        return await self._watch.start(wait)

    async def stop(self) -> None:
        await self._watch.stop()

    # The follower of the watch

    def begin(self, revision: int, since: int) -> None:
        self._found = {}

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        for entry in entries:
            self._put(self._found, entry)
        return True

    def end(self) -> Iterator[None]:
        self._set(self._found)
        yield from ()

    def apply(self, events: Sequence[pb.Event]) -> None:
        numbers = dict(self._numbers)
        for event in events:
            if event.type == pb.Event.DELETE:
                numbers.pop(event.kv.key, None)
            else:
                self._put(numbers, event.kv)
        self._set(numbers)

    def _set(self, numbers: dict[bytes, int]) -> None:
        changed = numbers != self._numbers or not self.known
        self._numbers = numbers
        self.known = True
        if changed:
            self.on_change()

    def _put(self, numbers: dict[bytes, int], entry: pb.KeyValue) -> None:
        """Note the number of a key. A value of another form is logged, and what was known before stays."""
        if entry.key not in (self._keys.current, self._keys.proposed):
            return
        try:
            numbers[entry.key] = number_in(entry)
        except BadRecord as error:
            log.error("ignoring a change of the settings: %s", error)
