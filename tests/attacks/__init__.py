"""Attacks on a running mesh, one file each, and a well-behaved vehicle and back end that are measured beside them.

``./scripts/attack`` runs them by hand at full size; ``test_attacks.py`` runs small ones. docs/security.md has what each
one costs.
"""
