"""Imported before ``tests`` by the tools that use it: then that name is the checkout's.

A library that the tests use installs a package of the same name, which would be found first. What always holds:
``mesh`` is the one that was found before: the installed package, or with PYTHONPATH that of a checkout.
"""

from __future__ import annotations

import sys

import mesh  # noqa: F401
from tools import ROOT

sys.path.insert(0, str(ROOT))
