"""Placing, starting and watching the nodes of a mesh: the only room that knows Ray."""
