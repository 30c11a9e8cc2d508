"""The order of dead letters, from which any letter can be taken out."""

from __future__ import annotations

from mesh.broker.letter import Letter
from mesh.broker.letterqueue import LetterQueue


def test_letters_can_be_taken_out_anywhere() -> None:
    queue = LetterQueue()
    letters = []
    for item in range(1, 3001):
        letter = Letter(0, 0.0, "share", "t", 10)
        letter.item = item
        letters.append(letter)
        queue.append(letter)
    assert (len(queue), queue.bytes) == (3000, 30_000)
    for letter in letters[::3] + letters[1::3]:
        queue.remove(letter)
    assert [one.item for one in queue.after(0, 5000)] == list(range(3, 3001, 3))
    assert [one.item for one in queue.after(1500, 2)] == [1503, 1506]
    assert queue.get(1501) is None
    assert queue.get(1503) is letters[1502]
    assert queue.get(0) is None
    first = queue.first()
    assert first is not None
    assert first.item == 3
    for letter in letters[2::3]:
        queue.remove(letter)
    assert (len(queue), queue.bytes, queue.first(), queue.after(0, 9)) == (0, 0, None, [])
