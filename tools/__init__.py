"""What the entry points in ``scripts/`` run: the tools of this checkout, which are no part of the product.

| module | script | what it does |
|---|---|---|
| ``benchmark`` | ``bench`` | the mesh beside its peers, beside a revision, with fleets of other sizes |
| ``check_traces`` | ``check_traces`` | whether traces arrive whole, with a receiver that is not ours |
| ``checks`` | ``test`` | style, types, imports, and every test |
| ``conformance`` | ``conformance`` | makes docs/conformance.md |
| ``demonstration`` | ``demo`` | shows the mesh at work |
| ``fuzz`` | ``fuzz`` | fuzzes the engine, or a whole mesh, for as long as is asked for |
| ``measure`` | ``measure`` | single figures behind docs/decisions.md |
| ``metrics`` | ``metrics`` | makes docs/metrics.md |
| ``suites`` | ``suites`` | runs the suites of eclipse/paho.mqtt.testing |
| ``tracing`` | | receives and shows traces, for the demonstration and the tests |

A script sets up the environment with ``environment.sh`` and ``programs.sh``, then it runs a module; ``checkout`` is for
those that use the tests. What always holds: ``mesh`` imports nothing of it. The load of a benchmark is made by
``mesh.bench``, the load generator behind the product's ``mesh bench``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]  # of the checkout
