"""How often the process of a node was started in one run of the mesh.

The count is in a file of the node's folder, because the controller and Ray's actors may be replaced. What always holds:
a count that cannot be written does not keep a node from starting.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from mesh.cluster.run import replace
from mesh.private import make_private, read_own

log = logging.getLogger(__name__)

_FILE: Final = "starts.json"


def count_start(folder: Path, since: float) -> int:
    """Count a start of the node with this folder; returns how often it was started before in the run that began at
    ``since``."""
    try:
        make_private(folder)
        before = _before(folder / _FILE, since)
        replace(folder / _FILE, json.dumps({"since": since, "starts": before + 1}))
    except OSError as error:
        log.warning("the starts in %s cannot be counted: %s", folder, error)
        return 0
    return before


def _before(path: Path, since: float) -> int:
    try:
        value = json.loads(read_own(path))
        return int(value["starts"]) if value["since"] == since else 0
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
