"""``Timers`` against a sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.timers import Timer, Timers

STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "pop"]), st.integers(0, 20)), max_size=200)


@given(STEPS)
def test_timers_behave_as_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    timers: Timers[int] = Timers()
    there: list[Timer[int]] = []
    number = 0
    for step, when in steps:
        if step == "add":
            number += 1
            there.append(timers.add(float(when), number))
        elif step == "remove" and there:
            timer = there.pop(when % len(there))
            timers.remove(timer)
            timers.remove(timer)  # harmless
        elif step == "pop":
            there.sort(key=lambda timer: (timer.when, timer.order))
            expected = there.pop(0) if there and there[0].when <= when else None
            assert timers.pop(float(when)) is expected
        assert len(timers) == len(there)
    there.sort(key=lambda timer: (timer.when, timer.order))
    for timer in there:
        assert timers.pop(99.0) is timer
        assert timer.place == -1
    assert timers.pop(99.0) is None
