"""docs/conformance.md matches the tests."""

from __future__ import annotations

import subprocess
import sys


def test_page_matches_the_tests() -> None:
    """The check also fails for unknown statement numbers and for explanations of statements that have a test."""
    command = [sys.executable, "-P", "-m", "tools.conformance", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
