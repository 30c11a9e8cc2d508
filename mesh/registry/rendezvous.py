"""The edge for a new vehicle: weighted rendezvous hashing.

Every edge gets a score from (vehicle, edge); the highest one wins. So all processes that know the same edges choose the
same one without communication, and a new edge takes its share from each of the others and moves no vehicle between
them. The score -weight / ln(u), u uniform in (0, 1), gives each edge its weight's share (Thaler and Ravishankar 1998;
the weighted form: Schindelhauer and Schomaker 2005).

What always holds: the choice is the same on every machine, in every process and every version of Python; it is part of
the mesh's contract, although an existing record takes precedence over the hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from math import log
from typing import Final

_BITS: Final = 53
"""The bits that a float holds exactly; the hash is cut to them, so that rounding cannot differ between machines."""


def score(vehicle: str, edge: str, weight: float) -> float:
    """The edge's score for the vehicle: positive; the highest one wins. ``weight`` must be above 0."""
    # The length goes first, so that ("ab", "c") and ("a", "bc") differ.
    name = vehicle.encode()
    digest = blake2b(len(name).to_bytes(4, "big") + name + edge.encode(), digest_size=8).digest()
    uniform = ((int.from_bytes(digest, "big") >> (64 - _BITS)) + 0.5) / (1 << _BITS)
    return -weight / log(uniform)


def choose(vehicle: str, edges: Mapping[str, float]) -> str | None:
    """The edge of ``edges`` (name → weight) for the vehicle; None if none has a weight above 0."""
    best: str | None = None
    highest = 0.0
    for edge, weight in edges.items():
        if weight <= 0:
            continue
        value = score(vehicle, edge, weight)
        # Equal scores are extremely unlikely, but the order of a dictionary must never decide.
        if best is None or value > highest or (value == highest and edge < best):
            best, highest = edge, value
    return best
