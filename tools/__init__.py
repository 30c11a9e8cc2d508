"""The tools of this checkout, which the entry points in ``scripts/`` run. They are not part of the product.

| module | script | what it does |
|---|---|---|
| ``benchmark`` | ``bench`` | compares the mesh with its peers, with a revision, and with fleets of other sizes |
| ``check_traces`` | ``check_traces`` | checks with an independent receiver that traces are complete |
| ``checks`` | ``test`` | checks style, types and imports, and runs every test |
| ``conformance`` | ``conformance`` | makes docs/conformance.md |
| ``demonstration`` | ``demo`` | shows a running mesh, a small fleet and a crash |
| ``fuzz`` | ``fuzz`` | fuzzes the broker, or a whole mesh, for a given number of packets |
| ``measure`` | ``measure`` | measures single figures that docs/decisions.md gives |
| ``metrics`` | ``metrics`` | makes docs/metrics.md |
| ``suites`` | ``suites`` | runs the suites of eclipse/paho.mqtt.testing |
| ``tracing`` | | receives and shows traces, for the demonstration and the tests |

A script sets up the environment with ``environment.sh`` and ``programs.sh``, then it runs a module. The modules that
use code of the tests import ``checkout`` first. What always holds: ``mesh`` imports nothing from here. The benchmarks
use ``mesh.bench``, the load generator of the product's ``mesh bench``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]  # of the checkout
