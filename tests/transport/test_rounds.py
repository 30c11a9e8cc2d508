"""A queue in which networks take turns."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh.transport.rounds import Rounds

KEYS = st.sampled_from("ABC")
NUMBERS = st.integers(0, 40)


@given(st.lists(st.one_of(KEYS, NUMBERS, st.none())))
def test_each_key_keeps_its_order_and_waits_for_one_of_each_other_key_at_most(
    steps: list[str | int | None]
) -> None:
    """A letter comes; ``None``: the next one leaves; a number: the item of that step leaves before its turn."""
    rounds: Rounds[tuple[str, int]] = Rounds()
    waiting: dict[str, list[int]] = {}
    passed: dict[str, Counter[str]] = {}  # who left since the last one of a key did, or since its first one came
    for number, key in enumerate(steps):
        if isinstance(key, int):
            for other, items in waiting.items():
                rounds.remove(other, (other, key))
                if key in items:
                    items.remove(key)
        elif key is not None:
            rounds.add(key, (key, number))
            if not waiting.setdefault(key, []):
                passed[key] = Counter()
            waiting[key].append(number)
        elif len(rounds):
            found = rounds.next()
            assert rounds.take() == found
            assert waiting[found[0]].pop(0) == found[1]
            passed[found[0]] = Counter()
            for other in waiting:
                if waiting[other] and other != found[0]:
                    passed[other][found[0]] += 1
                    assert passed[other][found[0]] == 1
        numbers = {key: len(items) for key, items in waiting.items()}
        assert len(rounds) == sum(numbers.values())
        assert {key: rounds.of(key) for key in numbers} == numbers
        assert rounds.keys == sum(1 for count in numbers.values() if count)
        assert rounds.most() == max(numbers.values(), default=0)
