"""Compares the mesh with its alternatives: the same load, in one run, on the same processors."""
