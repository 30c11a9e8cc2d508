"""What all tests share: which variant of the package is under test, and how hypothesis works here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

import mesh
from mesh.version import compiled

# The machine may be busy: how long an example takes says nothing about the code.
settings.register_profile("mesh", deadline=None, print_blob=True)
# In continuous integration the same examples every time, and no state that is left behind.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "mesh")

VARIANT = "compiled" if compiled() else "pure"


def pytest_configure() -> None:
    """Refuse to test something else than what was asked for: ``MESH_UNDER_TEST`` is ``compiled`` or ``pure``."""
    wanted = os.environ.get("MESH_UNDER_TEST", VARIANT)
    if wanted != VARIANT:
        raise pytest.UsageError(f"the {wanted} package is to be tested, but {mesh.__path__[0]} is {VARIANT}")


def pytest_report_header() -> str:
    return header()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Quiet runs show no header, so it stands at the end as well."""
    terminalreporter.write_line(header())


def header() -> str:
    return f"under test: vehicle-mesh, {VARIANT}, from {Path(mesh.__path__[0]).parent.name}"
