"""The demonstration behind ``scripts/demo``: a mesh, a small fleet, a crash, and what arrived all the same."""
