"""``Fifo`` against ``collections.deque``."""

from __future__ import annotations

import weakref
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.session.fifo import Fifo

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 60)),
        st.tuples(st.just("popleft"), st.integers(1, 60)),
        st.tuples(st.just("remove"), st.integers(0, 100)),
        st.tuples(st.just("tidy"), st.just(0)),
        st.tuples(st.just("prepend"), st.integers(0, 5)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=60,
)


def place_of(queue: Fifo[int], item: int) -> int:
    """Where an item is; items are different from each other."""
    (place,) = [place for place in range(queue.begin(), queue.end()) if queue.at(place) == item]
    return place


@given(STEPS)
def test_fifo_behaves_as_a_deque(steps: list[tuple[str, int]]) -> None:
    queue: Fifo[int] = Fifo()
    model: deque[int] = deque()
    number = 0
    for step, count in steps:
        if step == "append":
            for _ in range(count):
                number += 1
                queue.append(number)
                model.append(number)
        elif step == "popleft":
            for _ in range(min(count, len(model))):
                assert queue.first() == model[0]
                assert queue.popleft() == model.popleft()
        elif step == "remove" and count < len(model):
            taken = model[count]
            del model[count]
            queue.remove(place_of(queue, taken))
        elif step == "tidy":
            queue.tidy()
        elif step == "prepend":
            number += count
            fresh = [-number + place for place in range(count)]
            queue.prepend(list(fresh))
            model.extendleft(reversed(fresh))
        elif step == "clear":
            queue.clear()
            model.clear()
        assert list(queue) == list(model)
        assert (len(queue), bool(queue)) == (len(model), bool(model))


def test_an_item_keeps_its_place_until_the_queue_is_tidied() -> None:
    queue: Fifo[int] = Fifo()
    for number in range(1000):
        queue.append(number)
    places = {number: place_of(queue, number) for number in range(1000)}
    for _ in range(300):
        queue.popleft()
    for number in range(301, 1000, 2):
        queue.remove(places[number])
    queue.prepend([-2, -1])
    for number in range(300, 1000):
        assert queue.at(places[number]) == (number if number % 2 == 0 else None)
    assert list(queue) == [-2, -1, *range(300, 1000, 2)]
    assert queue.begin() == places[300] - 2
    while queue:
        queue.popleft()
    assert queue.begin() == queue.end()


def test_a_queue_whose_head_stays_does_not_grow() -> None:
    queue: Fifo[int] = Fifo([0])
    for number in range(1, 10_000):
        queue.append(number)
        queue.append(-number)
        queue.remove(queue.end() - 2)
        queue.tidy()
        if number > 10:
            queue.remove(next(place for place in range(queue.begin() + 1, queue.end()) if queue.at(place) is not None))
    assert len(queue._items) < 100


def test_empty_queue_raises_index_error() -> None:
    queue: Fifo[int] = Fifo([1])
    assert queue.popleft() == 1
    for ask in (queue.first, queue.popleft):
        with pytest.raises(IndexError):
            ask()


def test_queue_keeps_no_reference_to_an_item_taken_out() -> None:
    class Item:
        pass

    queue: Fifo[Item] = Fifo([Item() for _ in range(3)])
    seen = weakref.ref(queue.first())
    queue.popleft()
    assert seen() is None
