"""A short run of the fuzzer of a core and an edge, and deliberate faults that it must find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.broker.pressure import Pressure
from mesh.broker.session import Session
from mesh.core import holding
from mesh.core.holding import HELD, HeldVehicle, Holding
from mesh.core.spool import Spool
from mesh.session.outbound import Delivery
from mesh.version import compiled
from tests.core.link_world import Breach, run_link
from tests.support.bench import Bench

SEED = 20_261_127
STEPS = 250


@pytest.mark.parametrize("number", range(6))
def test_full_queues_lose_nothing_and_keep_the_order(number: int) -> None:
    world = run_link(f"{SEED}:{number}", STEPS)
    assert world.messages > STEPS


def test_the_fuzzer_reaches_the_patience() -> None:
    worlds = [run_link(f"{SEED}:calm:{number}", STEPS, calm=True) for number in range(3)]
    assert sum(world.refusals for world in worlds) > 10
    assert sum(world.rejected for world in worlds) == 0


@pytest.mark.skipif(compiled(), reason="a constant of a compiled module cannot be changed")
@pytest.mark.parametrize("number", [0, 1, 2, 65])  # 65: a held message of QoS 2 was sent before an older one
def test_events_between_the_slices_of_long_work(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("mesh.broker.work.STEPS", 40)
    monkeypatch.setattr("mesh.broker.work._SHARE", 16)
    monkeypatch.setattr(Bench, "turns", 2)
    assert run_link(f"h{number}", STEPS, hurried=True).messages > STEPS


Patch = Callable[[pytest.MonkeyPatch], None]


def _patience_twice(patch: pytest.MonkeyPatch) -> None:
    impatient = Holding.impatient

    def again(self: Holding, now: float) -> list[HeldVehicle]:
        found = impatient(self, now)
        for vehicle in found:
            vehicle.state, vehicle.since = HELD, now
        return found

    patch.setattr(Holding, "impatient", again)


def _unbounded(patch: pytest.MonkeyPatch) -> None:
    def takes(self: Pressure, session: Session, size: int) -> bool:
        connection = session.connection
        return connection is not None and not connection.closing

    patch.setattr(Pressure, "takes", takes)


def _overtaken(patch: pytest.MonkeyPatch) -> None:
    judge = Holding.judge

    def passes(self: Holding, name: str, delivery: Delivery) -> int:
        vehicle = self.vehicles.get(name)
        if vehicle is not None and vehicle.state == holding.DRAINING:
            return holding.PASSES
        return judge(self, name, delivery)

    patch.setattr(Holding, "judge", passes)


def _wrong_record(patch: pytest.MonkeyPatch) -> None:
    """The record of a message that was held puts it behind those that came later."""
    keep = Spool.keep
    patch.setattr(Spool, "keep", lambda self, delivery, message, place: keep(self, delivery, message, delivery.number))


def _no_waiting(patch: pytest.MonkeyPatch) -> None:
    """A message of QoS 2 for a full vehicle is acknowledged when it is in the spool."""
    patch.setattr("mesh.core.downstream.Downstream._may_wait", lambda self, message, receipt, up: False)


def _placed_late(patch: pytest.MonkeyPatch) -> None:
    """A message of QoS 2 that waited is sent with the others that were not spooled."""
    patch.setattr("mesh.core.downstream.Downstream._spool_due", lambda self, delivery: None)


@pytest.mark.skipif(compiled(), reason="a compiled class cannot be given a fault")
@pytest.mark.parametrize("fault", [_patience_twice, _unbounded, _overtaken, _wrong_record, _no_waiting, _placed_late])
def test_deliberate_faults_are_found(monkeypatch: pytest.MonkeyPatch, fault: Patch) -> None:
    fault(monkeypatch)
    with pytest.raises(Breach):
        for number in range(40):
            run_link(f"{SEED}:{number}", STEPS)
