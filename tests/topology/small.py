"""A small valid topology in parts, and the mistakes of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.topology.load import loads
from mesh.topology.mistakes import Mistake, TopologyErrors

LISTEN = 'mqtt: "127.0.0.1:1883"'
DOOR = 'front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:1883"}]}]\n'
CORE = 'cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]\n'
POOL = "pools: [{name: standard, edges: [{name: edge-1}]}]\n"
SMALL = f"mesh: demo\n{DOOR}{CORE}{POOL}"


def mistakes(text: str | bytes) -> list[Mistake]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(TopologyErrors) as errors:
        loads(data, "t.yaml", Path("/"))
    return errors.value.mistakes


def only(text: str | bytes) -> Mistake:
    found = mistakes(text)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]
