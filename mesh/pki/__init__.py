"""Certificates that the mesh makes: authorities, their folder, and lists of revoked certificates."""
