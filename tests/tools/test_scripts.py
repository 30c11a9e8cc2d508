"""``scripts/`` holds entry points only: each sets up the environment and runs one module of ``tools``."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

from tools import ROOT

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
FORM = re.compile(
    r"""\#!/usr/bin/env\ bash\n
    (\#.*\n)+
    set\ -euo\ pipefail\n
    \.\ "\$\(dirname\ "\$\(readlink\ -f\ "\$\{BASH_SOURCE\[0\]\}"\)"\)/\.\./tools/environment\.sh"\n
    (unset\ PYTHONPATH\ \#.*\n)?
    (offer_help\ \w+\ "\$@"\n)?
    ensure_(environment\ (run|test)|venv)\n
    (ensure_(tools|python_tool|node_package)\ .+\n)*
    (run_tool\ (?P<tool>\w+)|exec\ "\$venv/bin/mesh")\ "\$@"\n""",
    re.VERBOSE,
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_an_entry_point(script: Path) -> None:
    assert os.access(script, os.X_OK)
    form = FORM.fullmatch(script.read_text())
    assert form is not None
    assert form["tool"] is None or importlib.util.find_spec(f"tools.{form['tool']}") is not None


@pytest.mark.parametrize("file", ["environment.sh", "programs.sh"])
def test_sourced_bash_files_have_valid_syntax(file: str) -> None:
    subprocess.run(["bash", "-n", ROOT / "tools" / file], check=True)
