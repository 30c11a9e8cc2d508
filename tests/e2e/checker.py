"""Checks of the clients' records that hold after any fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.support.client import Received

Message = tuple[str, str]


def firsts(messages: Iterable[Received]) -> dict[str, list[str]]:
    """By topic: the payloads in the order of their first arrival. All payloads of a topic must differ."""
    found: dict[str, dict[str, None]] = {}
    for message in messages:
        found.setdefault(message.topic, {}).setdefault(message.payload)
    return {topic: list(payloads) for topic, payloads in found.items()}


def by_topic(messages: Iterable[Message]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for topic, payload in messages:
        found.setdefault(topic, []).append(payload)
    return found


def missing(acked: Iterable[Message], received: Iterable[Received]) -> list[Message]:
    """The messages that were acknowledged and did not arrive."""
    there = {(message.topic, message.payload) for message in received}
    return [message for message in acked if message not in there]


def check_kept(acked: Iterable[Message], received: list[Received], who: str) -> None:
    """No acknowledged message is missing, and the first arrivals of every topic are in publishing order."""
    lost = missing(acked, received)
    assert not lost, f"{who}: {len(lost)} acknowledged messages are missing, the first is {lost[0]}"
    for topic, payloads in firsts(received).items():
        numbers = [int(payload) for payload in payloads]
        assert numbers == sorted(numbers), f"{who}: {topic} came out of order: {_disorder(numbers)}"


def check_repeats(received: list[Received], who: str) -> None:
    """A repeat of a QoS 1 message carries DUP."""
    seen: set[Message] = set()
    for message in received:
        key = (message.topic, message.payload)
        assert key not in seen or message.dup, f"{who}: {key} came again without DUP"
        seen.add(key)


def check_once(published: Iterable[Message], received: Iterable[Received], who: str) -> None:
    """Exactly the published messages arrived, each once, in order."""
    expected = by_topic(published)
    found = by_topic((message.topic, message.payload) for message in received)
    for topic in expected.keys() | found.keys():
        want, got = expected.get(topic, []), found.get(topic, [])
        repeated = [payload for payload, count in Counter(got).items() if count > 1]
        lost = [payload for payload in want if payload not in set(got)]
        extra = [payload for payload in got if payload not in set(want)]
        assert sorted(want) == sorted(got), (
            f"{who}: {topic}: {len(lost)} missing {lost[:3]}, {len(repeated)} repeated {repeated[:3]}, "
            f"{len(extra)} that were not acknowledged {extra[:3]}"
        )
        assert want == got, f"{who}: {topic} came out of order: {_disorder([int(payload) for payload in got])}"


def _disorder(numbers: list[int]) -> str:
    for place in range(1, len(numbers)):
        if numbers[place] < numbers[place - 1]:
            return f"… {numbers[max(0, place - 3) : place + 3]} …"
    return "nothing"
