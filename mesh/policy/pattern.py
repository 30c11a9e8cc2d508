"""Patterns of identities: a small subset of regular expressions, with its own matcher.

It knows characters and counts. It must never match client input with a regular expression (amqtt had a published denial
of service from that). What always holds: a match takes at most (pieces x length) steps, and no identity that matches
can contain ``/``, ``+`` or ``#``, so it is always exactly one level of a topic (CVE-2017-7650).

The language: a sequence of characters, escaped characters (``\\.``) and classes (``[A-Za-z0-9_-]``), each with an
optional count ``{n}`` or ``{min,max}``. The whole identity must match. Everything else is an error when the topology is
loaded.
"""

from __future__ import annotations

from typing import Final, final

# The identity becomes a key of the map, a level of a topic and a label of a trace: 256 is far above any VIN,
# certificate name or UUID.
MAX_IDENTITY: Final = 256
# Pieces bound the work of one match, together with MAX_IDENTITY.
MAX_PIECES: Final = 32

_FORBIDDEN: Final = frozenset("/+#")
_SPECIAL: Final = {
    "^": "remove it: the whole identity must match anyway",
    "$": "remove it: the whole identity must match anyway",
    "*": "write a count such as {0,64}",
    "+": "write a count such as {1,64}",
    "?": "write the count {0,1}",
    ".": "name the characters in a class such as [A-Za-z0-9], or write \\. for a dot",
    "(": "groups are not supported",
    ")": "groups are not supported",
    "|": "alternatives are not supported",
    "{": "a count follows a character or a class",
    "}": "a count follows a character or a class; write \\} for a brace",
    "]": "a class begins with [; write \\] for a bracket",
}


class PatternError(ValueError):
    """Says what is wrong with a pattern, where, and what would be right."""


@final
class Piece:
    """``least`` to ``most`` characters of the set ``characters``."""

    __slots__ = ("characters", "least", "most")

    def __init__(self, characters: frozenset[str], least: int, most: int) -> None:
        self.characters = characters
        self.least = least
        self.most = most


@final
class Pattern:
    """A compiled pattern. ``Pattern("[A-Z0-9]{3,32}").matches("V1F")`` is true."""

    __slots__ = ("longest", "pieces", "shortest", "text")

    def __init__(self, text: str) -> None:
        """Raises ``PatternError`` for text outside the language, and for patterns that match an empty identity."""
        self.text = text
        self.pieces = tuple(_Parser(text).pieces())
        self.shortest = sum(piece.least for piece in self.pieces)
        self.longest = sum(piece.most for piece in self.pieces)
        if not self.shortest:
            raise PatternError(f"the pattern {text!r} matches an empty identity; begin with a count of at least 1")
        if self.longest > MAX_IDENTITY:
            raise PatternError(
                f"the pattern {text!r} allows {self.longest} characters; an identity has at most {MAX_IDENTITY}"
            )

    def matches(self, identity: str) -> bool:
        """Whether the whole of ``identity`` matches."""
        length = len(identity)
        if not self.shortest <= length <= self.longest:
            return False
        if len(self.pieces) == 1:
            characters = self.pieces[0].characters
            return all(character in characters for character in identity)
        ends = [True] + [False] * length  # ends[i]: the pieces so far can match identity[:i]
        for piece in self.pieces:
            ends = _after(piece, identity, ends)
        return ends[length]

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _after(piece: Piece, identity: str, begins: list[bool]) -> list[bool]:
    """Where ``piece`` can end, given where it can begin: one pass with running sums, without backtracking."""
    sums = [0]  # sums[i]: how many of begins[:i] are true
    for begin in begins:
        sums.append(sums[-1] + begin)
    ends = []
    run = 0  # the start of the run of matching characters that ends here
    for end in range(len(identity) + 1):
        if end and identity[end - 1] not in piece.characters:
            run = end
        first = max(run, end - piece.most)
        last = end - piece.least
        ends.append(last >= first and sums[last + 1] > sums[first])
    return ends


@final
class _Parser:
    """Reads a pattern once from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def error(self, what: str) -> PatternError:
        return PatternError(f"the pattern {self.text!r} is not understood at character {self.at + 1}: {what}")

    def pieces(self) -> list[Piece]:
        pieces: list[Piece] = []
        if not self.text:
            raise PatternError("the pattern is empty; write for example [A-Za-z0-9_-]{1,64}")
        while self.at < len(self.text):
            if len(pieces) == MAX_PIECES:
                raise self.error(f"a pattern has at most {MAX_PIECES} characters and classes")
            characters = self.characters()
            least, most = self.count()
            pieces.append(Piece(characters, least, most))
        return pieces

    def characters(self) -> frozenset[str]:
        character = self.text[self.at]
        if character == "[":
            return self.character_class()
        if character in _SPECIAL:
            raise self.error(_SPECIAL[character])
        return frozenset(self.one())

    def one(self) -> str:
        """One character, escaped or not, that an identity may contain."""
        character = self.text[self.at]
        if character == "\\":
            self.at += 1
            if self.at == len(self.text):
                raise self.error("a backslash must be followed by the character that it escapes")
            character = self.text[self.at]
            if character.isalnum():
                raise self.error(f"\\{character} is not supported; name the characters in a class such as [0-9]")
        if character in _FORBIDDEN:
            raise self.error(f"an identity is one level of a topic, so it cannot contain {character!r}")
        if not "!" <= character <= "~":
            raise self.error("an identity has printable ASCII characters without blanks only")
        self.at += 1
        return character

    def character_class(self) -> frozenset[str]:
        self.at += 1
        found: set[str] = set()
        while self.at < len(self.text) and self.text[self.at] != "]":
            if self.text[self.at] == "^" and not found:
                raise self.error("a negated class is not supported; write the allowed characters")
            if self.text[self.at] == "[":
                raise self.error("a class cannot contain a class; write \\[ for a bracket")
            first = self.one()
            if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("", "]"):
                self.at += 1
                found.update(self.span(first, self.one()))
            else:
                found.add(first)
        if self.at == len(self.text):
            raise self.error("the class has no closing ]")
        if not found:
            raise self.error("the class is empty; write the allowed characters, such as [A-Z0-9]")
        self.at += 1
        return frozenset(found)

    def span(self, first: str, last: str) -> set[str]:
        if last < first:
            raise self.error(f"the range {first}-{last} is reversed; write {last}-{first}")
        characters = {chr(code) for code in range(ord(first), ord(last) + 1)}
        if characters & _FORBIDDEN:
            raise self.error(f"the range {first}-{last} contains /, + or #, which one level of a topic cannot contain")
        return characters

    def count(self) -> tuple[int, int]:
        """The count after a piece; 1 if there is none."""
        if self.text[self.at : self.at + 1] != "{":
            return 1, 1
        end = self.text.find("}", self.at)
        if end < 0:
            raise self.error("the count has no closing }; write {n} or {min,max}")
        least, comma, most = self.text[self.at + 1 : end].partition(",")
        numbers = (least, most) if comma else (least, least)
        # Six digits are enough, and int() never gets a very long text.
        if not all(number.isascii() and number.isdecimal() and len(number) <= 6 for number in numbers):
            raise self.error("a count must be {n} or {min,max}")
        low, high = int(numbers[0]), int(numbers[1])
        if low > high or not high:
            raise self.error(
                f"the count {{{low},{high}}} matches nothing; write the smaller number first and at least 1 last"
            )
        self.at = end + 1
        return low, high
