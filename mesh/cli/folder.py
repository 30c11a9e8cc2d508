"""Whether a mesh can have its data folder, for ``mesh check`` and ``mesh up``."""

from __future__ import annotations

from mesh.cluster.run import foreign, taken
from mesh.topology.folder import unusable
from mesh.topology.topology import Topology


def unfit(topology: Topology) -> str:
    """Why the mesh cannot have its data folder; one sentence, empty if it can. Changes nothing."""
    if why := unusable(topology.data):
        return why
    try:
        why = taken(topology.data, topology.mesh) or foreign(topology.data)
    except OSError as error:
        why = error.strerror or str(error)
    return f"data: {why}" if why else ""
