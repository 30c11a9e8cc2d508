"""docs/topology.md names every key with the default that the code has."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from mesh.topology.load import SECTIONS
from mesh.topology.topology import NEVER, Limits
from mesh.topology.units import duration, size

TEXT = (Path(__file__).parents[2] / "docs" / "topology.md").read_text()
ROWS = dict(line.split(" | ")[:2] for line in TEXT.splitlines() if line.startswith("| `"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_explained(section: str) -> None:
    assert f"`{section}" in TEXT


@pytest.mark.parametrize("limit", fields(Limits), ids=lambda limit: limit.name)
def test_every_limit_is_there_with_its_default(limit: object) -> None:
    name, default, unit = limit.name, limit.default, limit.metadata["unit"]  # type: ignore[attr-defined]
    written = ROWS[f"| `{name}`"].strip("`")
    read = {"count": int, "size": size, "time": lambda text: NEVER if text == "never" else duration(text)}[unit]
    assert read(written) == default
