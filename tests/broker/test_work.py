"""The jobs of ``Work``: how many steps a turn does, and in which order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.broker import work
from mesh.broker.work import STEPS, Work


def job(log: list[str], name: str, portions: int, steps: int) -> Iterator[int]:
    for _ in range(portions):
        log.append(name)
        yield steps


def test_small_work_ends_at_once() -> None:
    log: list[str] = []
    jobs = Work()
    jobs.start(job(log, "a", 10, 1))
    assert log == ["a"] * 10
    assert not jobs.run()


def test_a_turn_does_a_bounded_number_of_steps_for_all_jobs() -> None:
    log: list[str] = []
    jobs = Work()
    for name in "abc":
        jobs.start(job(log, name, 100, STEPS // 4))
    assert log == ["a"] * 4
    log.clear()
    assert jobs.run()
    assert len(log) == 4
    assert set(log) > {"a"}


def test_a_long_job_does_not_keep_a_short_one_waiting() -> None:
    log: list[str] = []
    jobs = Work()
    jobs.start(job(log, "long", 100_000, STEPS // 8))
    jobs.start(job(log, "short", 1, 1))
    jobs.run()
    assert "short" in log


def test_a_job_that_fails_is_dropped_and_the_others_go_on() -> None:
    log: list[str] = []
    jobs = Work()

    def failing() -> Iterator[int]:
        yield STEPS
        raise ValueError("a fault")

    jobs.start(failing())
    jobs.start(job(log, "b", 3, 1))
    with pytest.raises(ValueError, match="a fault"):
        jobs.run()
    assert not jobs.run()
    assert log == ["b"] * 3


def test_the_share_of_a_job_is_less_than_a_turn() -> None:
    assert work._SHARE < STEPS
