"""The demonstration is no part of the package: its modules are found in ``scripts``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
