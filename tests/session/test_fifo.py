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
        st.tuples(st.just("take"), st.integers(0, 100)),
        st.tuples(st.just("prepend"), st.integers(0, 5)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=60,
)


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
        elif step == "take" and count < len(model):
            expected = model[count]
            del model[count]
            assert queue.take(count) == expected
        elif step == "prepend":
            fresh = [-number - place for place in range(count)]
            queue.prepend(list(fresh))
            model.extendleft(reversed(fresh))
        elif step == "clear":
            queue.clear()
            model.clear()
        assert list(queue) == list(model)
        assert (len(queue), bool(queue)) == (len(model), bool(model))


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
