"""promtool, which comes with Prometheus: what it says of metrics and configurations."""

from __future__ import annotations

import shutil
import subprocess

DEADLINE = 30.0


def promtool(*words: str, text: str = "") -> str:
    """What ``promtool WORDS`` prints, given ``text``; it must find nothing wrong."""
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: scripts/test gets it, or install Debian's package prometheus"
    done = subprocess.run([program, *words], input=text, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, f"promtool {' '.join(words)}: {done.stdout}\n{done.stderr}\n{text}"
    return done.stdout


def check_metrics(text: str) -> None:
    """Text in Prometheus' format that follows its conventions: not even a warning."""
    assert promtool("check", "metrics", text=text) == ""
