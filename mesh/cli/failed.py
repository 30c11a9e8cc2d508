"""What ends a command: a text for stderr and an exit code. ``main`` shows it."""

from __future__ import annotations

from typing import ClassVar


class Failed(Exception):
    """The command cannot do its work. The text says why."""

    code: ClassVar[int] = 1
