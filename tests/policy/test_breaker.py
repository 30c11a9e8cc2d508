"""The circuit breaker: when questions pass."""

from __future__ import annotations

from mesh.policy.breaker import CLOSED, FAILURES, LONGEST, OPEN, PAUSE, TRYING, Breaker


def opened() -> Breaker:
    """Open since the time 0."""
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.passes(0.0)
        breaker.failed(0.0)
    return breaker


def test_it_opens_after_failures_without_a_success_between() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state == CLOSED
    assert opened().state == OPEN


def test_after_the_pause_one_question_passes() -> None:
    breaker = opened()
    assert not breaker.passes(PAUSE - 0.01)
    assert breaker.passes(PAUSE)
    assert breaker.state == TRYING
    assert not breaker.passes(PAUSE)
    breaker.succeeded()
    assert breaker.state == CLOSED
    assert breaker.passes(PAUSE)
    assert breaker.passes(PAUSE)


def test_the_pause_doubles_up_to_the_longest_and_begins_anew_after_a_success() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(8):
        start = now
        while not breaker.passes(now):
            now += 0.5
        pauses.append(now - start)
        breaker.failed(now)
    assert pauses[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert pauses[5:] == [LONGEST] * 3
    breaker.succeeded()
    for _ in range(FAILURES):
        breaker.failed(now)
    assert not breaker.passes(now + PAUSE - 0.01)
    assert breaker.passes(now + PAUSE)


def test_failures_of_questions_from_before_do_not_prolong_the_pause() -> None:
    breaker = opened()
    for _ in range(50):
        breaker.failed(0.9)
    assert breaker.opened == 1
    assert breaker.passes(PAUSE)


def test_a_success_of_a_question_from_before_ends_the_pause() -> None:
    breaker = opened()
    breaker.succeeded()
    assert breaker.passes(0.0)


def test_a_trial_whose_client_is_gone_is_repeated() -> None:
    breaker = opened()
    assert breaker.passes(PAUSE)
    breaker.gave_up()
    assert breaker.passes(PAUSE)
