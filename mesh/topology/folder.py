"""Whether a data folder can be used: asked before anything is started, and without making anything.

It knows files and their modes. What always holds: nothing is created or changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from mesh.private import user_name


def unusable(folder: Path) -> str:
    """Why a mesh cannot have its files in this folder, which may not exist yet; one sentence, empty if it can."""
    for above in reversed(folder.parents):  # from the root on: what is below one that cannot be entered is not known
        if above.is_dir() and not os.access(above, os.X_OK):
            return f"data: this user cannot enter {above}, where {folder} would be; name a folder of this user"
    place = folder
    while not place.exists() and place != place.parent:
        if place.is_symlink():
            return f"data: {place} is a link to {os.readlink(place)}, which does not exist; make that folder"
        place = place.parent
    if not place.is_dir():
        return f"data: {place} is a file; name a folder that exists or can be made"
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"data: the file system of {place} is read-only; name a folder on another one"
    if not os.access(place, os.W_OK | os.X_OK):
        made = "" if place == folder else f", so {folder} cannot be made"
        return f"data: this user cannot write to {place}{made}; name a folder of this user"
    owner = place.stat().st_uid
    if place == folder and owner != os.geteuid():
        own = user_name(os.geteuid())
        return f"data: {place} belongs to {user_name(owner)}, and the mesh runs as {own}; name a folder of this user"
    return ""
