"""Readers of scalars with a range, or with a word that stands for a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh.topology.topology import NEVER
from mesh.topology.units import size


def within(read: Callable[[str], float], least: float, most: float) -> Callable[[str], Any]:
    """``read`` with a range. The message gives the range in seconds or bytes."""

    def ranged(text: str) -> float:
        if text == "never" and most == NEVER:
            return NEVER
        value = read(text)
        if not least <= value <= most:
            unit = "B" if read is size else "s"
            raise ValueError(f"{text!r} is out of range; write a value from {least:.15g}{unit} to {most:.15g}{unit}")
        return value

    return ranged


def or_word(word: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """The reader of a word that stands for 0, or of what ``read`` takes."""

    def either(text: str) -> Any:
        if text == word:
            return 0
        try:
            return read(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return either
