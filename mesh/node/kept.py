"""The settings that a node keeps in its folder, for a start without etcd.

It knows one file: never what the settings mean. What always holds: the file has one whole revision, also after a loss
of power, and no other user can read it, as settings have passwords.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

from mesh.private import read_own, write_own
from mesh.registry.settings import Revision, from_plain, plain

log = logging.getLogger(__name__)

NAME: Final = "settings.json"


def read_kept(folder: Path, since: float) -> Revision | None:
    """The revision that ``keep`` wrote last, if it was in the same run of the mesh, which began at ``since``: another
    run may have another etcd, which gives the numbers anew. A file that cannot be used is logged, and counts as
    none."""
    path = folder / NAME
    try:
        value = json.loads(read_own(path, secret=True))
        return from_plain(value) if value["since"] == since else None
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("the settings in the folder are not used: %s", error)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("the settings in the folder are not used: %s holds something else: %r", path, error)
    return None


def keep(folder: Path, revision: Revision, since: float) -> None:
    """Replace the file. Raises ``OSError``."""
    write_own(folder / NAME, json.dumps({"since": since, **plain(revision)}).encode())
