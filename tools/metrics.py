"""Makes docs/metrics.md: the table of the metrics, from their declarations.

    scripts/metrics            writes the page
    scripts/metrics --check    writes nothing; exit code 1 if the page is not current
"""

from __future__ import annotations

import argparse
import sys

from mesh.cluster.etcd import EtcdStatus
from mesh.console.status import MeshView
from mesh.core.status import CoreStatus
from mesh.edge.status import EdgeStatus
from mesh.figures.instrument import Instrument
from mesh.figures.status import Status, instruments_of
from mesh.frontdoor.status import DoorStatus
from tools import ROOT

PAGE = ROOT / "docs" / "metrics.md"

# The status class of each kind of node. The node of the embedded etcd has no GET /metrics.
TOLD_BY: dict[str, type[Status]] = {
    "door": DoorStatus, "edge": EdgeStatus, "core": CoreStatus, "console": MeshView, "etcd": EtcdStatus
}  # fmt: skip

HEAD = """\
# Metrics

This page is made from the declarations in the source by `scripts/metrics`. [topology.md](topology.md#metrics)
says where the nodes show their metrics, and how Prometheus finds the nodes.

Every series has the labels `mesh` and `node`; the table names the others:

* `link` is what a socket or a link carries: `client` (packets of a client), `device` (between a front door and an
  edge), `tier` (between an edge and a core);
* `peer` is the node at the other end of a link, `listener` the host and port of a listening socket;
* `role` is the kind of a node: `door`, `edge`, `core`, `console` or `etcd`;
* `reason` says why messages were dropped or connections are not read.

Counters begin at 0 when a node starts. The bounds of a histogram are powers of two in microseconds, from 64 µs on.
`mesh status --json` has the same figures under the same names in `figures` of each node, of a histogram the count and
the sum. The node of the embedded etcd is found there only.

| metric | kind | unit | labels | shown by | what it says |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The text of the page. Raises ``TypeError`` if two instruments have one name."""
    found: dict[str, Instrument] = {}
    shown: dict[str, list[str]] = {}
    for role, kind in TOLD_BY.items():
        for instrument in instruments_of(kind):
            if found.setdefault(instrument.name, instrument) != instrument:
                raise TypeError(f"{instrument.name} is declared twice")
            shown.setdefault(instrument.name, []).append(role)
    return HEAD + "".join(_line(found[name], shown[name]) for name in sorted(found))


def _line(instrument: Instrument, roles: list[str]) -> str:
    labels = ", ".join(f"`{label}`" for label in instrument.labels)
    cells = (f"`{instrument.name}`", instrument.kind, instrument.unit, labels, ", ".join(roles), instrument.help)
    return f"| {' | '.join(cells)} |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="docs/metrics.md from the declarations of the metrics")
    parser.add_argument("--check", action="store_true", help="fail if the page is not current")
    wanted = page()
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != wanted:
        print(f"{PAGE} is not current: run scripts/metrics", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
