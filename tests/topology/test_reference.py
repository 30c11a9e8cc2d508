"""docs/topology.md lists every section, and every limit with its default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from mesh.topology.load import SECTIONS
from mesh.topology.topology import AUTO, NEVER, LimitsSpec
from mesh.topology.units import duration, size

TEXT = (Path(__file__).parents[2] / "docs" / "topology.md").read_text()
ROWS = dict(line.split(" | ")[:2] for line in TEXT.splitlines() if line.startswith("| `"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_documented(section: str) -> None:
    assert f"`{section}" in TEXT


READERS: dict[str, Callable[[str], float]] = {
    "count": int,
    "files": lambda text: AUTO if text == "auto" else int(text),
    "size": size,
    "time": lambda text: NEVER if text == "never" else duration(text),
    "auto": lambda text: 0 if text == "auto" else size(text),
    "none": lambda text: 0 if text == "none" else size(text),
}


@pytest.mark.parametrize("limit", fields(LimitsSpec), ids=lambda limit: limit.name)
def test_every_limit_is_documented_with_its_default(limit: Field[Any]) -> None:
    written = ROWS[f"| `{limit.name}`"].strip("`")
    assert READERS[limit.metadata["unit"]](written) == limit.default
