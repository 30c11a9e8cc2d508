"""docs/conformance.md says what the tests say."""

from __future__ import annotations

import subprocess
import sys


def test_the_page_is_what_the_tests_say() -> None:
    """It also fails for numbers that no specification has, and for explanations that are not needed any more."""
    command = [sys.executable, "-P", "-m", "tools.conformance", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
