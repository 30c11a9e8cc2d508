"""The live keys of the topology, from its declarations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import get_args

from mesh.topology.keys import Live, Members, Parts, declared
from mesh.topology.topology import Topology


def live_keys(section: type = Topology, path: str = "") -> Iterator[str]:
    """Their paths as in the file, with ``*`` for the name of a thing."""
    for item in declared(section):
        place = f"{path}.{item.path}" if path else item.path
        inner = [kind for kind in (get_args(item.kind) or (item.kind,)) if is_dataclass(kind)]
        mark = item.mark
        if isinstance(mark, (Live, Members)) or (isinstance(mark, Parts) and isinstance(mark.whole, Live)):
            yield place
        if isinstance(mark, (Members, Parts)):
            for kind in inner:
                assert isinstance(kind, type)
                yield from live_keys(kind, f"{place}.*" if isinstance(mark, Members) else place)
