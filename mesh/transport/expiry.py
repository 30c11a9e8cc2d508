"""The end of something that is valid until a moment of the wall clock, such as the claim of a token.

It knows the moment: never what ends. What always holds: ``told`` is called once, within two ticks after the moment and
never before it; if the wall clock is set meanwhile, that is noticed within ``LOOK`` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

from mesh.transport.wheel import Timed, Wheel

LOOK: Final = 60.0  # seconds between looks at the wall clock


@final
class Expiry(Timed):
    """``moment`` is in seconds since 1970."""

    __slots__ = ("_moment", "_told", "_wheel")

    def __init__(self, wheel: Wheel, moment: float, told: Callable[[], None]) -> None:
        super().__init__()
        self._wheel = wheel
        self._moment = moment
        self._told = told
        self._watch()

    def move(self, moment: float) -> None:
        """It ends at another moment."""
        self._moment = moment
        self._watch()

    def cancel(self) -> None:
        """It does not end."""
        self._wheel.forget(self)

    def expired(self) -> None:
        if time.time() < self._moment:
            self._watch()
        else:
            self._told()

    def _watch(self) -> None:
        self._wheel.watch(self, min(max(self._moment - time.time(), 0.01), LOOK))
