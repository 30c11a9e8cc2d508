"""How many clients a node may let in: what its process may open, less what the node itself needs.

It knows the limit of this process (RLIMIT_NOFILE) and the size of the mesh: never sockets. What always holds: clients
that take all of ``limits.connections`` leave the descriptors for links, etcd, files and telemetry free, so that an edge
that restarts is linked again during a flood of connections.
"""

from __future__ import annotations

import resource
from typing import Final

from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology
from mesh.transport.listener import SPARE

MOST: Final = 100_000  # of the default: a front door with more clients needs memory that was planned for
_OWN: Final = 192  # files of the journal and the log, listeners, the loop, etcd, spans, and readers of metrics
_FOR_NODE: Final = 4  # a link to each node of the mesh, and the next one while the system still closes the last


def openable() -> int:
    """How many files this process may open at most. A node raises its limit to that when it starts."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if most != resource.RLIM_INFINITY else 1 << 30


def reserve(topology: Topology) -> int:
    """The descriptors that clients may not take; ``SPARE`` clients more than allowed are let in to be refused."""
    return SPARE + _OWN + _FOR_NODE * len(nodes(topology))


def connections(topology: Topology, files: int) -> int:
    """How many clients a node may let in that may open ``files`` files. Raises ``ValueError``, which says what would be
    right, if that is none, or fewer than the topology asks for."""
    kept = reserve(topology)
    possible, asked = files - kept, topology.limits.connections
    if possible < 1:
        raise ValueError(
            f"a process may open {files} files, and a node needs {kept} without any client; "
            f"raise the limit of open files (ulimit -n, LimitNOFILE)"
        )
    if asked > possible:
        raise ValueError(
            f"{asked} connections are more than the {possible} that a node can have: it may open {files} files and "
            f"needs {kept} itself; use at most {possible}, or raise the limit of open files (ulimit -n, LimitNOFILE)"
        )
    return asked or min(possible, MOST)


def members(topology: Topology, files: int, most: int) -> int:
    """How many nodes may be connected to one of an edge's two internal ports: ``most``, or fewer if the edge may open
    few files; as many as the mesh has in any case."""
    return max(len(nodes(topology)), min(most, (files - reserve(topology)) // 2))
