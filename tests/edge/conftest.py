"""What these tests leave outside of their folder is removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.edge.breadcrumb import remove_breadcrumb


@pytest.fixture(autouse=True)
def no_breadcrumb_left(tmp_path: Path) -> Iterator[None]:
    yield
    remove_breadcrumb(tmp_path)
