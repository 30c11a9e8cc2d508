"""Runs promtool, which comes with Prometheus, on metrics and configurations."""

from __future__ import annotations

import shutil
import subprocess

DEADLINE = 30.0


def promtool(*words: str, text: str = "") -> str:
    """Run ``promtool WORDS`` with ``text`` as its input; it must succeed. Return its output."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: scripts/test gets it, or install Debian's package prometheus"
    done = subprocess.run([program, *words], input=text, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, f"promtool {' '.join(words)}: {done.stdout}\n{done.stderr}\n{text}"
    return done.stdout


def check_metrics(text: str) -> None:
    """Check that metrics in Prometheus' format cause no error and no warning."""
    assert promtool("check", "metrics", text=text) == ""
