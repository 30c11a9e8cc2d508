"""What every node of the mesh has in common: its place in the topology, the registry, its tracer and its log."""
