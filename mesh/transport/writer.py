"""Writes the broker's dirty connections to their sockets: the last step of a turn of a node that runs a broker.

It knows that each connection has a shell that can write: never what kind of socket it is. What always holds: a
connection is removed from the dirty list before its shell writes.
"""

from __future__ import annotations

import logging
import time
from typing import Protocol, final

from mesh.broker.notices import Notices
from mesh.broker.session import Connection

log = logging.getLogger(__name__)


class DirtySource(Protocol):
    """The part of a ``Broker`` that ``ConnectionWriter`` uses."""

    dirty: list[Connection]


@final
class ConnectionWriter:
    """A step of the turn: ``turn.add(ConnectionWriter(broker))``."""

    __slots__ = ("_faults", "_source")

    def __init__(self, source: DirtySource) -> None:
        self._source = source
        self._faults = Notices(log.exception, time.monotonic)

    def __call__(self) -> None:
        dirty = self._source.dirty
        if not dirty:
            return
        ready = dirty[:]
        dirty.clear()
        for connection in ready:
            connection.dirty = False
            try:
                connection.shell.flush()
            except Exception:  # noqa: BLE001 - logged with its traceback, at a bounded rate
                self._faults.warn("flush", "writing to the client at %s failed", connection.peer)
