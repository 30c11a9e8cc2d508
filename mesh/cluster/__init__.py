"""Places, starts and watches the nodes of a mesh: the only room that knows Ray."""
