"""The ``mesh`` command: composition only."""
