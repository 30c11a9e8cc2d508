"""From the engine's dirty connections to the sockets: the last step of a turn of a node that runs an engine.

It knows that each connection has a shell that can write: never what kind of socket it is. What always holds: a
connection is taken off the dirty list before its shell is asked to write.
"""

from __future__ import annotations

import logging
from typing import Protocol, final

from mesh.broker.session import Connection

log = logging.getLogger(__name__)


class DirtySource(Protocol):
    """What the outlet needs of a ``Broker``."""

    dirty: list[Connection]


@final
class ConnectionWriter:
    """A step of the turn: ``turn.add(Outlet(broker))``. ``source`` is the engine."""

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
