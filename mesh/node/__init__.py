"""What every node of the mesh has in common: its configuration, the registry, its tracer and its log."""
