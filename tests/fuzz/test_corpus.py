"""Every sequence of the corpus does no harm, however it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.replay import MANNERS, Replay, files, lines


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_sequence_of_the_corpus(path: Path, manner: str) -> None:
    Replay(manner).run(lines(path))


def test_every_file_says_what_it_is() -> None:
    for path in files():
        assert path.read_text().startswith("# "), path.name
