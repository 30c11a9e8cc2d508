"""The broker's view of the object that owns the connection to a client: it writes output on request.

It knows neither sockets nor links: the transport room and the nodes derive from it. What always holds: ``flush`` is
called only at the end of a turn.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Flushable:
    """Gathers output during a turn and writes it at the end of the turn. A connection to a client or a link derives it.
    A base class for the reason that ``session/store.py`` gives."""

    __slots__ = ()

    def flush(self) -> None:
        """Write the gathered output."""
        raise NotImplementedError

    def resumed(self, begun: int) -> None:
        """The broker is about to go on with a packet of this connection outside of the call that brought it, see
        ``Connection.begun``."""

    def rested(self) -> None:
        """The broker stops for now to work on that packet."""
