"""Which release this is, and whether its hot rooms run compiled."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import Final

VERSION: Final = "0.1.0"


def compiled() -> bool:
    """Whether ``wire``, ``session`` and ``broker`` are extension modules: all together, or none of them."""
    spec = find_spec("mesh.wire.packets")
    return spec is not None and spec.origin is not None and spec.origin.endswith(tuple(EXTENSION_SUFFIXES))


def describe() -> str:
    """One line for people: ``vehicle-mesh 0.1.0 (compiled)``."""
    return f"vehicle-mesh {VERSION} ({'compiled' if compiled() else 'pure Python'})"
