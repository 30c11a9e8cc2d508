"""The journal against a dictionary, under random calls, faults, cleaning and losses of power."""

from __future__ import annotations

import errno
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mesh.journal import JournalLimits
from mesh.journal.errors import UnsavedError
from mesh.journal.layout import PUT_SIZE
from mesh.journal.manifest import Mark
from tests.fakes.disk import Disk
from tests.journal.owner import READING, TINY, Fields, Owner, fields

SEEDS = st.integers(0, 1 << 32)
PICKS = st.integers(0, 1 << 16)


class JournalMachine(RuleBasedStateMachine):
    """``history``: the calls in order: the position, the item or the dropped id, and the body."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.disk = Disk()
        self.history: list[tuple[int, Fields | int, bytes]] = []
        self.model: dict[int, tuple[Fields, bytes]] = {}
        self.faults = 0
        self.acknowledged_at_image = 0
        self.mark: Mark | None = None
        self.mark_at_image: Mark | None = None

    @initialize(limits=st.sampled_from([TINY, READING]))
    def start(self, limits: JournalLimits) -> None:
        self.limits = limits
        self.disk.before = self.fault
        self.owner = Owner(self.directory, limits=limits, files=self.disk)
        self.mark = self.owner.journal.mark()

    def fault(self, operation: str, path: Path) -> None:
        if self.faults > 0 and operation in ("write", "sync", "truncate"):
            self.faults -= 1
            raise OSError(errno.EIO, "injected", str(path))

    @rule(
        kind=st.integers(0, 255), owner=st.integers(0, (1 << 64) - 1), meta=st.binary(max_size=20),
        body=st.binary(max_size=120), times=st.integers(1, 4),
    )
    def append(self, kind: int, owner: int, meta: bytes, body: bytes, times: int) -> None:
        for _ in range(times):
            id = self.owner.journal.append(kind, owner, meta, body)
            assert id == self.owner.journal.position
            self.model[id] = ((id, kind, owner, meta), body)
            self.history.append((id, *self.model[id]))

    # What a crash leaves depends on the progress of the commit thread, so no drawn value may depend on the state:
    # hypothesis must be able to draw the same values again.

    @rule(picks=st.lists(PICKS, min_size=1, max_size=6))
    def drop(self, picks: list[int]) -> None:
        for pick in picks[: len(self.model)]:
            id = sorted(self.model)[pick % len(self.model)]
            self.owner.journal.drop(id)
            del self.model[id]
            self.history.append((self.owner.journal.position, id, b""))

    @rule(pick=PICKS)
    def read(self, pick: int) -> None:
        if not self.model:
            return
        id = sorted(self.model)[pick % len(self.model)]
        assert self.owner.journal.read(id) == self.model[id][1]

    @rule()
    def commit(self) -> None:
        self.owner.journal.commit()

    @rule()
    def pump(self) -> None:
        self.owner.pump()

    @rule()
    def settle(self) -> None:
        self.owner.settle()
        journal = self.owner.journal
        assert journal.durable_position == journal.position
        assert journal.failed is None
        assert journal.backlog_bytes == 0
        assert sum(journal._live_in.values()) == len(self.model)

    @rule(times=st.integers(1, 3))
    def fail(self, times: int) -> None:
        self.faults = times

    @rule()
    def reopen(self) -> None:
        self.faults = 0
        self.owner.settle()  # a closing journal does not retry a failed write
        self.owner.journal.close()
        self.restart(self.disk, self.owner.journal.position)

    @rule(operations=st.integers(1, 30), seed=SEEDS)
    def arm(self, operations: int, seed: int) -> None:
        """The power fails after this many further changes of the disk."""
        def note() -> None:
            self.acknowledged_at_image = self.owner.journal.durable_position
            self.mark_at_image = self.mark

        self.disk.take_image(operations, seed, note)

    @rule(seed=SEEDS)
    def crash(self, seed: int) -> None:
        self.faults = 0
        image, acknowledged = self.disk.image, self.acknowledged_at_image
        if image is None:
            acknowledged = self.owner.journal.durable_position
            image = self.disk.crash(seed)
        else:
            self.mark = self.mark_at_image
        self.discard_owner()
        self.restart(image, acknowledged)

    @rule()
    def kill(self) -> None:
        self.faults = 0
        acknowledged = self.owner.journal.durable_position
        left = self.disk.kill()
        self.discard_owner()
        self.restart(left, acknowledged)

    def discard_owner(self) -> None:
        """End the threads and close the handles of an owner whose disk is no longer used; ignore unsaved bytes."""
        with suppress(UnsavedError):  # a fault may have hit its last attempt
            self.owner.journal.close()

    def restart(self, disk: Disk, acknowledged: int) -> None:
        assert self.disk.open_handles == 0
        self.disk = disk
        disk.before = self.fault
        # A start with the mark of any earlier start: no crash is taken for damage.
        self.owner = Owner(self.directory, limits=self.limits, files=disk, mark=self.mark)
        self.mark = self.owner.journal.mark() or self.mark
        reached = self.owner.journal.position
        assert reached >= acknowledged
        self.history = [entry for entry in self.history if entry[0] <= reached]
        self.model = {}
        for _, what, body in self.history:
            if isinstance(what, int):
                del self.model[what]
            else:
                self.model[what[0]] = (what, body)
        found = [(fields(item), self.owner.journal.read(item.id)) for item in self.owner.journal.live()]
        assert found == list(self.model.values())

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "owner"):
            figures = self.owner.journal.status()
            assert figures.live_items == len(self.model)
            sizes = [PUT_SIZE + len(meta) + len(body) for (_, _, _, meta), body in self.model.values()]
            assert figures.live_bytes == sum(sizes)

    def teardown(self) -> None:
        if hasattr(self, "owner"):
            self.faults = 0
            self.discard_owner()
        shutil.rmtree(self.directory)


JournalMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestJournal = JournalMachine.TestCase
