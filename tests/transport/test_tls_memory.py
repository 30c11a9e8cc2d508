"""What an idle TLS connection takes of the memory of its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

MOST: Final = 62 << 10  # bytes of both ends; 52 KB were measured, and 75 KB with the buffers of the server in the heap
_CHECKOUT: Final = Path(__file__).parents[2]
# The process finds ``mesh`` as this one does, and ``tests`` in this checkout.
_PROGRAM: Final = (
    "import sys, mesh, runpy; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('tests.support.idletls', run_name='__main__', alter_sys=True)"
)


def test_an_idle_connection_takes_little_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(_CHECKOUT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < MOST
