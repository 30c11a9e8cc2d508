"""Patterns of identities (see ``mesh.wire.pattern``).

It knows what an identity may contain. What always holds: no identity that matches can contain ``/``, ``+`` or ``#``, so
it is always exactly one level of a topic (CVE-2017-7650).
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.pattern import MAX_PIECES, Alphabet, PatternError, Piece, TextPattern

__all__ = ["MAX_IDENTITY", "MAX_PIECES", "Pattern", "PatternError", "Piece"]

# The identity becomes a key of the map, a level of a topic and a label of a trace: 256 is far above any VIN,
# certificate name or UUID.
MAX_IDENTITY: Final = 256

_IDENTITY: Final = Alphabet(
    "an identity",
    frozenset(map(chr, range(0x21, 0x7F))),
    "printable ASCII characters without blanks",
    MAX_IDENTITY,
    "/+#",
    "an identity is one level of a topic",
)


@final
class Pattern(TextPattern):
    """A compiled pattern. ``Pattern("[A-Z0-9]{3,32}").matches("V1F")`` is true."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        """Raises ``PatternError`` for text outside the language, and for patterns that match an empty identity."""
        super().__init__(text, _IDENTITY)

    def __reduce__(self) -> tuple[type[Pattern], tuple[str]]:
        """A pattern can be pickled: by its text, since its base is compiled."""
        return Pattern, (self.text,)
