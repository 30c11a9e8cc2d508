"""The demonstration of ``scripts/demo``: a mesh and a small fleet through the crash of an edge."""
