"""The warnings of a mesh: of its topology, and of the etcd that it starts itself."""

from __future__ import annotations

import sys

from mesh.registry.embedded import fault_of, find_binary
from mesh.registry.errors import RegistryError
from mesh.topology.topology import Topology
from mesh.topology.warnings import warnings


def warn(topology: Topology) -> None:
    """Print the warnings on stderr, one line each."""
    found = warnings(topology)
    if topology.etcd.embedded and (fault := _etcd_fault()):
        found.append(f"etcd: {fault}")
    for text in found:
        print(f"warning: {text}", file=sys.stderr)


def _etcd_fault() -> str:
    try:
        return fault_of(find_binary())
    except RegistryError as error:  # the mesh cannot start then, which is more than a warning
        return str(error)
