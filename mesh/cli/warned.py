"""The warnings of a mesh: of its topology, and of its etcd."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from mesh.cluster.versions import faulty
from mesh.registry.embedded import fault_of, find_binary
from mesh.registry.errors import RegistryError
from mesh.topology.topology import Topology
from mesh.topology.warnings import warnings


def warn(topology: Topology, etcd: bool = True) -> None:
    """Print the warnings of a mesh, which may not run, on stderr. ``etcd``: also those of its etcd."""
    show((*warnings(topology), *(_of_etcd(topology) if etcd else ())))


def show(cautions: Iterable[str]) -> None:
    """Print warnings on stderr, one line each."""
    for text in cautions:
        print(f"warning: {text}", file=sys.stderr)


def _of_etcd(topology: Topology) -> tuple[str, ...]:
    if not topology.etcd.embedded:
        return asyncio.run(faulty(topology, topology.etcd.endpoints))
    try:
        known = fault_of(find_binary())
    except RegistryError as error:  # the mesh cannot start then, which is more than a warning
        known = str(error)
    return (f"etcd: {known}",) if known else ()
