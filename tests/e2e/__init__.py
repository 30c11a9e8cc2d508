"""Whole meshes: every node a process of its own, real clients, and what happens when something dies."""
