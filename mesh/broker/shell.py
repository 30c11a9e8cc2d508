"""What the engine knows of the object that owns the way to a client: it writes when it is told to.

It knows neither sockets nor links: the transport room and the nodes derive it. What always holds: ``flush`` is called
at the end of a turn only.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class Flushable:
    """Something that gathers output during a turn and writes it at the end: what owns the way to one client, or a link.
    A base class for the reason that ``session/store.py`` gives."""

    __slots__ = ()

    def flush(self) -> None:
        """Write what was gathered."""
        raise NotImplementedError
