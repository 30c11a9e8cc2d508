"""The ``mesh`` command: parses the command line and calls the other rooms."""
