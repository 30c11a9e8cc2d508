"""Every sequence of the corpus, sent in several ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.replay import MODES, Replay, files, lines


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_sequence_of_the_corpus_does_no_harm(path: Path, mode: str) -> None:
    Replay(mode).run(lines(path))


def test_every_file_begins_with_a_comment() -> None:
    for path in files():
        assert path.read_text().startswith("# "), path.name
