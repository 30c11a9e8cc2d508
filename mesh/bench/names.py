"""The names of the vehicles of a load, which have to match the pattern of the mesh.

It knows patterns and numbers. What always holds: two numbers have different names; the names say ``bench`` as far as
the pattern allows it.
"""

from __future__ import annotations

from typing import Final, final

from mesh.policy.pattern import Pattern

_STEMS: Final = ("bench-", "BENCH-", "bench", "BENCH")
_DIGITS: Final = 7  # of the number in a name; more if the pattern asks for longer names


@final
class VehicleNames:
    """``name_of(3)`` is ``bench-0000003``, or what comes next to it under ``pattern`` (empty: any name is allowed)."""

    def __init__(self, pattern: str) -> None:
        self._pattern = Pattern(pattern) if pattern else None
        self._form = self._named_form() if self._pattern is not None else (_STEMS[0], _DIGITS)

    def _named_form(self) -> tuple[str, int] | None:
        """The first stem, and how many digits follow it, that the pattern allows for all numbers."""
        pattern = self._pattern
        assert pattern is not None
        for stem in _STEMS:
            for digits in range(_DIGITS, pattern.longest - len(stem) + 1):
                if all(pattern.matches(stem + digit * digits) for digit in "0123456789"):
                    return stem, digits
        return None

    def name_of(self, number: int) -> str:
        """The name of vehicle ``number``. Raises ``ValueError`` if the pattern has too few names."""
        if self._form is not None:
            stem, digits = self._form
            return f"{stem}{number:0{digits}}"
        return self._spelled(number)

    def _spelled(self, number: int) -> str:
        """``number`` in the characters that the pattern allows, in names of the shortest length that has enough."""
        pattern = self._pattern
        assert pattern is not None
        places = self._places(pattern)
        left, spelled = number, ""
        for characters in reversed(places):
            left, index = divmod(left, len(characters))
            spelled = characters[index] + spelled
        if left:
            raise ValueError(f"the pattern {pattern.text!r} has too few names for a load with vehicle {number}")
        return spelled

    def _places(self, pattern: Pattern) -> list[list[str]]:
        """The characters of each place: as many places as 10 ** ``_DIGITS`` names need, if there are so many."""
        counts = [piece.least for piece in pattern.pieces]
        for index in reversed(range(len(counts))):
            while counts[index] < pattern.pieces[index].most and self._names(pattern, counts) < 10**_DIGITS:
                counts[index] += 1
        return [
            sorted(piece.characters)
            for piece, count in zip(pattern.pieces, counts, strict=True)
            for _ in range(count)
        ]

    def _names(self, pattern: Pattern, counts: list[int]) -> int:
        names = 1
        for piece, count in zip(pattern.pieces, counts, strict=True):
            names *= len(piece.characters) ** count
        return names
