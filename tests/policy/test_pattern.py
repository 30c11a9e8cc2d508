"""Identity patterns: the language, its limits, and agreement with regular expressions for common patterns."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.policy.pattern import MAX_IDENTITY, MAX_PIECES, Pattern, PatternError


@pytest.mark.parametrize(
    ("pattern", "identity", "fits"),
    [
        ("[A-Z0-9]{3,32}", "V1F", True),
        ("[A-Z0-9]{3,32}", "V1", False),
        ("[A-Z0-9]{3,32}", "A" * 33, False),
        ("[A-Z0-9]{3,32}", "v1f", False),
        ("[A-Z0-9]{3,32}", "V1F\n", False),
        ("[A-Z0-9]{3,32}", "V1F/#", False),
        ("[A-Z0-9]{3,32}", "", False),
        ("VIN-[A-HJ-NPR-Z0-9]{17}", "VIN-WVWZZZ1JZXW000001", True),
        ("VIN-[A-HJ-NPR-Z0-9]{17}", "VIN-WVWZZZ1JZXW00000I", False),
        (r"[a-z]{1,8}\.car", "blue.car", True),
        (r"[a-z]{1,8}\.car", "blueXcar", False),
        ("[_-]{1,2}x", "-_x", True),
        ("[a-]{1,3}", "a-a", True),
        ("A{0,1}B{2}", "ABB", True),
        ("A{0,1}B{2}", "BB", True),
        ("A{0,1}B{2}", "AB", False),
        ("[a-z]{1,9}[a-z0-9]{1,9}z", "aaz", True),  # the first class could take all of it
        ("[a-z]{1,9}[a-z0-9]{1,9}z", "az", False),
    ],
)
def test_pattern_matches_the_whole_identity(pattern: str, identity: str, fits: bool) -> None:
    assert Pattern(pattern).matches(identity) is fits


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("", "empty"),
        ("[A-Z]*", "{0,64}"),
        ("[A-Z]+", "{1,64}"),
        ("A?", "{0,1}"),
        (".{3}", "class"),
        ("^A$", "whole text"),
        ("(A|B)", "groups"),
        ("A|B", "alternatives"),
        ("[^A]{3}", "allowed"),
        ("[A-Z", "closing ]"),
        ("[]{1,3}", "empty"),
        ("[Z-A]{3}", "write A-Z"),
        ("[A-Z]{3", "closing }"),
        ("[A-Z]{3,x}", "{min,max}"),
        ("[A-Z]{5,3}", "smaller number first"),
        ("[A-Z]{0}", "matches nothing"),
        ("[A-Z]{0,5}", "empty text"),
        ("{3}", "follows a character"),
        (r"\d{3}", "[0-9]"),
        ("A\\", "backslash"),
        ("a/b", "one level"),
        (r"\+", "one level"),
        ("[a#]", "one level"),
        ("[ -~]{1,9}", "printable"),
        ("[!-~]{1,9}", "one level"),
        ("[a[b]", "bracket"),
        ("ä", "ASCII"),
        ("[A-Z]{1,9999}", str(MAX_IDENTITY)),
        ("a" * (MAX_PIECES + 1), str(MAX_PIECES)),
    ],
)
def test_unsupported_pattern_is_refused_with_an_explanation(pattern: str, word: str) -> None:
    with pytest.raises(PatternError, match=re.escape(word)):
        Pattern(pattern)


PIECES = st.tuples(
    st.sampled_from(["[ab]", "[a-c]", "a", "b", "[bc-]", r"\-"]), st.integers(0, 3), st.integers(1, 3)
).map(lambda piece: f"{piece[0]}{{{min(piece[1:])},{max(piece[1:])}}}")


@given(st.lists(PIECES, min_size=1, max_size=6), st.text("abc-", max_size=14))
def test_pattern_agrees_with_regular_expressions(pieces: list[str], identity: str) -> None:
    text = "".join(pieces) + "a"
    assert Pattern(text).matches(identity) is (re.fullmatch(text, identity) is not None)


@given(st.text(max_size=300))
def test_any_text_gives_a_pattern_or_pattern_error(text: str) -> None:
    try:
        pattern = Pattern(text)
    except PatternError:
        return
    assert 1 <= pattern.shortest <= pattern.longest <= MAX_IDENTITY


def test_wildcards_and_slashes_never_match() -> None:
    widest = Pattern('[!-"$-*,-.0-~]{1,64}')
    for identity in ("#", "+", "a/b", "/", "V+", "#V", "V\0", " ", "\x7f", "é"):
        assert not widest.matches(identity)


def test_pattern_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Pattern("[A-Z]{3}"))).matches("ABC")
