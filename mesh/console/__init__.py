"""The console: a read-only HTTP API and one web page that show the mesh."""
