"""Writes the broker's dirty connections to their sockets: the last step of a turn of a node that runs a broker.

It knows that each connection has a shell that can write: never what kind of socket it is. What always holds: a
connection is removed from the dirty list before its shell writes.
"""

from __future__ import annotations

import logging
from typing import Protocol, final

from mesh.broker.session import Connection

log = logging.getLogger(__name__)


class DirtySource(Protocol):
    """The part of a ``Broker`` that ``ConnectionWriter`` uses."""

    dirty: list[Connection]


@final
class ConnectionWriter:
    """A step of the turn: ``turn.add(ConnectionWriter(broker))``."""

    __slots__ = ("_source",)

    def __init__(self, source: DirtySource) -> None:
        self._source = source

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
            except Exception:
                log.exception("writing to the client at %s failed", connection.peer)
