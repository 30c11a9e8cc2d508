"""Faults that are put into the broker on purpose: the clients beside the model must find each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mesh.broker.deadletters import DeadLetters
from mesh.broker.letter import Letter
from mesh.broker.persistence import Persistence
from mesh.broker.records import DEAD_LETTER
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.version import compiled
from tests.fuzz.machine import Machine
from tests.fuzz.store import CrashStore

pytestmark = pytest.mark.skipif(compiled(), reason="the methods of compiled classes cannot be replaced")

_SEARCH = settings(
    max_examples=2000,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # found is enough; it need not be made small
    suppress_health_check=list(HealthCheck),
)


def _acknowledge_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher is answered before the dead letter is durable."""
    keep = DeadLetters.keep

    def early(self: DeadLetters, letter: Letter, message: Message, receipt: Receipt | None) -> bool:
        position = 0 if receipt is None else receipt.position
        kept = keep(self, letter, message, receipt)
        if receipt is not None:
            receipt.position = position
        return kept

    monkeypatch.setattr(DeadLetters, "keep", early)


def _lose_at_compaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's compaction does not copy dead letters."""
    compact = CrashStore.compact

    def lossy(self: CrashStore) -> None:
        compact(self)
        pending = {record for record in self._pending if isinstance(record, int)}
        self.disk = {id: one for id, one in self.disk.items() if one.kind != DEAD_LETTER or id in pending}

    monkeypatch.setattr(CrashStore, "compact", lossy)


def _drop_the_shared_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that a dead letter shares is dropped with the last delivery."""
    keep = Persistence.keep_letter

    def uncounted(self: Persistence, letter: Letter, message: Message) -> None:
        keep(self, letter, message)
        if letter.body:
            self.bodies[letter.body] -= 1

    monkeypatch.setattr(Persistence, "keep_letter", uncounted)


def _drop_when_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message for which there is no room is acknowledged and dropped."""
    monkeypatch.setattr(DeadLetters, "take", lambda *_: True)


@pytest.mark.parametrize("fault", [_acknowledge_early, _lose_at_compaction, _drop_the_shared_body, _drop_when_sent])
def test_a_fault_in_the_dead_letters_is_found(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Machine, settings=_SEARCH)
