"""Whole meshes: every node runs as a process of its own, with real clients; nodes are killed during traffic."""
