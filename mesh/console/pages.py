"""The files of the web page: read once, when the console starts.

What always holds: exactly these names can be asked for; nothing that a client sends becomes the name of a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Final, final

# Path of the URL: name of the file, content type.
_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


@final
@dataclass(frozen=True, slots=True)
class Page:
    """One file as it is sent; its text is UTF-8."""

    path: str
    body: bytes
    content_type: str


def pages() -> list[Page]:
    """All of them. Raises ``OSError`` when the package is installed without one."""
    folder = resources.files(__package__ or "mesh.console") / "web"
    return [Page(path, (folder / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()]
