"""For all tests: the variant of the package under test, and the settings of hypothesis."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

import mesh
from mesh.version import compiled

# No deadline: on a busy machine the time of an example says nothing about the code.
settings.register_profile("mesh", deadline=None, print_blob=True)
# In continuous integration: the same examples in every run, and no stored state.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "mesh")

VARIANT = "compiled" if compiled() else "pure"


def pytest_configure() -> None:
    """Fail unless the variant is the one in ``MESH_UNDER_TEST`` (``compiled`` or ``pure``), if that is set."""
    wanted = os.environ.get("MESH_UNDER_TEST", VARIANT)
    if wanted != VARIANT:
        raise pytest.UsageError(f"MESH_UNDER_TEST asks for the {wanted} package, but {mesh.__path__[0]} is {VARIANT}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first, so that the last files to run are short."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_report_header() -> str:
    return header()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the header at the end as well, because quiet runs do not show it."""
    terminalreporter.write_line(header())


def header() -> str:
    return f"under test: vehicle-mesh, {VARIANT}, from {Path(mesh.__path__[0]).parent.name}"
