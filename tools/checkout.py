"""Makes ``tests`` the package of this checkout. A tool that uses ``tests`` imports this module first.

Without it Python would find another package ``tests``, which a library of the tests installs. What always holds: this
module does not change which ``mesh`` is found: the installed package, or with PYTHONPATH that of a checkout.
"""

from __future__ import annotations

import sys

import mesh  # noqa: F401
from tools import ROOT

sys.path.insert(0, str(ROOT))
