"""Patterns of texts that clients send: a small subset of regular expressions, with its own matcher.

It knows characters and counts. It must never match client input with a regular expression (amqtt had a published denial
of service from that). What always holds: a match takes at most (pieces x length) steps, and a text that matches has the
characters of its ``Alphabet`` only.

The language: a sequence of characters, escaped characters (``\\.``) and classes (``[A-Za-z0-9_-]``), each with an
optional count ``{n}`` or ``{min,max}``. The whole text must match. Everything else is an error when the topology is
loaded.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import mypyc_attr

# Pieces bound the work of one match, together with the longest text.
MAX_PIECES: Final = 32

_SPECIAL: Final = {
    "^": "remove it: the whole text must match anyway",
    "$": "remove it: the whole text must match anyway",
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
class Alphabet:
    """What texts of one kind may contain. ``thing``: what such a text is (``an identity``); ``others``: why other
    characters than ``allowed`` are not; ``refused``: why some are not, with the reason that no text may; ``most``
    characters in all."""

    __slots__ = ("allowed", "most", "others", "refused", "thing", "why")

    def __init__(
        self, thing: str, allowed: frozenset[str], others: str, most: int, refused: str = "", why: str = ""
    ) -> None:
        self.thing = thing
        self.allowed = allowed - frozenset(refused)
        self.others = others
        self.most = most
        self.refused = refused
        self.why = why


@mypyc_attr(allow_interpreted_subclasses=True)
class TextPattern:
    """A compiled pattern. That of ``[A-Z0-9]{3,32}`` matches ``V1F``."""

    __slots__ = ("_only", "longest", "pieces", "shortest", "text")

    def __init__(self, text: str, alphabet: Alphabet) -> None:
        """Raises ``PatternError`` for text outside the language, and for patterns that match an empty text."""
        self.text = text
        self.pieces = tuple(_Parser(text, alphabet).pieces())
        self._only = "".join(self.pieces[0].characters) if len(self.pieces) == 1 else ""
        self.shortest = sum(piece.least for piece in self.pieces)
        self.longest = sum(piece.most for piece in self.pieces)
        if not self.shortest:
            raise PatternError(f"the pattern {text!r} matches an empty text; begin with a count of at least 1")
        if self.longest > alphabet.most:
            raise PatternError(
                f"the pattern {text!r} allows {self.longest} characters; {alphabet.thing} has at most {alphabet.most}"
            )

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        length = len(text)
        if not self.shortest <= length <= self.longest:
            return False
        if self._only:
            return not text.strip(self._only)  # nothing is left if all its characters are of the piece
        ends = [True] + [False] * length  # ends[i]: the pieces so far can match text[:i]
        for piece in self.pieces:
            ends = _after(piece, text, ends)
        return ends[length]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"


def _after(piece: Piece, text: str, begins: list[bool]) -> list[bool]:
    """Where ``piece`` can end, given where it can begin: one pass with running sums, without backtracking."""
    sums = [0]  # sums[i]: how many of begins[:i] are true
    for begin in begins:
        sums.append(sums[-1] + begin)
    ends = []
    run = 0  # the start of the run of matching characters that ends here
    for end in range(len(text) + 1):
        if end and text[end - 1] not in piece.characters:
            run = end
        first = max(run, end - piece.most)
        last = end - piece.least
        ends.append(last >= first and sums[last + 1] > sums[first])
    return ends


@final
class _Parser:
    """Reads a pattern once from left to right."""

    def __init__(self, text: str, alphabet: Alphabet) -> None:
        self.text = text
        self.at = 0
        self.alphabet = alphabet

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
        """One character, escaped or not, that a text may contain."""
        character = self.text[self.at]
        if character == "\\":
            self.at += 1
            if self.at == len(self.text):
                raise self.error("a backslash must be followed by the character that it escapes")
            character = self.text[self.at]
            if character.isalnum():
                raise self.error(f"\\{character} is not supported; name the characters in a class such as [0-9]")
        if character in self.alphabet.refused:
            raise self.error(f"{self.alphabet.why}, so it cannot contain {character!r}")
        if character not in self.alphabet.allowed:
            raise self.error(f"{self.alphabet.thing} has {self.alphabet.others} only")
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
        found = sorted(characters & frozenset(self.alphabet.refused))
        if found:
            raise self.error(f"the range {first}-{last} contains {found[0]!r}: {self.alphabet.why}")
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
