"""The decision to sample a message."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mesh.telemetry import sampling
from mesh.telemetry.sampling import Bucket, Sampler
from mesh.wire.tracecontext import TraceContext
from tests.fakes.clock import FakeClock

YES = TraceContext("a" * 32, "b" * 16, 1)
NO = TraceContext("a" * 32, "b" * 16, 0)


def asked(sampler: Sampler, caller: TraceContext | None, vehicle: str, trusted: bool) -> bool:
    """Ask as the tracer does: a message that no node has decided on is counted first."""
    considered = not trusted and sampler.picks()
    return (considered or caller is not None) and sampler.decide(caller, vehicle, trusted)


def test_decision_of_the_caller_overrides_the_ratio() -> None:
    assert asked(Sampler(0.0), YES, "", trusted=False)
    assert not asked(Sampler(1.0), NO, "", trusted=False)


def test_decision_of_the_caller_overrides_the_watch_list() -> None:
    assert not asked(Sampler(0.0, ["V1"]), NO, "V1", trusted=False)


def test_watched_vehicle_is_sampled() -> None:
    sampler = Sampler(0.0, ["V1"])
    assert asked(sampler, None, "V1", trusted=False)
    assert not asked(sampler, None, "V2", trusted=False)
    assert not asked(sampler, None, "", trusted=False)


def test_another_ratio_and_another_watch_list_hold_from_the_next_message_on() -> None:
    clock = FakeClock()
    sampler = Sampler(0.0, ["V1"], clock=clock)
    assert not asked(sampler, None, "V2", trusted=False)
    sampler.take(0.0, ["V2"])
    assert asked(sampler, None, "V2", trusted=False)
    assert not asked(sampler, None, "V1", trusted=False)
    sampler.take(1.0, [])
    assert asked(sampler, None, "V1", trusted=False)
    sampler.take(0.0, [])
    assert not sampler.picks()


def test_a_change_gives_no_new_budget() -> None:
    sampler = Sampler(1.0, rate=1.0, burst=2.0, clock=FakeClock(), ratio_rate=1.0)
    assert [asked(sampler, None, "", trusted=False) for _ in range(3)] == [True, True, False]
    sampler.take(1.0, [])
    assert not asked(sampler, None, "", trusted=False)
    assert sampler.suppressed == 2


def test_ratio_is_met() -> None:
    sampler = Sampler(0.25, ratio_rate=1e9, burst=1e9)
    hits = sum(asked(sampler, None, "", trusted=False) for _ in range(20_000))
    assert 4_000 < hits < 6_000  # 16 standard deviations


def test_ratio_picks_each_message_with_equal_probability() -> None:
    """The gaps are geometric: a message is picked with the same probability after a picked and an unpicked one."""
    sampler = Sampler(0.25, ratio_rate=1e9, burst=1e9)
    picked = [asked(sampler, None, "", trusted=False) for _ in range(40_000)]
    after = [second for first, second in pairwise(picked) if first]
    assert 0.2 < sum(after) / len(after) < 0.3  # 11 standard deviations


def test_decision_of_a_caller_does_not_use_up_the_ratio() -> None:
    sampler = Sampler(1.0)
    assert not asked(sampler, NO, "", trusted=False)
    assert asked(sampler, None, "", trusted=False)


def test_ratio_one_samples_all_and_zero_none() -> None:
    assert all(asked(Sampler(1.0), None, "", trusted=False) for _ in range(100))
    assert not any(asked(Sampler(0.0), None, "", trusted=False) for _ in range(100))


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_wrong_ratio_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Sampler(ratio)


def test_callers_cannot_exceed_their_rate_or_starve_others() -> None:
    clock = FakeClock()
    sampler = Sampler(1.0, ["V1"], rate=10.0, burst=5.0, clock=clock)
    assert sum(asked(sampler, YES, "", trusted=False) for _ in range(100)) == 5
    assert sampler.suppressed == 95
    clock.now += 0.2
    assert sum(asked(sampler, YES, "", trusted=False) for _ in range(100)) == 2
    assert asked(sampler, None, "V1", trusted=False)
    assert asked(sampler, None, "V2", trusted=False)


def test_decision_of_another_node_is_followed() -> None:
    sampler = Sampler(1.0, rate=1.0, burst=1.0)
    assert not asked(sampler, None, "V1", trusted=True)
    assert not asked(sampler, NO, "V1", trusted=True)
    assert sum(asked(sampler, YES, "V1", trusted=True) for _ in range(100)) == 100


def test_samples_from_other_nodes_are_bounded() -> None:
    sampler = Sampler(1.0, clock=FakeClock())
    assert sum(asked(sampler, YES, "", trusted=True) for _ in range(3000)) == sampling.TRUSTED_RATE


def test_bucket_never_holds_more_than_its_burst() -> None:
    clock = FakeClock()
    bucket = Bucket(10.0, 3.0, clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 3600.0
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
