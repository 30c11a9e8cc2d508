"""The console: an HTTP API and one web page, to look at the mesh and change nothing."""
